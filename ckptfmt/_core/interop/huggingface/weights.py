"""Weights as Hugging Face lays them down: one file, or shards with an index that says which tensor is where."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptfmt._core.interop.base import TensorFile
from ckptfmt._core.interop.files import open_tensor_file
from ckptfmt._core.storage import open_source
from ckptfmt._core.storage.local.paths import leads_out_of, real_path
from ckptfmt.errors import ForeignFileError, UnsupportedFileError

__all__ = ["INDEX", "Weights", "file_in", "find_weights", "open_weights", "read_json"]

INDEX = ".index.json"
_STEMS = ("model", "pytorch_model", "diffusion_pytorch_model", "adapter_model", "adapter", "flax_model")
_EXTENSIONS = (".safetensors", ".bin")
_ORDINARY = re.compile(r"[^\x00-\x1f\\\ud800-\udfff]*")  # what every file system can name
_MAX_JSON_BYTES = 64 << 20
_MAX_JSON_VALUES = 1 << 22  # what begins or ends one: an empty list takes 30 times the memory of its two characters


@dataclass(frozen=True)
class Weights:
    """Weights and the open files that they are in.

    Attributes:
        state: Tensors by name; whatever a file of PyTorch holds.
        files: The files, to be closed.
        names: Names of the files that were used.
        text: The `__metadata__` of safetensors.
    """

    state: object
    files: tuple[TensorFile, ...]
    names: tuple[str, ...]
    text: Mapping[str, str]


def find_weights(names: set[str], suffix: str = "") -> str | None:
    """Return which of the files of a directory has the weights, or the index of their shards.

    Args:
        names: Names of the files in the directory.
        suffix: What stands behind the usual stem, such as `_1` for the second of several models.
    """
    for stem in _STEMS:
        for extension in _EXTENSIONS:
            for name in (f"{stem}{suffix}{extension}{INDEX}", f"{stem}{suffix}{extension}"):
                if name in names:
                    return name
    return None


def file_in(directory: Path, name: str) -> Path:
    """Return the path of a file in a directory that is one checkpoint.

    Links inside of the directory are followed, and those of a snapshot in Hugging Face's cache to the blobs beside it.

    Raises:
        ForeignFileError: It is a link to something else: that is no part of what was given.
    """
    path = directory / name
    if leads_out_of(directory, path) and not _is_blob(real_path(directory), real_path(path)):
        found = f"it is a link out of the directory, to {real_path(path)}; put the file itself there"
        raise ForeignFileError(found, str(path), "checkpoint")
    return path


def _is_blob(directory: Path, target: Path) -> bool:
    snapshots = (place for place in directory.parents if place.name == "snapshots")
    return any(target.parent == place.parent / "blobs" for place in snapshots)


def open_weights(directory: Path, name: str, *, inert: Collection[str] = ()) -> Weights:
    """Open a file of weights, or all shards of an index.

    Args:
        directory: The directory that it is in.
        name: Its name there.
        inert: See `interop.files.open_tensor_file`.

    Raises:
        CkptfmtError: A file cannot be read, is damaged, or asks for code to be run.
        ForeignFileError: The index and its files do not fit together.
    """
    if not name.endswith(INDEX):
        file = open_tensor_file(file_in(directory, name), inert=inert)
        return Weights(file.state, (file,), (name,), file.text_metadata)
    wanted = _weight_map(file_in(directory, name))
    opened: dict[str, TensorFile] = {}
    state: dict[str, object] = {}
    try:
        for shard in dict.fromkeys(wanted.values()):
            opened[shard] = open_tensor_file(file_in(directory, shard), inert=inert)
            held = opened[shard].state
            if not isinstance(held, Mapping):
                raise ForeignFileError("it holds no mapping of names to tensors", str(directory / shard), "shard")
            state |= {key: value for key, value in held.items() if wanted.get(key) == shard}
        missing = [key for key in wanted if key not in state]
        if missing:
            found = f"{missing[0]!r} is not in {wanted[missing[0]]}, where the index says it is"
            raise ForeignFileError(found, str(directory / name), "index of shards")
    except BaseException:
        for file in opened.values():
            file.close()
        raise
    ordered = {key: state[key] for key in wanted}
    text = next((file.text_metadata for file in opened.values()), {})
    return Weights(ordered, tuple(opened.values()), (name, *opened), text)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        ForeignFileError: It is not valid.
        UnsupportedFileError: It is too long.
        StorageError: It cannot be read.
    """
    with open_source(path) as source:
        if source.size > _MAX_JSON_BYTES:
            raise UnsupportedFileError(
                f"it has {source.size:,} bytes, the limit is {_MAX_JSON_BYTES:,}", str(path), "JSON"
            )
        data = source.read(0, source.size)
    values = sum(map(data.count, (b",", b"[", b"{")))
    if values > _MAX_JSON_VALUES:
        raise UnsupportedFileError(
            f"it has about {values:,} values, the limit is {_MAX_JSON_VALUES:,}", str(path), "JSON"
        )
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ForeignFileError(f"{error!s:.200}", str(path), "JSON") from error


def _weight_map(path: Path) -> dict[str, str]:
    """Return which tensor is in which file."""
    document = read_json(path)
    found = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(found, dict) or not found or not all(isinstance(shard, str) for shard in found.values()):
        raise ForeignFileError("it has no weight_map of tensors to files", str(path), "index of shards")
    for shard in found.values():
        if Path(shard).name != shard or shard in ("", ".", "..") or not _ORDINARY.fullmatch(shard):
            found = f"{shard!a:.80} leads out of the directory, or is no name of a file"
            raise ForeignFileError(found, str(path), "index of shards")
    return found
