"""States as pickles that PyTorch's loader for weights takes: written opcode by opcode, without PyTorch.

Only opcodes and names stand in them that `torch.load(weights_only=True)` knows. What it has no value for is written as
the nearest plain value, and noted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ckptfmt._core.format.dtypes import COMPLEX_PARTS, ELEMENTS
from ckptfmt._core.format.packing import TensorRef, Timestamp, Typed, datetime_of
from ckptfmt._core.format.sparse import SPARSE
from ckptfmt._core.format.trees import NUMPY_ARRAY, NUMPY_SCALAR
from ckptfmt._core.interop.base import ComponentSource
from ckptfmt._core.interop.scalars import scalar_of
from ckptfmt._core.pth.data.dtypes import STORAGES, TYPES
from ckptfmt._core.pth.data.tensors import c_strides
from ckptfmt.errors import StateError

__all__ = ["WRITABLE", "Pickler", "StoredTensor"]

# The class of storages for each dtype, or the name of the dtype where there is none: the storage is untyped then.
_STORAGES = {
    kind.typed or kind.dtype: word
    for word, kind in STORAGES.items()
    if kind.dtype is not None and not kind.quantized and word != "UntypedStorage"
}
_UNTYPED = {name: kind.torch for name, kind in ELEMENTS.items() if kind.torch is not None and name not in _STORAGES}
_QUANTIZED = {kind.name: word for word, kind in STORAGES.items() if kind.quantized}
_SCHEMES = frozenset({"per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric"}) | {
    "per_channel_affine_float_qparams"
}
_DTYPES = frozenset(kind.name for kind in TYPES.values())
WRITABLE = frozenset(
    {
        *("collections.OrderedDict", "_codecs.encode", "builtins.complex", "builtins.set"),
        *("torch.Size", "torch.device", "torch.serialization._get_layout", "torch.storage.UntypedStorage"),
        *("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"),
        *("torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_qtensor"),
        *(f"torch.{name}" for name in (*_STORAGES.values(), *_QUANTIZED.values(), *_DTYPES, *_SCHEMES)),
    }
)
"""Every name that may be written: `torch.load(weights_only=True)` takes them all, and inert data has none."""
_BATCH = 1000

_MARK, _STOP, _REDUCE, _BUILD, _PERSISTENT = b"(", b".", b"R", b"b", b"Q"
_EMPTY_DICT, _EMPTY_LIST, _EMPTY_TUPLE = b"}", b"]", b")"
_SETITEMS, _APPENDS, _TUPLE = b"u", b"e", b"t"
_NONE, _TRUE, _FALSE = b"N", b"\x88", b"\x89"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that a pickle refers to.

    Attributes:
        key: Name of its storage in the archive.
        component: The component that it is in.
        name: Its name there.
    """

    key: str
    component: ComponentSource
    name: str


@dataclass
class Pickler:
    """Writes one pickle.

    Attributes:
        tensors: The tensors that it refers to, in order.
        notes: What is not written as it was, in sentences, each once.
    """

    tensors: list[StoredTensor] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    _out: bytearray = field(default_factory=lambda: bytearray(b"\x80\x02"))
    _memo: dict[object, int] = field(default_factory=dict)

    def finish(self) -> bytes:
        """Return the pickle of the one value that was written."""
        return bytes(self._out + _STOP)

    # -- containers

    def component(self, component: ComponentSource, versions: Mapping[str, int] | None = None) -> None:
        """Write the tree of a component.

        Args:
            component: The component.
            versions: Versions of its modules by path, if it is a state dict that has them noted.
        """
        tree = {name: TensorRef(name) for name in component.tensors} if component.flat else component.tree()
        if versions is None or not isinstance(tree, dict):
            self.value(tree, component, component.shown_name)
            return
        self.ordered_dict(lambda: self.items(tree, component, component.shown_name))
        facts: dict[object, object] = {path: {"version": version} for path, version in versions.items()}
        self.raw(_EMPTY_DICT + _MARK)
        self.text("_metadata")
        self.ordered_dict(lambda: self.items(facts, component, component.shown_name))
        self.raw(_SETITEMS + _BUILD)

    def mapping(self, entries: Mapping[str, Callable[[], None]]) -> None:
        """Write a dict whose values write themselves."""
        self.raw(_EMPTY_DICT)
        for key, write in entries.items():
            self.raw(_MARK)
            self.text(key)
            write()
            self.raw(_SETITEMS)

    def ordered_dict(self, items: Callable[[], None]) -> None:
        """Write an `OrderedDict`, and its items."""
        self.name("collections", "OrderedDict")
        self.raw(_EMPTY_TUPLE + _REDUCE)
        items()

    def items(self, mapping: Mapping[object, object], component: ComponentSource, path: str) -> None:
        """Write the items of the mapping that was begun."""
        pending = list(mapping.items())
        for start in range(0, len(pending), _BATCH):
            self.raw(_MARK)
            for key, value in pending[start : start + _BATCH]:
                self.value(key, component, path)
                self.value(value, component, f"{path}.{key}")
            self.raw(_SETITEMS)

    def sequence(self, values: list[object] | tuple[object, ...], component: ComponentSource, path: str) -> None:
        """Write the elements of a list or tuple."""
        for number, value in enumerate(values):
            self.value(value, component, f"{path}[{number}]")

    # -- values

    def value(self, value: object, component: ComponentSource, path: str) -> None:
        """Write a value of a tree.

        Raises:
            StateError: There is no way to write it.
        """
        match value:
            case None:
                self.raw(_NONE)
            case bool():
                self.raw(_TRUE if value else _FALSE)
            case int():
                self.integer(value)
            case float():
                self.raw(b"G" + struct.pack(">d", value))
            case str():
                self.text(value)
            case bytes():
                self.binary(value)
            case complex():
                self.call("builtins", "complex", lambda: self.sequence((value.real, value.imag), component, path))
            case list():
                self.raw(_EMPTY_LIST)
                for start in range(0, len(value), _BATCH):
                    self.raw(_MARK)
                    self.sequence(value[start : start + _BATCH], component, path)
                    self.raw(_APPENDS)
            case tuple():
                self.raw(_MARK)
                self.sequence(value, component, path)
                self.raw(_TUPLE)
            case dict():
                self.raw(_EMPTY_DICT)
                self.items(value, component, path)
            case set():
                ordered: list[object] = sorted(value, key=lambda element: (str(type(element)), str(element)))
                self.call("builtins", "set", lambda: self.value(ordered, component, path))
            case Timestamp():
                self.notes["times became text"] = None
                self.text(str(datetime_of(value)))
            case TensorRef(name):
                self.tensor(component, name, component.tensors[name].dtype, component.tensors[name].shape)
            case Typed(name, inner):
                self.typed(name, inner, component, path)
            case _:
                raise StateError(path, f"a {type(value).__name__} cannot be written for PyTorch")

    def typed(self, name: str, value: object, component: ComponentSource, path: str) -> None:
        """Write a typed value (spec 11.6)."""
        if name in COMPLEX_PARTS and isinstance(value, TensorRef):
            self.tensor(component, value.name, name, component.tensors[value.name].shape[:-1])
        elif name == "torch.Size" and isinstance(value, list):
            self.call("torch", "Size", lambda: self.value(tuple(value), component, path))
        elif name == "torch.dtype" and value in _DTYPES:
            self.name("torch", str(value))
        elif name == "torch.device" and isinstance(value, str):
            kind, _, index = value.partition(":")
            arguments = (kind, int(index)) if index.isascii() and index.isdigit() and len(index) < 10 else (kind,)
            self.call("torch", "device", lambda: self.sequence(arguments, component, path))
        elif name in SPARSE and isinstance(value, dict):
            self.sparse(name, value, component, path)
        elif name == "torch.quantized" and isinstance(value, dict) and value.get("dtype") in _QUANTIZED:
            self.quantized(value, component, path)
        else:
            self.plain(name, value, component, path)

    def plain(self, name: str, value: object, component: ComponentSource, path: str) -> None:
        """Write a typed value that the loader has nothing for as the nearest that it has."""
        if name == NUMPY_ARRAY:
            self.notes["NumPy arrays became tensors"] = None
        elif name == NUMPY_SCALAR and isinstance(value, list):
            self.notes["NumPy scalars became numbers"] = None
            value = scalar_of(value)
        elif name == "frozenset":
            self.notes["frozensets became sets"] = None
        else:
            self.notes[f"{name} became the data that it holds"] = None
        self.value(value, component, path)

    def sparse(self, layout: str, facts: Mapping[str, object], component: ComponentSource, path: str) -> None:
        """Write a sparse tensor."""
        values = list(facts.values())
        place = list(facts).index("size")
        size = values[place]
        values[place] = Typed("torch.Size", size)

        def arguments() -> None:
            self.call("torch.serialization", "_get_layout", lambda: self.text(layout))
            self.value(tuple(values), component, path)

        self.call("torch._utils", "_rebuild_sparse_tensor", arguments)

    def quantized(self, facts: Mapping[str, object], component: ComponentSource, path: str) -> None:
        """Write a quantized tensor."""
        reference = facts.get("int_repr")
        if not isinstance(reference, TensorRef):
            raise StateError(path, "a quantized tensor without its integers")
        scheme = facts.get("scheme")
        if scheme not in _SCHEMES:
            raise StateError(path, f"a quantized tensor of the scheme {scheme!a:.60}, which PyTorch does not have")
        tensor = component.tensors[reference.name]

        def arguments() -> None:
            self.storage(component, reference.name, _QUANTIZED[str(facts["dtype"])], tensor.elements)
            self.layout(tensor.shape)
            self.raw(_MARK)
            self.name("torch", str(scheme))
            for name in ("scale", "zero_point", "scales", "zero_points", "axis"):
                if name in facts:
                    self.value(facts[name], component, f"{path}.{name}")
            self.raw(_TUPLE + _FALSE)
            self.ordered_dict(lambda: None)

        self.call("torch._utils", "_rebuild_qtensor", arguments)

    def tensor(self, component: ComponentSource, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Write a tensor, or that it is the one that was written before."""
        place = ("tensor", component.name, name)
        if self.recall(place):
            return
        info = component.tensors[name]
        elements = info.elements // 2 if dtype in COMPLEX_PARTS else info.elements
        if dtype in _STORAGES:

            def arguments() -> None:
                self.storage(component, name, _STORAGES[dtype], elements)
                self.layout(shape)
                self.raw(_FALSE)
                self.ordered_dict(lambda: None)

            self.call("torch._utils", "_rebuild_tensor_v2", arguments)
        elif dtype in _UNTYPED:
            packed = ELEMENTS[dtype].packed
            if packed > 1 and (not shape or shape[-1] % packed):
                raise StateError(
                    f"{component.shown_name}.{name}", f"PyTorch has {packed} numbers of {dtype} in each element"
                )
            if packed > 1:
                shape = (*shape[:-1], shape[-1] // packed)

            def arguments() -> None:
                self.storage(component, name, "UntypedStorage", info.nbytes)
                self.layout(shape)
                self.raw(_FALSE)
                self.ordered_dict(lambda: None)
                self.name("torch", _UNTYPED[dtype])

            self.call("torch._utils", "_rebuild_tensor_v3", arguments)
        else:
            raise StateError(f"{component.shown_name}.{name}", f"PyTorch has no tensors of {dtype}")
        self.remember(place)

    def storage(self, component: ComponentSource, name: str, kind: str, elements: int) -> None:
        """Write the reference to the storage of a tensor."""
        key = str(len(self.tensors))
        self.tensors.append(StoredTensor(key, component, name))
        self.raw(_MARK)
        self.text("storage")
        self.name("torch.storage" if kind == "UntypedStorage" else "torch", kind)
        self.text(key)
        self.text("cpu")
        self.integer(elements)
        self.raw(_TUPLE + _PERSISTENT)

    def layout(self, shape: tuple[int, ...]) -> None:
        """Write offset, shape and strides of a tensor that has its storage for itself."""
        self.integer(0)
        for numbers in (shape, c_strides(shape)):
            self.raw(_MARK)
            for number in numbers:
                self.integer(number)
            self.raw(_TUPLE)

    # -- opcodes

    def raw(self, opcodes: bytes) -> None:
        """Append opcodes."""
        self._out += opcodes

    def call(self, module: str, name: str, arguments: Callable[[], None]) -> None:
        """Write a call with the arguments that `arguments` writes."""
        self.name(module, name)
        self.raw(_MARK)
        arguments()
        self.raw(_TUPLE + _REDUCE)

    def name(self, module: str, name: str) -> None:
        """Write a name, or that it is one that was written before.

        Raises:
            StateError: It is none of `WRITABLE`: a checkpoint never says what is to be called.
        """
        if f"{module}.{name}" not in WRITABLE:
            raise StateError("state", f"the name {module}.{name!a:.60} is never written")
        place = ("name", module, name)
        if not self.recall(place):
            self.raw(f"c{module}\n{name}\n".encode())
            self.remember(place)

    def text(self, text: str) -> None:
        """Write text."""
        data = text.encode()
        self.raw(b"X" + struct.pack("<I", len(data)) + data)

    def binary(self, data: bytes) -> None:
        """Write bytes, which protocol 2 has no opcode for: as the text of which they are the code."""

        def arguments() -> None:
            self.text(data.decode("latin-1"))
            self.text("latin1")

        self.call("_codecs", "encode", arguments)

    def integer(self, value: int) -> None:
        """Write an integer."""
        if 0 <= value < 1 << 8:
            self.raw(b"K" + bytes([value]))
        elif -(1 << 31) <= value < 1 << 31:
            self.raw(b"J" + struct.pack("<i", value))
        else:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            if len(data) > 0xFF:
                raise StateError("state", f"an integer of {len(data)} bytes cannot be written for PyTorch")
            self.raw(b"\x8a" + bytes([len(data)]) + data)

    def remember(self, place: object) -> None:
        """Note what was just written under a number."""
        number = self._memo[place] = len(self._memo)
        self.raw(b"r" + struct.pack("<I", number))

    def recall(self, place: object) -> bool:
        """Write that something is what was written before, if it was."""
        number = self._memo.get(place)
        if number is not None:
            self.raw(b"j" + struct.pack("<I", number))
        return number is not None
