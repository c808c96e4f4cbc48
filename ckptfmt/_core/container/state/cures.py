"""What to save in place of an object that the format cannot express: one expression where there is one."""

from __future__ import annotations

from collections import deque
from dataclasses import is_dataclass
from enum import Enum
from keyword import iskeyword
from pathlib import PurePath

__all__ = ["cure_for", "replacement"]


def cure_for(value: object, key: object) -> str:
    """Return the advice for a value in a state: what to save instead.

    Args:
        value: The value.
        key: The last part of the path to it.
    """
    name = key if isinstance(key, str) and key.isidentifier() and not iskeyword(key) else "value"
    instead = replacement(value, name) or "its numbers, text or tensors (a state_dict)"
    return f"ckptfmt never pickles: save {instead} instead"


def replacement(value: object, name: str) -> str | None:
    """Return the Python expression to save in place of a value called `name`; None if there is none for its type."""
    if isinstance(value, Enum):
        return f"{name}.name"
    if is_dataclass(value) and not isinstance(value, type):
        return f"dataclasses.asdict({name})"
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return f"{name}._asdict()"
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return f"{name}.__qualname__"
    if callable(getattr(value, "state_dict", None)):
        return f"{name}.state_dict()"
    return _call(value, name)


def _call(value: object, name: str) -> str | None:
    from argparse import Namespace  # few programs need them
    from types import SimpleNamespace

    calls: dict[str, tuple[type, ...]] = {
        "vars": (Namespace, SimpleNamespace),
        "str": (PurePath, str),
        "bytes": (bytes, bytearray, memoryview),
        "tuple": (tuple,),
        "list": (list, deque, range),
        "set": (set, frozenset),
        "int": (int,),
        "float": (float,),
        "complex": (complex,),
    }
    return next((f"{call}({name})" for call, kinds in calls.items() if isinstance(value, kinds)), None)
