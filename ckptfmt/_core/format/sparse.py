"""What a typed value of a sparse tensor has to be, as far as dtypes and shapes tell (spec 11.6 t and u, 11.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard

from ckptfmt._core.format.dtypes import COMPLEX_PARTS
from ckptfmt._core.format.layout import MAX_UINT
from ckptfmt._core.format.packing import TensorRef, Typed

SPARSE_COO = "torch.sparse_coo"
SPARSE_COMPRESSED = ("torch.sparse_csr", "torch.sparse_csc", "torch.sparse_bsr", "torch.sparse_bsc")
SPARSE = frozenset({SPARSE_COO, *SPARSE_COMPRESSED})

_BY_ROWS = ("torch.sparse_csr", "torch.sparse_bsr")
_IN_BLOCKS = ("torch.sparse_bsr", "torch.sparse_bsc")
_COO_KEYS = ["indices", "values", "size", "is_coalesced"]
_COMPRESSED_KEYS = ["compressed_indices", "plain_indices", "values", "size"]

Shape = tuple[int, ...]


class Described(Protocol):
    """A tensor of which dtype and shape are known."""

    @property
    def dtype(self) -> str:
        """A key of `DTYPES`."""

    @property
    def shape(self) -> Shape:
        """Sizes of its dimensions."""


def are_sizes(value: object) -> TypeGuard[list[int]]:
    """Say whether a value is an array of uints."""
    return isinstance(value, list) and all(type(size) is int and 0 <= size <= MAX_UINT for size in value)


def sparse_fault(typed: Typed, tensors: Mapping[str, Described]) -> str | None:
    """Return what is wrong with a typed value whose name is in `SPARSE`, None if nothing is.

    References to tensors that do not exist and wrong complex values are faults of their own, which are not looked for.

    Args:
        typed: The typed value.
        tensors: The component's tensors by name.
    """
    value: Any = typed.value
    is_coo = typed.name == SPARSE_COO
    keys = _COO_KEYS if is_coo else _COMPRESSED_KEYS
    if not isinstance(value, dict) or list(value) != keys:
        return f"is not a map of {', '.join(keys)}"
    indices = [_indices(value[key], tensors) for key in keys if key.endswith("indices")]
    dtypes = {tensor.dtype for tensor in indices if tensor is not None}
    right = None not in indices and len(dtypes) == 1 and dtypes <= ({"I64"} if is_coo else {"I64", "I32"})
    right = right and _is_reference(value["values"]) and are_sizes(value["size"])
    if not right or not isinstance(value.get("is_coalesced", False), bool):
        return f"has {', '.join(keys)} of the wrong types"
    shape = _values_shape(value["values"], tensors)
    if shape is None:
        return None
    first, *others = [tensor.shape for tensor in indices if tensor is not None]
    size = tuple(value["size"])
    fits = _coo_fits(first, shape, size) if is_coo else _compressed_fits(typed.name, first, others[0], shape, size)
    return None if fits else "has indices, values and size whose shapes do not fit together"


def _coo_fits(indices: Shape, values: Shape, size: Shape) -> bool:
    if len(indices) != 2 or not values:
        return False
    sparse, elements = indices
    return values[0] == elements and len(size) == sparse + len(values) - 1 and size[sparse:] == values[1:]


def _compressed_fits(name: str, compressed: Shape, plain: Shape, values: Shape, size: Shape) -> bool:
    batch = len(compressed) - 1
    first_dense = batch + (3 if name in _IN_BLOCKS else 1)
    if batch < 0 or len(plain) != batch + 1 or len(values) < first_dense:
        return False
    dense, blocks = values[first_dense:], values[batch + 1 : first_dense] or (1, 1)
    if 0 in blocks or len(size) != batch + 2 + len(dense) or size[batch + 2 :] != dense:
        return False
    if not size[:batch] == compressed[:batch] == plain[:batch] == values[:batch] or values[batch] != plain[batch]:
        return False
    counts = [divmod(whole, block) for whole, block in zip(size[batch : batch + 2], blocks, strict=True)]
    axis = 0 if name in _BY_ROWS else 1
    return compressed[batch] == counts[axis][0] + 1 and not any(rest for _, rest in counts)


def _indices(value: object, tensors: Mapping[str, Described]) -> Described | None:
    return tensors.get(value.name) if isinstance(value, TensorRef) else None


def _is_reference(value: object) -> bool:
    """Say whether a value is what 11.6 calls elements."""
    return isinstance(value, TensorRef) or (isinstance(value, Typed) and value.name in COMPLEX_PARTS)


def _values_shape(value: object, tensors: Mapping[str, Described]) -> Shape | None:
    """Return the shape of the values, None if another fault hides it."""
    reference = value.value if isinstance(value, Typed) else value
    tensor = tensors.get(reference.name) if isinstance(reference, TensorRef) else None
    if tensor is None or not isinstance(value, Typed):
        return None if tensor is None else tensor.shape
    return tensor.shape[:-1] if tensor.shape[-1:] == (2,) else None
