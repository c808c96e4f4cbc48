"""Components as `.npz` files, written without NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.dtypes import COMPLEX_PARTS, ELEMENTS
from ckptfmt._core.format.packing import TensorRef, Typed
from ckptfmt._core.format.trees import walk
from ckptfmt._core.interop.base import ComponentSource
from ckptfmt._core.interop.writers.base import Exported, Request
from ckptfmt._core.interop.writers.zip_writer import ALIGNMENT, ZipWriter
from ckptfmt._core.storage import create
from ckptfmt.errors import ExportError

__all__ = ["write_file"]

_DESCRIPTIONS = {
    element.name: f"{'|' if element.bits == 8 else '<'}{element.code}"
    for element in ELEMENTS.values()
    if element.code is not None
}
_MAGIC = b"\x93NUMPY\x01\x00"


def write_file(request: Request) -> Exported:
    """Write the tensors of a component as arrays.

    Raises:
        ExportError: NumPy has no such dtype, or a name cannot be one of an array.
    """
    (component,) = request.components
    complex_of = _complex_tensors(component)
    headers = {}
    for name, tensor in component.tensors.items():
        dtype, shape = tensor.dtype, tensor.shape
        if name in complex_of:
            dtype, shape = complex_of[name], shape[:-1]
        if dtype not in _DESCRIPTIONS:
            advice = "export to .safetensors, or convert it first"
            raise ExportError(f"{component.shown_name}.{name}: NumPy has no dtype for {dtype}; {advice}")
        if "\\" in name or name.startswith("/") or ".." in name.split("/") or not name.isprintable():
            raise ExportError(f"{component.shown_name}.{name!a}: cannot be the name of an array in a file")
        headers[name] = _header(_DESCRIPTIONS[dtype], shape)
    if not headers:
        raise ExportError(f"{request.file.path}: component {component.shown_name} has no tensors")
    with create(request.target) as file:
        archive = ZipWriter(file)
        for name, header in headers.items():
            data: Iterator[BytesLike] = request.data_of(component, name)
            archive.add(f"{name}.npy", len(header) + component.tensors[name].nbytes, chain([header], data))
        nbytes = archive.finish()
        request.file.finish()
        file.commit(written_bytes=nbytes)
    return Exported(nbytes)


def _complex_tensors(component: ComponentSource) -> dict[str, str]:
    """Return which tensors are the parts of complex numbers, and of which dtype."""
    return {
        node.value.name: node.name
        for node in walk(component.tree())
        if isinstance(node, Typed) and node.name in COMPLEX_PARTS and isinstance(node.value, TensorRef)
    }


def _header(description: str, shape: tuple[int, ...]) -> bytes:
    """Return what stands before the data of an array, padded so that these are aligned."""
    sizes = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
    text = f"{{'descr': '{description}', 'fortran_order': False, 'shape': {sizes}, }}"
    unpadded = len(_MAGIC) + 2 + len(text) + 1
    text += " " * (-unpadded % ALIGNMENT) + "\n"
    return _MAGIC + len(text).to_bytes(2, "little") + text.encode("ascii")
