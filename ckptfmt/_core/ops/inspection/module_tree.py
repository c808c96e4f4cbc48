"""Tensors grouped by the modules that their names spell, with repeated layers folded into one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ckptfmt._core.interop.base import TensorInfo
from ckptfmt._core.ops.inspection.inspect import ComponentInfo
from ckptfmt._core.ops.inspection.tensor_filter import natural

__all__ = ["Module", "component_trees", "module_tree"]

_SEPARATOR = "."
_MAX_DEPTH = 32  # the rest of a longer name is one name


@dataclass(frozen=True)
class Module:
    """A module, a tensor, or several equal ones.

    Attributes:
        name: Its name in the module around it, such as `attn.c_proj`, `weight`, or `h.{0..11}` for several.
        times: How many there are.
        tensors: Number of tensors in all of them together.
        elements: Number of their elements.
        nbytes: Length of their data.
        dtype: Dtype of a tensor; None for a module.
        shape: Shape of a tensor; None for a module.
        children: Content of each.
    """

    name: str
    times: int
    tensors: int
    elements: int
    nbytes: int
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    children: tuple[Module, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: the attributes under their names, `dtype` and `shape` null unless it is a tensor."""
        return {
            "name": self.name,
            "times": self.times,
            "tensors": self.tensors,
            "elements": self.elements,
            "nbytes": self.nbytes,
            "dtype": self.dtype,
            "shape": None if self.shape is None else list(self.shape),
            "children": [child.to_json() for child in self.children],
        }


@dataclass
class _Node:
    """A module while the tree is made; `tensor` is the one that has exactly this name."""

    tensor: TensorInfo | None = None
    children: dict[str, _Node] = field(default_factory=dict)


def module_tree(name: str, tensors: Iterable[TensorInfo]) -> Module:
    """Return tensors as a tree.

    Modules are in the order of their first tensors. Neighbours that are numbered and hold the same tensors (name,
    dtype, shape) are one row. A module that holds nothing but another one is joined with it.

    Args:
        name: What the whole is called, such as the name of the component.
        tensors: The tensors.
    """
    root = _Node()
    for tensor in tensors:
        node = root
        for part in tensor.name.split(_SEPARATOR, _MAX_DEPTH):
            node = node.children.setdefault(part, _Node())
        node.tensor = tensor
    return _whole(name, root.tensor, _children(root))


def component_trees(components: Iterable[ComponentInfo], tensors: Sequence[TensorInfo]) -> list[Module]:
    """Return a tree for each component that has tensors among these, in the order of the components."""
    groups = {
        component.name: [item for item in tensors if item.component == component.name] for component in components
    }
    return [module_tree(name, mine) for name, mine in groups.items() if mine]


def _children(node: _Node) -> list[Module]:
    """Return what is in a module."""
    return _folded([_module(name, child) for name, child in node.children.items()])


def _module(name: str, node: _Node) -> Module:
    children = _children(node)
    if node.tensor is None and len(children) == 1 and children[0].dtype is None:
        return replace(children[0], name=f"{name}{_SEPARATOR}{children[0].name}")
    return _whole(name, node.tensor, children)


def _whole(name: str, own: TensorInfo | None, children: Sequence[Module]) -> Module:
    """Return a module of these children, or the tensor of its name, or both."""
    if own is not None:
        tensor = Module(name, 1, 1, own.elements, own.nbytes, own.dtype, own.shape)
        if not children:
            return tensor
        children = [replace(tensor, name=_SEPARATOR), *children]
    return Module(
        name,
        1,
        sum(child.tensors for child in children),
        sum(child.elements for child in children),
        sum(child.nbytes for child in children),
        children=tuple(children),
    )


def _folded(modules: Sequence[Module]) -> list[Module]:
    """Return modules with each row of numbered, equal neighbours as one."""
    numbers = [_number(module.name) for module in modules]
    if len(modules) > 1 and all(number is not None for number in numbers):
        modules = sorted(modules, key=lambda module: natural(module.name))
    folded: list[Module] = []
    row: list[Module] = []
    for module in modules:
        if row and _follows(row[-1], module):
            row.append(module)
            continue
        folded += _row(row)
        row = [module]
    return folded + _row(row)


def _row(row: Sequence[Module]) -> list[Module]:
    if len(row) < 2:
        return list(row)
    first, last = row[0], row[-1]
    times = len(row)
    name = f"{{{_number(first.name)}..{_number(last.name)}}}" + (_SEPARATOR + _rest(first) if _rest(first) else "")
    totals = (times * first.tensors, times * first.elements, times * first.nbytes)
    return [Module(name, times * first.times, *totals, first.dtype, first.shape, first.children)]


def _follows(one: Module, other: Module) -> bool:
    """Say whether the second is the next after the first, and equal to it but for the number."""
    first, second = _number(one.name), _number(other.name)
    if first is None or second != first + 1 or _rest(one) != _rest(other):
        return False
    return _but_name(one) == _but_name(other)


def _but_name(module: Module) -> tuple[object, ...]:
    """Return what two modules have in common if one of them could be the other."""
    totals = (module.times, module.tensors, module.elements, module.nbytes)
    return (*totals, module.dtype, module.shape, module.children)


def _rest(module: Module) -> str:
    """Return what follows the number in a name."""
    return module.name.partition(_SEPARATOR)[2]


def _number(name: str) -> int | None:
    head = name.partition(_SEPARATOR)[0]
    return int(head) if head.isascii() and head.isdigit() and len(head) < 10 and str(int(head)) == head else None
