"""State dicts of whole pickled modules and optimizers, from their own structure: their classes are not needed.

`torch.save(model)` writes the objects of the model with all their attributes. A module has `_parameters`, `_buffers`
and `_modules`; what its `state_dict()` would return follows from these, but for what a class's own `get_extra_state`
would add.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckptfmt._core.format.packing import Typed
from ckptfmt._core.pth.limits import MAX_DEPTH
from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.nodes import DictNode, Record, SetNode
from ckptfmt._core.pth.values.builder import Builder, Tensor
from ckptfmt.errors import ForeignFileError

__all__ = ["VISIT", "attributes_of", "recover"]

VISIT = 8
"""What it costs to look at an object, in attributes."""
_MODULE = frozenset({"_parameters", "_buffers", "_modules"})
_OPTIMIZER = frozenset({"defaults", "state", "param_groups"})


def recover(builder: Builder, record: Record) -> object:
    """Return the state of a module or optimizer; NotImplemented for any other object."""
    attributes = attributes_of(builder, record)
    if attributes.keys() >= _MODULE:
        builder.notes.modules[canonical(record.callee)] += 1
        return _module_state(builder, record)
    if attributes.keys() >= _OPTIMIZER and canonical(record.callee).startswith("torch.optim."):
        builder.notes.modules[canonical(record.callee)] += 1
        return _optimizer_state(builder, attributes)
    return NotImplemented


def attributes_of(builder: Builder, record: Record) -> dict[str, object]:
    """Return the attributes that a pickle gives to an object."""
    result: dict[str, object] = {}
    for state in record.states:
        parts = state if isinstance(state, tuple) else (state,)  # attributes, and those of `__slots__`
        for part in parts:
            if isinstance(part, DictNode):
                builder.looked_at(len(part.entries))
                result.update((key, value) for key, value in part.entries if isinstance(key, str))
    return result


def _module_state(builder: Builder, module: Record) -> dict[str, object]:
    """Return what `state_dict()` of the module would: its parameters and persistent buffers, then its children's."""
    state: dict[str, object] = {}
    pending: list[tuple[str, Record, frozenset[int]]] = [("", module, frozenset())]
    while pending:
        prefix, node, above = pending.pop()
        builder.looked_at(VISIT)
        if id(node) in above or len(above) > MAX_DEPTH:
            raise ForeignFileError("a module that contains itself, or is nested too deeply")
        attributes = attributes_of(builder, node)
        passing = _text_set(builder, attributes.get("_non_persistent_buffers_set"))
        for name, tensor in _items(builder, attributes.get("_parameters")):
            _take(builder, state, prefix + name, tensor)
        for name, tensor in _items(builder, attributes.get("_buffers")):
            if name in passing:
                builder.notes.drop("a buffer that is not persistent", "a state dict leaves it out, too")
            else:
                _take(builder, state, prefix + name, tensor)
        inside = above | {id(node)}
        named = _items(builder, attributes.get("_modules"))
        children = [(f"{prefix}{name}.", child, inside) for name, child in named]
        pending += [(path, child, ids) for path, child, ids in reversed(children) if isinstance(child, Record)]
    return state


def _take(builder: Builder, state: dict[str, object], name: str, node: object) -> None:
    if node is None:
        return
    if not isinstance(builder.raw(node), Tensor):
        raise ForeignFileError(f"{name!a:.200} of a module is no tensor")
    state[name] = builder.value(node)


def _items(builder: Builder, node: object) -> Iterator[tuple[str, object]]:
    """Yield the items of a dict that has names for keys; the last of two under one name counts."""
    if isinstance(node, Record):
        entries = node.entries
        if not entries and len(node.args) == 1 and isinstance(node.args[0], list):
            entries = [tuple(pair) for pair in node.args[0] if isinstance(pair, list | tuple) and len(pair) == 2]
    elif isinstance(node, DictNode):
        entries = node.entries
    else:
        entries = []
    builder.looked_at(len(entries))
    yield from {name: value for name, value in entries if isinstance(name, str)}.items()


def _text_set(builder: Builder, node: object) -> frozenset[str]:
    elements = node.elements if isinstance(node, SetNode) else []
    if isinstance(node, Record) and len(node.args) == 1 and isinstance(node.args[0], list):
        elements = node.args[0]  # `set(["a"])`, as before protocol 4
    builder.looked_at(len(elements))
    return frozenset(element for element in elements if isinstance(element, str))


def _optimizer_state(builder: Builder, attributes: dict[str, object]) -> object:
    """Return what `state_dict()` of the optimizer would: parameters by their number."""
    groups = attributes["param_groups"]
    numbers: dict[object, int] = {}
    packed = []
    for group in groups if isinstance(groups, list) else []:
        if not isinstance(group, DictNode):
            raise ForeignFileError("an optimizer with a group of parameters that is no dict")
        options: dict[object, object] = {}
        for key, value in group.entries:
            if key == "params" and isinstance(value, list):
                options[key] = [numbers.setdefault(_identity(builder, node), len(numbers)) for node in value]
            elif isinstance(key, str):
                options[key] = builder.value(value)
        packed.append({**options, "params": options.get("params", [])})
    state: dict[int, object] = {}
    for node, value in _pairs(attributes["state"]):
        number = numbers.get(_identity(builder, node))
        if number is not None:
            state[number] = builder.value(value)
    return {"state": dict(sorted(state.items())), "param_groups": packed}


def _identity(builder: Builder, node: object) -> object:
    made = builder.raw(node)
    if not isinstance(made, Tensor):
        raise ForeignFileError("an optimizer of something else than tensors")
    return id(node) if made.view is None or isinstance(made.value, Typed) else made.view.identity


def _pairs(node: object) -> list[tuple[object, object]]:
    return node.entries if isinstance(node, DictNode | Record) else []
