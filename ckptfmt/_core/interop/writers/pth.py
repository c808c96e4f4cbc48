"""Checkpoints as files of `torch.save`, written without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ckptfmt._core.container.module_versions import versions_of
from ckptfmt._core.format.index import ROOT
from ckptfmt._core.interop.base import ComponentSource
from ckptfmt._core.interop.writers.base import Exported, Request
from ckptfmt._core.interop.writers.pickling import Pickler
from ckptfmt._core.interop.writers.zip_writer import ALIGNMENT, ZipWriter
from ckptfmt._core.storage import create

__all__ = ["write_file"]

_EPOCH = "epoch"


def write_file(request: Request) -> Exported:
    """Write the components as a dict, or the state itself where it has no components.

    An epoch that only the metadata have is put beside the components, as the documented loop has it: the last one
    that was done.
    """
    pickler, notes = Pickler(), []
    if request.alone or [component.name for component in request.components] == [ROOT]:
        _write(pickler, request.components[0])
    else:
        entries = {component.name: partial(_write, pickler, component) for component in request.components}
        epoch = request.file.metadata.epoch
        if epoch is not None and _EPOCH not in entries:
            entries[_EPOCH] = partial(pickler.integer, epoch - 1)
            notes.append(f"epoch {epoch - 1} is the last finished one, so {epoch} epochs are finished")
        pickler.mapping(entries)
    content = pickler.finish()
    root = Path(request.target).stem or "archive"
    with create(request.target) as file:
        archive = ZipWriter(file)
        archive.add(f"{root}/data.pkl", len(content), [content])
        for name, text in _MARKS.items():
            archive.add(f"{root}/{name}", len(text), [text])
        for tensor in pickler.tensors:
            nbytes = tensor.component.tensors[tensor.name].nbytes
            archive.add(f"{root}/data/{tensor.key}", nbytes, request.data_of(tensor.component, tensor.name))
        archive.add(f"{root}/version", 2, [b"3\n"])
        nbytes = archive.finish()
        request.file.finish()
        file.commit(written_bytes=nbytes)
    return Exported(nbytes, notes=(*notes, *pickler.notes))


_MARKS: Mapping[str, bytes] = {
    ".format_version": b"1",
    ".storage_alignment": str(ALIGNMENT).encode(),
    "byteorder": b"little",
}


def _write(pickler: Pickler, component: ComponentSource) -> None:
    names = list(component.tensors) if component.flat else component.tree()
    pickler.component(
        component, versions_of(names, component.text_metadata) if isinstance(names, list | dict) else None
    )
