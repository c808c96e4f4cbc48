"""Components as plain `.safetensors` files, and as directories of Hugging Face with shards and an index."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ckptfmt._core.format.dtypes import DTYPES
from ckptfmt._core.format.packing import TensorRef
from ckptfmt._core.format.tensors import METADATA_KEY, plan_header
from ckptfmt._core.format.trees import walk
from ckptfmt._core.interop.base import ComponentSource
from ckptfmt._core.interop.dropped import Dropped
from ckptfmt._core.interop.writers.base import Exported, Request
from ckptfmt._core.storage import create
from ckptfmt._core.storage.local.publication.atomic_directory import AtomicDirectory
from ckptfmt.errors import ExportError, FormatError

__all__ = ["write_directory", "write_file"]

_FORMAT = {"format": "pt"}
_CONFIG = "config"


def write_file(request: Request) -> Exported:
    """Write the tensors of a component as one file.

    Raises:
        ExportError: It has none, or one of a dtype that the format lacks.
    """
    (component,) = request.components
    names = _every_name(component)
    chosen = names or {name: name for name in component.tensors}
    nbytes = _write(request, component, chosen, request.target, component.text_metadata)
    return Exported(nbytes, dropped=() if names else _left_out(component))


def _every_name(component: ComponentSource) -> dict[str, str] | None:
    """Return which tensor each name of a state dict stands for, tied ones too; None if it is no mapping of tensors."""
    tree = component.tree()
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        return None
    names = {key: value.name for key, value in tree.items() if isinstance(value, TensorRef)}
    return names if len(names) == len(tree) and METADATA_KEY not in names else None


def write_directory(request: Request) -> Exported:
    """Write the tensors of a component as Hugging Face's libraries load them.

    Raises:
        ExportError: It has none, or one of a dtype that the format lacks.
        StorageError: The directory is there and not empty, or cannot be written.
    """
    (component,) = request.components
    with AtomicDirectory(request.target) as directory:
        nbytes = _fill(request, component, directory.work)
        directory.commit()
    return Exported(nbytes, dropped=_left_out(component))


def _fill(request: Request, component: ComponentSource, work: Path) -> int:
    """Write all files; return their length."""
    shards = _shards(component, request.shard_bytes)
    nbytes = 0
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        nbytes += _write(
            request,
            component,
            dict(zip(names, names, strict=True)),
            str(work / name),
            {**_FORMAT, **component.text_metadata},
        )
        weight_map |= dict.fromkeys(names, name)
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in component.tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        nbytes += _write_json(work / "model.safetensors.index.json", index)
    config = request.file.components.get(_CONFIG)
    tree = config.tree() if config is not None and not config.tensors else None
    if isinstance(tree, dict):
        nbytes += _write_json(work / "config.json", tree)
    request.file.finish()
    return nbytes


def _shards(component: ComponentSource, most: int) -> list[list[str]]:
    """Return the names of the tensors of each shard: in order, each shard as full as it can be."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in component.tensors.items():
        if shards[-1] and filled + tensor.nbytes > most:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += tensor.nbytes
    return shards


def _write(
    request: Request, component: ComponentSource, names: Mapping[str, str], path: str, text: Mapping[str, str]
) -> int:
    """Write tensors as one file; return its length.

    Args:
        request: What is asked for.
        component: The component.
        names: Which tensor each name in the file stands for.
        path: The file.
        text: Its `__metadata__`.
    """
    for name in names.values():
        dtype = component.tensors[name].dtype
        if dtype not in DTYPES:
            raise ExportError(f"{component.shown_name}.{name}: dtype {dtype} is none of safetensors")
    if not names:
        raise ExportError(f"{request.file.path}: component {component.shown_name} has no tensors")
    try:
        facts = ((name, component.tensors[of].dtype, component.tensors[of].shape) for name, of in names.items())
        header = plan_header(facts, dict(text) or None)
    except FormatError as error:
        raise ExportError(f"{component.shown_name}: {error}") from error
    block = header.block()
    with create(path, expected_bytes=len(block) + header.data_bytes) as file:
        copied = all(name == of for name, of in names.items()) and component.copy_to(file, block)
        if not copied:
            file.write(block)
        for tensor in header.by_offset():
            for piece in request.data_of(component, names[tensor.name]):  # verified, whoever copies them
                if not copied:
                    file.write(piece)
        if path == request.target:
            request.file.finish()
        file.commit(written_bytes=len(block) + header.data_bytes)
    return len(block) + header.data_bytes


def _write_json(path: Path, document: Mapping[Any, object]) -> int:
    try:
        data = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ExportError(f"{path.name}: {error}") from error
    with create(path) as file:
        file.write(data)
        file.commit()
    return len(data)


def _left_out(component: ComponentSource) -> tuple[Dropped, ...]:
    """Return what a mapping of names to tensors cannot say of a component: tied tensors, and other values."""
    if component.flat:
        return ()
    nodes = list(walk(component.tree()))
    places = Counter(node.name for node in nodes if isinstance(node, TensorRef))
    tied: Iterable[str] = (name for name, count in places.items() if count > 1)
    dropped = [Dropped(f"other names of {name}", "it is stored once; tie it again after loading") for name in tied]
    dropped.append(Dropped(f"the structure of {component.shown_name}", "the format has names and tensors alone"))
    return tuple(dropped)
