"""Files of other formats as states for live objects: opened by `interop`, then turned into tensors."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from ckptfmt._core.container.chunk_reader import normalize_truth_values
from ckptfmt._core.container.numpy_adapter import NumpyAdapter
from ckptfmt._core.container.per_rank import PerRank, place_of
from ckptfmt._core.container.tensor_source import TensorSource
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.format.dtypes import BOOL, COMPLEX_PARTS
from ckptfmt._core.format.index import ROOT
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.format.trees import NUMPY_ARRAY, NUMPY_SCALAR, PER_RANK
from ckptfmt._core.interop.base import TensorFile
from ckptfmt._core.interop.located import located
from ckptfmt._core.pth.data.dtypes import ElementType
from ckptfmt._core.pth.data.storages import StorageData
from ckptfmt._core.pth.data.tensors import PthTensor, TensorView
from ckptfmt._core.pth.values.builder import PAIRS, StateDict
from ckptfmt._core.torch.tensors.adapter import TorchAdapter, memory_of, new_tensor
from ckptfmt._core.torch.tensors.dtypes import shape_in_torch
from ckptfmt._core.torch.tensors.sparse import LAYOUTS
from ckptfmt.errors import FormatError, UnsupportedFileError

__all__ = ["FileStates"]

_Path = tuple[Any, ...]
_SETS: Mapping[str, Callable[[Iterable[Any]], object]] = {"python.set": set, "python.frozenset": frozenset}
_LARGE_BYTES = 1 << 20
_ANY_ALIGNMENT = 16  # that of the largest element
_KNOWN = frozenset({*LAYOUTS, "torch.Size", "torch.dtype", "torch.device"})


class FileStates:
    """Content of an open file of another format, with components that are read on demand.

    Tensors that share memory in the file share it here too, across all components.

    Args:
        file: The file. It must stay open.
        mmap: Whether large tensors that lie in a file as they are stay there, in a private memory map. None: only those
            of `.safetensors` files, which have no checksum to compare first.
        whole_inert: Whether what is in inert objects is built, too: tensors in them are then tensors.
    """

    def __init__(self, file: TensorFile, *, mmap: bool | None = None, whole_inert: bool = False) -> None:
        self.file = file
        self._whole_inert = whole_inert
        self._mmap = mmap
        self._tensors = _Tensors(mapped=mmap is True)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its components; empty if the content is not a mapping with names as keys."""
        content = self.file.state
        named = isinstance(content, Mapping) and all(isinstance(name, str) for name in content)
        return tuple(content) if isinstance(content, Mapping) and named else ()

    def component(self, name: str) -> Any:
        """Return the state of a component: tensors, plain values, and `Typed` for each object kept as inert data.

        Raises:
            ForeignFileError: The data is damaged; `UnsupportedFileError` if it is not supported.
            StorageError: The data cannot be read.
        """
        return self._read(name, self.file.state[name])  # type: ignore[index]  # a mapping, as `names` shows

    def whole(self) -> Any:
        """Return the whole content, in the same form as `component`."""
        return self._read(ROOT, self.file.state)

    def _read(self, name: str, tree: object) -> Any:
        # PyTorch warns about experimental dtypes.
        with located(self.file.path), warnings.catch_warnings(action="ignore"):
            mapped = self._mmap is not False
            return _Tree(name, self._tensors, mapped=mapped, whole_inert=self._whole_inert).value(tree)


class _Tensors:
    """Tensors of one file, created on demand."""

    def __init__(self, *, mapped: bool) -> None:
        self._mapped = mapped
        self._storages: dict[int, torch.Tensor] = {}
        self._views: dict[tuple[object, ...], torch.Tensor] = {}
        self._kept: list[StorageData] = []  # keeps the ids in the keys unique

    def tensor(self, view: TensorView) -> torch.Tensor:
        """Return the elements of a view; views of one storage share its memory, as in PyTorch's own loader."""
        made = self._views.get(view.identity)
        if made is None:
            made = self._views[view.identity] = self._make(view)
            self._kept.append(view.storage.data)
        return made

    def _make(self, view: TensorView) -> torch.Tensor:
        dtype = _dtype(view.kind)
        if 0 in view.shape:
            return torch.empty(view.shape, dtype=dtype)
        if view.storage.swapped and view.kind.word_bytes > 1:
            return _filled(view.nbytes, view.chunks()).view(dtype).view(view.shape)  # resolved and in order
        memory = self._storage(view.storage.data)
        elements = memory[: memory.numel() // dtype.itemsize * dtype.itemsize].view(dtype)
        # The offset counts from the start of the storage; a large tensor starts later, at an aligned offset.
        offset = elements.storage_offset() + view.offset
        tensor = torch.as_strided(elements, view.shape, view.strides, offset)
        if view.conjugated:
            tensor = tensor.conj()
        return torch._neg_view(tensor) if view.negated else tensor

    def _storage(self, data: StorageData) -> torch.Tensor:
        """Return the bytes of a storage. Reading the last one verifies the checksum."""
        memory = self._storages.get(id(data))
        if memory is None and self._mapped and data.nbytes >= _LARGE_BYTES:
            memory = _tensor_in(data.private_map(), _ANY_ALIGNMENT)
            if memory is not None:
                self._storages[id(data)] = memory
        if memory is None:
            starts = range(0, data.nbytes, CHUNK_BYTES)
            pieces = (data.read(start, min(CHUNK_BYTES, data.nbytes - start)) for start in starts)
            memory = self._storages[id(data)] = _filled(data.nbytes, pieces)
        return memory


class _Tree:
    """Builds the state of one component from the nodes that `pth` has read."""

    def __init__(self, component: str, tensors: _Tensors, *, mapped: bool, whole_inert: bool) -> None:
        self._component = component
        self._tensors = tensors
        self._whole_inert = whole_inert
        self._mapped = mapped
        self._adapter = TorchAdapter()
        self._numpy = NumpyAdapter()
        self._made: dict[int, object] = {}

    def value(self, node: object, path: _Path = ()) -> Any:
        """Return the value of a node."""
        if isinstance(node, PthTensor):
            return self._tensors.tensor(node.view)
        if isinstance(node, TensorSource):
            return self._stored(node, path)
        if not isinstance(node, dict | list | tuple | Typed):
            return node
        # An object with several references becomes one object again.
        if id(node) not in self._made:
            self._made[id(node)] = self._typed(node, path) if isinstance(node, Typed) else self._container(node, path)
        return self._made[id(node)]

    def _container(self, node: object, path: _Path) -> object:
        match node:
            case StateDict():
                state = OrderedDict((key, self.value(item, (*path, key))) for key, item in node.items())
                noted = OrderedDict(self.value(node._metadata, (*path, "_metadata")))
                state._metadata = noted  # type: ignore[attr-defined]  # where torch.nn.Module looks
                return state
            case dict():
                return {key: self.value(item, (*path, key)) for key, item in node.items()}
            case list():
                return [self.value(item, (*path, number)) for number, item in enumerate(node)]
            case tuple():
                return tuple([self.value(item, (*path, number)) for number, item in enumerate(node)])
        raise AssertionError(node)  # the caller passes nothing else

    def _typed(self, node: Typed, path: _Path) -> object:
        match node:
            case Typed(word, PthTensor(view=view)) if word in COMPLEX_PARTS:
                return self._tensors.tensor(view)
            case Typed(word, inner) if word == NUMPY_ARRAY:
                return self._array(inner)
            case Typed(word, _) if word == NUMPY_SCALAR:
                return self._numpy.decode(node)
            case Typed(word, list(pairs)) if word == PAIRS:
                return {self.value(key): self.value(item, (*path, key)) for key, item in pairs}
            case Typed(word, list(elements)) if word in _SETS:
                return _SETS[word](self.value(elements))
            case Typed(word, list(values)) if word == PER_RANK:
                return PerRank(tuple(self.value(values, path)))
            case Typed("torch.quantized", dict(parts)):
                tensor = _quantized({name: self.value(part, (*path, name)) for name, part in parts.items()})
                return node if tensor is None else tensor
            case Typed(word, inner) if word in _KNOWN:
                try:
                    return self._adapter.decode(Typed(word, self.value(inner, path)))
                except FormatError as error:
                    place = place_of(self._component, path)
                    raise UnsupportedFileError(f"{place}: {error.problems[0].message}") from error
        return Typed(node.name, self.value(node.value, path)) if self._whole_inert else node

    def _stored(self, source: TensorSource, path: _Path) -> object:
        """Return a tensor with data of its own."""
        parts = COMPLEX_PARTS.get(source.dtype)
        dtype, shape = (parts, (*source.shape, 2)) if parts is not None else (source.dtype, source.shape)
        if shape_in_torch(dtype, shape) is None:
            place = place_of(self._component, path)
            raise UnsupportedFileError(f"{place}: PyTorch has no tensor of {dtype} and shape {list(shape)}")
        tensor, memory = self._adapter.empty(dtype, shape)
        wanted = self._mapped and len(memory) >= _LARGE_BYTES and dtype != BOOL
        mapped = _mapped(source, tensor) if wanted else None
        if mapped is not None:
            tensor = mapped
        else:
            source.copy_into(memory)
        if dtype == BOOL:
            normalize_truth_values(memory)
        return tensor if parts is None else self._adapter.decode(Typed(source.dtype, tensor))

    def _array(self, inner: object) -> object:
        leaf = inner.value if isinstance(inner, Typed) else inner
        assert isinstance(leaf, PthTensor)  # the reader creates no others
        array, memory = self._numpy.empty(leaf.dtype, leaf.shape)
        leaf.copy_into(memory)
        return self._numpy.decode(Typed(inner.name, array)) if isinstance(inner, Typed) else array


def _mapped(source: TensorSource, like: torch.Tensor) -> torch.Tensor | None:
    """Return a tensor in a memory map of its file, which takes no additional memory; None if not possible."""
    flat = _tensor_in(source.private_map(), like.dtype.itemsize)
    return None if flat is None else flat.view(like.dtype).view(like.shape)


def _tensor_in(memory: memoryview | None, alignment: int) -> torch.Tensor | None:
    """Return the bytes of a memory map as a tensor; None if there is no map, or it is not aligned."""
    if memory is None:
        return None
    flat = torch.frombuffer(memory, dtype=torch.uint8)
    return flat if flat.data_ptr() % alignment == 0 else None


def _dtype(kind: ElementType) -> torch.dtype:
    dtype = getattr(torch, kind.name, None)
    if not isinstance(dtype, torch.dtype):
        raise UnsupportedFileError(f"a tensor of torch.{kind.name}, which PyTorch {torch.__version__} lacks")
    return dtype


def _filled(nbytes: int, pieces: Iterable[BytesLike]) -> torch.Tensor:
    """Return bytes as a tensor with memory of its own."""
    tensor = new_tensor((nbytes,), torch.uint8)
    if nbytes:
        _fill(memory_of(tensor), pieces)
    return tensor


def _fill(memory: memoryview, pieces: Iterable[BytesLike]) -> None:
    position = 0
    for piece in pieces:
        memory[position : position + len(piece)] = piece
        position += len(piece)


def _quantized(parts: Mapping[str, Any]) -> torch.Tensor | None:
    """Return a quantized tensor; None if the parts do not form one."""
    match parts:
        case {"int_repr": torch.Tensor() as integers, "scale": float(scale), "zero_point": int(zero)}:
            return torch._make_per_tensor_quantized_tensor(integers, scale, zero)
        case {
            "int_repr": torch.Tensor() as integers,
            "scheme": "per_channel_affine",
            "scales": torch.Tensor() as scales,
            "zero_points": torch.Tensor() as zeros,
            "axis": int(axis),
        } if 0 <= axis < integers.dim() and scales.shape == zeros.shape == (integers.shape[axis],):
            return torch._make_per_channel_quantized_tensor(integers, scales, zeros, axis)
    return None
