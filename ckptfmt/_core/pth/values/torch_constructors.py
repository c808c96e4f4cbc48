"""What the functions that PyTorch's files call become: tensors, and the few other values of PyTorch (spec 11.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ckptfmt._core.format.packing import Typed
from ckptfmt._core.format.sparse import SPARSE_COMPRESSED, SPARSE_COO
from ckptfmt._core.pth.data.dtypes import TYPES, ElementType
from ckptfmt._core.pth.data.tensors import TensorView, view_of
from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.nodes import DictNode, Global, Record, describe
from ckptfmt._core.pth.values.builder import ANYTHING, NAME, STATES, Builder, Constructor, Tensor
from ckptfmt.errors import ForeignFileError

__all__ = ["TORCH_CONSTRUCTORS"]

Make = Callable[[Builder, Record], object]

_INTEGERS = {"quint8": "uint8", "qint8": "int8", "qint32": "int32"}
_PLAIN_TENSORS = frozenset({"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"})


@dataclass(frozen=True, eq=False)
class _Layout:
    """A layout of tensors: `sparse_coo`, `strided`, ..."""

    name: str

    def published(self, _: Builder) -> Typed:
        """Return the layout where it stands alone."""
        return Typed(NAME, f"torch.{self.name}")


def _rebuild_tensor(builder: Builder, record: Record) -> object:
    """`_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata=None)`, and without the end."""
    (storage_node, offset, size, stride, *rest) = _at_least(record, 4)
    storage = builder.storage(storage_node)
    metadata = rest[2] if len(rest) > 2 else None
    return builder.tensor(_view(builder, storage_node, storage.kind, (offset, size, stride), metadata))


def _rebuild_tensor_v3(builder: Builder, record: Record) -> object:
    """`_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None)`."""
    (storage_node, offset, size, stride, _, _, dtype, *rest) = _at_least(record, 7)
    kind = builder.element_type(dtype)
    return builder.tensor(_view(builder, storage_node, kind, (offset, size, stride), rest[0] if rest else None))


def _view(
    builder: Builder, storage: object, kind: ElementType, place: tuple[object, object, object], metadata: object = None
) -> TensorView:
    offset, shape, strides = (builder.raw(part) for part in place)
    if type(offset) is not int:
        raise ForeignFileError("a tensor with an offset that is no integer")
    flags = _flags(builder, metadata)
    return view_of(
        builder.storage(storage),
        kind,
        offset,
        _sizes(shape),
        _sizes(strides),
        conjugated=flags.get("conj", False),
        negated=flags.get("neg", False),
    )


def _sizes(made: object) -> tuple[int, ...]:
    if isinstance(made, Typed) and made.name == "torch.Size":
        made = made.value
    if not isinstance(made, list | tuple) or not all(type(size) is int for size in made):
        raise ForeignFileError("a tensor with a shape or strides that are no integers")
    return tuple(made)


def _flags(builder: Builder, metadata: object) -> dict[str, bool]:
    if metadata is None:
        return {}
    made = builder.raw(metadata)
    if not isinstance(made, dict) or not made.keys() <= {"conj", "neg"}:
        raise ForeignFileError("a tensor with facts beside its values that are not known")
    return {str(name): bool(flag) for name, flag in made.items()}


def _rebuild_parameter(builder: Builder, record: Record) -> object:
    """`_rebuild_parameter(data, requires_grad, hooks)`, and with the attributes that somebody gave it."""
    (data, *rest) = _at_least(record, 1)
    state = rest[2] if len(rest) > 2 else None
    if isinstance(state, DictNode) and state.entries:
        builder.notes.drop("attributes of a parameter", "a tensor holds values alone")
    return _tensor(builder, data)


def _tensor(builder: Builder, node: object) -> object:
    """Return the tensor that a node stands for."""
    made = builder.raw(node)
    if not isinstance(made, Tensor):
        raise ForeignFileError(f"{describe(node)} stands in the place of a tensor")
    return made


def _rebuild_from_type(builder: Builder, record: Record) -> object:
    """`_rebuild_from_type_v2(function, type, args, state)`: a subclass of tensor, or one with attributes."""
    (function, kind, args, *rest) = _at_least(record, 3)
    if not isinstance(function, Global) or not isinstance(args, tuple) or not isinstance(kind, Global):
        raise ForeignFileError("a tensor of a class that has no name")
    full = canonical(function)
    if full not in _REBUILDERS:
        raise ForeignFileError(f"a tensor that {full} is to rebuild, which no checkpoint does")
    made = _REBUILDERS[full](builder, Record(function, args))
    state = rest[0] if rest else None
    if canonical(kind) not in _PLAIN_TENSORS:
        builder.notes.drop(f"the class {canonical(kind)} of a tensor", "its values are kept as a plain tensor")
    elif isinstance(state, DictNode) and state.entries:
        builder.notes.drop("attributes of a tensor", "a tensor holds values alone")
    return made


def _rebuild_sparse(builder: Builder, record: Record) -> object:
    """`_rebuild_sparse_tensor(layout, (indices, values, size, is_coalesced))`, or of a compressed layout."""
    (layout_node, parts) = _at_least(record, 2)[:2]
    layout = builder.raw(layout_node)
    name = layout.name if isinstance(layout, _Layout) else str(getattr(layout, "value", "")).removeprefix("torch.")
    if not isinstance(parts, tuple):
        raise ForeignFileError("a sparse tensor without parts")
    full = f"torch.{name}"
    if full == SPARSE_COO and len(parts) in (3, 4):
        indices, values, size = (builder.value(part) for part in parts[:3])
        coalesced = builder.raw(parts[3]) if len(parts) == 4 else False
        facts = {"indices": indices, "values": values, "size": list(_sizes(size)), "is_coalesced": bool(coalesced)}
        return Tensor(None, Typed(full, facts))
    if full in SPARSE_COMPRESSED and len(parts) == 4:
        compressed, plain, values, size = (builder.value(part) for part in parts)
        facts = {"compressed_indices": compressed, "plain_indices": plain, "values": values, "size": list(_sizes(size))}
        return Tensor(None, Typed(full, facts))
    raise ForeignFileError(f"a sparse tensor of layout {name!a:.40}, which is not known")


def _rebuild_quantized(builder: Builder, record: Record) -> object:
    """`_rebuild_qtensor(storage, offset, size, stride, (scheme, ...), requires_grad, hooks)`.

    Its integers and what they are scaled by are kept, as inert data: no framework-neutral tensor is quantized.
    """
    (storage_node, offset, size, stride, quantizer) = _at_least(record, 5)[:5]
    storage = builder.storage(storage_node)
    kind = storage.kind
    if kind.name not in _INTEGERS or not isinstance(quantizer, tuple) or not quantizer:
        raise ForeignFileError(f"a quantized tensor of torch.{kind.name}, which cannot be expressed")
    view = _view(builder, storage_node, TYPES[_INTEGERS[kind.name]], (offset, size, stride))
    scheme = builder.raw(quantizer[0])
    builder.notes.inert["quantized tensor"] += 1
    facts = {
        "dtype": kind.name,
        "int_repr": builder.express(view),
        "scheme": str(getattr(scheme, "value", scheme)).removeprefix("torch."),
    }
    names = ("scale", "zero_point") if len(quantizer) == 3 else ("scales", "zero_points", "axis")
    facts |= {name: builder.value(part) for name, part in zip(names, quantizer[1:], strict=False)}
    return Tensor(None, Typed("torch.quantized", facts))


def _rebuild_on_device(builder: Builder, record: Record) -> object:
    """`_rebuild_device_tensor_from_cpu_tensor(data, dtype, device, requires_grad)`, or from a NumPy array."""
    (data, dtype_node) = _at_least(record, 2)[:2]
    dtype = builder.element_type(dtype_node)
    value = builder.value(data)
    if isinstance(value, Typed) and value.name == "numpy.ndarray":
        value = value.value
    found = getattr(value, "dtype", None) if not isinstance(value, Typed) else value.name
    if found != (dtype.typed or dtype.dtype):
        raise ForeignFileError(f"a tensor that is to be converted to torch.{dtype.name} while it is loaded")
    return Tensor(None, value)


def _without_values(what: str) -> Make:
    def constructor(builder: Builder, record: Record) -> object:
        builder.notes.drop(what, "it has no values")
        return builder.inert(record)

    return constructor


def _rebuild_nested(builder: Builder, record: Record) -> object:
    """`_rebuild_nested_tensor(buffer, sizes, strides, storage_offsets)`."""
    (buffer, sizes, strides, offsets) = (builder.value(part) for part in _at_least(record, 4)[:4])
    builder.notes.inert["nested tensor"] += 1
    facts = {"buffer": buffer, "sizes": sizes, "strides": strides, "storage_offsets": offsets}
    return Tensor(None, Typed("torch.nested", facts))


def _size(builder: Builder, record: Record) -> object:
    return Typed("torch.Size", list(_sizes(builder.raw(record.args[0])))) if record.args else Typed("torch.Size", [])


def _device(_: Builder, record: Record) -> object:
    match record.args:
        case (str(kind),):
            name = kind
        case (str(kind), int(index)):
            name = f"{kind}:{index}"
        case _:
            raise ForeignFileError("a device without a name")
    if not name.replace(":", "").replace("_", "").isalnum():
        raise ForeignFileError("a device without a name")
    return Typed("torch.device", name)


def _layout(_: Builder, record: Record) -> object:
    match record.args:
        case (str(name),):
            return _Layout(name.removeprefix("torch."))
    raise ForeignFileError("a layout without a name")


def _first_argument(builder: Builder, record: Record) -> object:
    """TorchScript's marks around lists and tagged values: `build_intlist([1, 2])`."""
    return builder.raw(record.args[0]) if record.args else []


def _version(builder: Builder, record: Record) -> object:
    return builder.value(record.args[0]) if record.args else None


def _inert(builder: Builder, record: Record) -> object:
    return builder.inert(record)


def _at_least(record: Record, count: int) -> tuple[object, ...]:
    if len(record.args) < count:
        raise ForeignFileError(f"{record.callee} with {len(record.args)} arguments, it takes {count}")
    return record.args


_REBUILDERS: Mapping[str, Make] = {
    f"torch._utils.{name}": make
    for name, make in {
        "_rebuild_tensor": _rebuild_tensor,
        "_rebuild_tensor_v2": _rebuild_tensor,
        "_rebuild_tensor_v3": _rebuild_tensor_v3,
        "_rebuild_parameter": _rebuild_parameter,
        "_rebuild_parameter_with_state": _rebuild_parameter,
        "_rebuild_qtensor": _rebuild_quantized,
        "_rebuild_sparse_tensor": _rebuild_sparse,
        "_rebuild_sparse_csr_tensor": _rebuild_sparse,
        "_rebuild_nested_tensor": _rebuild_nested,
        "_rebuild_device_tensor_from_cpu_tensor": _rebuild_on_device,
        "_rebuild_device_tensor_from_numpy": _rebuild_on_device,
        "_rebuild_xla_tensor": _rebuild_on_device,
        "_rebuild_meta_tensor_no_storage": _without_values("a tensor on the meta device"),
        "_rebuild_wrapper_subclass": _without_values("a tensor of a class that wraps others"),
    }.items()
}

_LISTS = ["build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag"]


TORCH_CONSTRUCTORS: Mapping[str, Constructor] = {
    **{name: Constructor(make) for name, make in _REBUILDERS.items()},
    "torch._tensor._rebuild_from_type": Constructor(_rebuild_from_type),
    "torch._tensor._rebuild_from_type_v2": Constructor(_rebuild_from_type),
    # Before 0.4, a parameter is made of its data and given whether it requires a gradient, and its hooks.
    "torch.nn.parameter.Parameter": Constructor(_rebuild_parameter, STATES),
    "torch.nn.parameter.Buffer": Constructor(_rebuild_parameter),
    "torch.Tensor": Constructor(_inert, ANYTHING),
    "torch.Size": Constructor(_size),
    "torch.device": Constructor(_device),
    "torch.Generator": Constructor(_inert, STATES),
    "torch.serialization._get_layout": Constructor(_layout),
    "torch.torch_version.TorchVersion": Constructor(_version, STATES),
    "torch.nn.backends.thnn._get_thnn_function_backend": Constructor(lambda *_: None),
    **{f"torch.jit._pickle.{name}": Constructor(_first_argument) for name in _LISTS},
}
"""The constructors by canonical name."""
