"""Which variables a loop may still read, from its bytecode."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator

import pytest

from ckptfmt._core.training.rehearsal.liveness import live_names

CASES = [
    # A variable that is replaced before it is read is dead at the top of the loop.
    ("x = 0\nfor i in top():\n    x = i\n    print(x)", {"x": False}),
    ("x = 0\nfor i in top():\n    x += i", {"x": True}),
    ("x = 0\nfor i in top():\n    if i:\n        x = 1\n    print(x)", {"x": True}),
    ("x = 0\nfor i in top():\n    pass\nprint(x)", {"x": True}),
    ("x = 0\nfor i in top():\n    x = i\nelse:\n    x = 1\nprint(x)", {"x": False}),
    ("x = y = 0\nfor i in top():\n    y = x\n    x = i", {"x": True, "y": False}),
    ("x = 0\nfor i in top():\n    try:\n        x = i\n    except ValueError:\n        print(x)", {"x": True}),
    ("x = 0\nfor i in top():\n    try:\n        x = i\n    finally:\n        print(1)", {"x": False}),
    ("x = 0\nfor i in top():\n    print([x for x in range(3)])", {"x": False}),
    ("x = 0\nfor i in top():\n    while i:\n        x = i\n        break\n    print(x)", {"x": True}),
    ("x = 0\nit = top()\nwhile True:\n    i = next(it, True)\n    x = i\n    if i: break", {"x": False, "it": True}),
    ("x = 0\nfor i in top():\n    del x\n    x = 1", {"x": True}),
    ("x = 0\nfor i in top():\n    with open(x): pass", {"x": True}),
    ("x = 0\ndef f():\n    return x\nfor i in top():\n    f()", {"x": True}),
    ("x = 0\ndef f():\n    global x\n    x += 1\nfor i in top():\n    f()", {"x": True}),
    ("x = 0\ndef f():\n    global x\n    x = 1\nfor i in top():\n    f()\n    print(x)", {"x": False}),
]


@pytest.mark.parametrize(("code", "expected"), CASES, ids=[str(number) for number in range(len(CASES))])
@pytest.mark.parametrize("inside", ["module", "function"])
def test_what_is_live_at_the_top_of_a_loop(code: str, expected: dict[str, bool], inside: str) -> None:
    found: dict[str, bool] = {}

    def top() -> Iterator[int]:
        frame = sys._getframe(1)
        live = live_names(frame.f_code, frame.f_lasti)
        found.update({name: name in live for name in expected})
        yield from ()

    if inside == "function":
        code = "def program():\n" + textwrap.indent(code.replace("global", "nonlocal"), "    ") + "\nprogram()"
    exec(compile(code, "program", "exec"), {"top": top})
    assert found == expected


def test_offsets_that_no_instruction_has_make_all_names_live() -> None:
    code = compile("x = 1", "program", "exec")
    assert live_names(code, -1) == {"x"}
