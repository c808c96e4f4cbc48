"""Variables that a loader's code refers to besides instance attributes: class attributes, closures and globals.

Only the user's code is inspected, not that of Python, PyTorch and other installed packages.
"""

from __future__ import annotations

import dis
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ckptfmt._core.torch.live_objects.contents import bases, is_a, namespace

__all__ = ["Reference", "class_attributes", "functions_of", "is_users", "references", "users_classes"]

_PACKAGES = ("site-packages", "dist-packages")
_GLOBALS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL"})
_OWN = f"{Path(__file__).parents[3]}{os.sep}"
# These run when the object is created, not when it is used; and those of components, which are saved separately.
_MAKING = frozenset({"__init__", "__new__", "__init_subclass__"})
_COMPONENTS = (nn.Module, Optimizer, LRScheduler)


@dataclass(frozen=True)
class Reference:
    """A variable that code refers to.

    Attributes:
        name: Its name.
        holder: Its container: a class, the cell of a closure, or a dict of globals, defaults or attributes.
        key: Key in the holder.
        value: Its value.
    """

    name: str
    holder: Any
    key: Any
    value: object


def is_users(code: object) -> bool:
    """Return whether a class or function belongs to the user's code."""
    if is_a(code, FunctionType):
        return not _is_installed(code.__code__.co_filename)  # type: ignore[attr-defined]  # it is a function
    if not is_a(code, type):
        return False
    module = sys.modules.get(str(namespace(code).get("__module__")))  # type: ignore[arg-type]  # it is a class
    if module is None:
        return False
    file = getattr(module, "__file__", None)
    if file is None:  # interactive, or built in
        return module.__name__ == "__main__"
    return not _is_installed(file)


def users_classes(kind: type) -> list[type]:
    """Return those of a class and its base classes that belong to the user's code."""
    return [base for base in bases(kind) if base is not object and is_users(base)]


def class_attributes(kind: type) -> list[Reference]:
    """Return the data attributes of a class, without methods, properties and nested classes."""
    return [
        Reference(name, kind, name, value)
        for name, value in namespace(kind).items()
        if not (name.startswith("__") and name.endswith("__")) and _is_data(value)
    ]


def functions_of(kind: type) -> list[FunctionType]:
    """Return the functions of a class that run when its instances are used."""
    found: list[FunctionType] = []
    for name, value in namespace(kind).items():
        inner = value.fget if is_a(value, property) else value
        inner = inner.__func__ if is_a(inner, (staticmethod, classmethod)) else inner
        if name not in _MAKING and is_a(inner, FunctionType):
            found.append(inner)
    return found


def references(function: FunctionType) -> list[Reference]:
    """Return the variables that a function refers to: closure, globals, defaults, and function attributes."""
    code = function.__code__
    found = []
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            found.append(Reference(name, cell, "cell_contents", cell.cell_contents))
        except ValueError:  # it is empty
            continue
    variables = function.__globals__
    found += [Reference(name, variables, name, variables[name]) for name in _global_names(code) if name in variables]
    defaults = function.__defaults__ or ()
    arguments = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    found += [Reference(name, defaults, index, defaults[index]) for index, name in enumerate(arguments)]
    for holder in (function.__kwdefaults__ or {}, function.__dict__):
        found += [Reference(name, holder, name, value) for name, value in holder.items()]
    return [reference for reference in found if _may_matter(reference.value)]


def _is_data(value: object) -> bool:
    descriptor = any("__get__" in namespace(base) for base in bases(type(value)))
    return not descriptor and not is_a(value, (type, ModuleType, classmethod, staticmethod))


def _may_matter(value: object) -> bool:
    return not is_a(value, (ModuleType, *_COMPONENTS)) and not type(value).__module__.startswith("ckptfmt.")


@lru_cache(maxsize=1024)
def _global_names(code: CodeType) -> tuple[str, ...]:
    """Return the names of the globals in code, nested code included."""
    own = (step.argval for step in dis.get_instructions(code) if step.opname in _GLOBALS)
    inner: Iterator[str] = chain.from_iterable(_global_names(part) for part in code.co_consts if is_a(part, CodeType))
    return tuple(dict.fromkeys([*own, *inner]))


@lru_cache(maxsize=1024)
def _is_installed(file: str) -> bool:
    """Return whether a file belongs to Python, an installed package or this one."""
    if file.startswith(("<frozen", _OWN, *_standard_library())):
        return True
    return not set(_PACKAGES).isdisjoint(Path(file).parts)


@lru_cache(maxsize=1)
def _standard_library() -> tuple[str, ...]:
    paths = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
    return tuple(path for path in paths if path)
