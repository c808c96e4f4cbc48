"""Weights of TorchScript archives: recovered from the objects in them; their code is left behind.

An object's class is named `__torch__.a.b.Name`, and its source stands in the member `code/__torch__/a/b.py`. There a
line says which attributes are parameters, and another which are buffers. The source is read as text, for these lines
alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

from ckptfmt._core.pth.limits import MAX_DEPTH
from ckptfmt._core.pth.nodes import Global, Record
from ckptfmt._core.pth.values.builder import Builder, Tensor
from ckptfmt._core.pth.values.modules import VISIT, attributes_of
from ckptfmt.errors import ForeignFileError

__all__ = ["SCRIPTED", "recover_scripted"]

SCRIPTED = "__torch__."

ReadCode = Callable[[str], str | None]
"""Returns the text of a member of the archive, None if there is none."""

TensorsOf = Callable[[str, str], frozenset[str] | None]
"""Returns the names of the tensors of a class; None if they are not known."""

_CLASS = re.compile(r"^class ([^\s(]+)\(", re.MULTILINE)
_LIST = re.compile(r"__(?:parameters|buffers)__ = \[([^\[\]\n]*)\]")
_NAME = re.compile(r'"([^"\\]*)"')


def recover_scripted(read_code: ReadCode) -> Callable[[Builder, Record], object]:
    """Return what recovers the state dict of an object of TorchScript; NotImplemented for any other record."""

    @cache
    def classes_of(module: str) -> Mapping[str, frozenset[str]]:
        return _classes(read_code(f"code/{module.replace('.', '/')}.py") or "")

    def tensors_of(module: str, name: str) -> frozenset[str] | None:
        return classes_of(module).get(name)

    def recover(builder: Builder, record: Record) -> object:
        if not _is_scripted(record):
            return NotImplemented
        builder.notes.modules[str(record.callee)] += 1
        return _state(builder, record, tensors_of)

    return recover


def _is_scripted(node: object) -> bool:
    return isinstance(node, Record) and f"{node.callee.module}.".startswith(SCRIPTED) and bool(node.states)


def _classes(code: str) -> Mapping[str, frozenset[str]]:
    """Return the names of the parameters and buffers of each class that lists them."""
    found: dict[str, frozenset[str]] = {}
    starts = list(_CLASS.finditer(code))
    ends = [start.start() for start in starts[1:]] + [len(code)]
    for start, end in zip(starts, ends, strict=False):  # code without a class has an end, and no start
        lists = _LIST.findall(code, start.end(), end)
        if lists:
            found.setdefault(start[1], frozenset(name for names in lists for name in _NAME.findall(names)))
    return found


def _may_be_tensor(value: object, name: str, names: frozenset[str] | None) -> bool:
    return isinstance(value, Record) and (names is None or name in names)


def _state(builder: Builder, root: Record, tensors_of: TensorsOf) -> dict[str, object]:
    state: dict[str, object] = {}
    pending: list[tuple[str, Record, frozenset[int]]] = [("", root, frozenset())]
    while pending:
        prefix, node, above = pending.pop()
        builder.looked_at(VISIT)
        if id(node) in above or len(above) > MAX_DEPTH:
            raise ForeignFileError("a module that contains itself, or is nested too deeply")
        callee: Global = node.callee
        names = tensors_of(callee.module, callee.name)
        children: list[tuple[str, Record, frozenset[int]]] = []
        for name, value in attributes_of(builder, node).items():
            if isinstance(value, Record) and _is_scripted(value):
                children.append((f"{prefix}{name}.", value, above | {id(node)}))
            elif _may_be_tensor(value, name, names) and isinstance(builder.raw(value), Tensor):
                state[prefix + name] = builder.value(value)
        pending += reversed(children)
    return state
