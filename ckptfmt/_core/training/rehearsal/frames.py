"""The variables of the program around the training loop."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

from ckptfmt._core.training.rehearsal.liveness import live_names

__all__ = ["Variable", "program_variables"]

_OWN = Path(__file__).parents[3]
_HIDDEN = ("__", "@py")  # of modules, and of test tools that rewrite assertions


@dataclass(frozen=True)
class Variable:
    """A variable of the program.

    Attributes:
        name: Its name.
        place: Where it is: `main()`, or `train.py` for a global one.
        value: Its value.
        is_live: Whether the program may read it before it replaces it.
    """

    name: str
    place: str
    value: object
    is_live: bool


def program_variables() -> Iterator[Variable]:
    """Yield the variables of the functions that are running and belong to the program, innermost first, then globals.

    Code of the standard library, of installed packages and of ckptfmt itself does not belong to it.
    """
    frames = [frame for frame in _stack(sys._getframe(1)) if _is_the_programs(frame.f_code.co_filename)]
    modules: dict[int, tuple[dict[str, Any], frozenset[str] | None]] = {}
    for frame in frames:
        code = frame.f_code
        live = live_names(code, frame.f_lasti)
        if frame.f_locals is frame.f_globals:
            modules[id(frame.f_globals)] = frame.f_globals, live
            continue
        modules.setdefault(id(frame.f_globals), (frame.f_globals, None))
        place = f"{code.co_qualname.replace('.<locals>', '')}()"
        for name, value in frame.f_locals.items():
            yield Variable(name, place, value, name in live)
    for variables, live_globals in modules.values():
        place = Path(str(variables.get("__file__") or variables.get("__name__"))).name
        for name, value in list(variables.items()):
            if not name.startswith(_HIDDEN):
                yield Variable(name, place, value, live_globals is None or name in live_globals)


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


@lru_cache(maxsize=1024)
def _is_the_programs(filename: str) -> bool:
    if filename.startswith("<") and filename != "<string>" and filename != "<stdin>":
        return False
    path = Path(filename).resolve()
    return not any(path.is_relative_to(directory) for directory in _directories())


@lru_cache(maxsize=1)
def _directories() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = {sysconfig.get_paths()[name] for name in names}
    return (_OWN, *(Path(os.path.realpath(directory)) for directory in installed))
