"""The page that documents the JSON form of every report is what the docstrings say; they are its source."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
from pathlib import Path

import pytest

import ckptfmt._core.ops
from ckptfmt_cli import main as command_line
from tests.cli.conftest import invoke

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
HEAD = """# JSON forms

Every command of `ckptfmt` that reports something takes `--json` and then writes one JSON document to standard output,
in ASCII. These forms are part of the public interface: keys are added, never renamed or removed, and `report` names
the form and its version. `to_json()` of a report returns the same. What is named after "see"
stands below under its own heading.

`inspect --tree` adds `tree` (array of `Module`) to the report, `inspect --stats` adds `stats` (array of
`TensorStats`). `inspect --tensor NAME` writes `tensor/1`: `report`, `path`, and the keys of `TensorView`. `pin` and
`unpin` write `pin/1` and `unpin/1`: `report`, and `files` (array of `PinChange`).

"""


def test_the_page_is_what_the_docstrings_say() -> None:
    text = HEAD + "".join(sections())
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text, "UPDATE_GOLDEN=1 writes the page anew"


def sections() -> list[str]:
    """Return a section for each report, and then for each object and value that stands in them."""
    found: dict[str, str] = {}
    for module in pkgutil.walk_packages(ckptfmt._core.ops.__path__, "ckptfmt._core.ops."):
        for name, item in vars(importlib.import_module(module.name)).items():
            home = getattr(item, "__module__", "")
            if inspect.isclass(item) and home.startswith("ckptfmt._core.") and "to_json" in vars(item):
                found[name] = f"{inspect.getdoc(item)}\n\n{inspect.cleandoc(str(vars(item)['to_json'].__doc__))}"
            elif inspect.isfunction(item) and home == "ckptfmt._core.ops.report_json" and name.endswith("_json"):
                found[name] = inspect.cleandoc(str(item.__doc__))
    reports = {form.group(1): name for name, text in found.items() if (form := re.search(r'"([a-z-]+/1)"', text))}
    order = [name for _, name in sorted(reports.items())]
    order += sorted(name for name in found if name not in order and name[0].isupper())
    order += sorted(name for name in found if name[0].islower())
    titles = {name: f"`{form}`: {name}" for form, name in reports.items()}
    return [f"## {titles.get(name, name)}\n\n{as_markdown(found[name])}\n\n" for name in order]


def as_markdown(docstring: str) -> str:
    """Return a docstring of ours with its list of attributes as a list of Markdown."""
    text = re.sub(r"^    (\w+): ", r"- `\1`: ", docstring, flags=re.MULTILINE)
    return re.sub(r"^        ", "  ", text, flags=re.MULTILINE).replace("Attributes:\n", "Attributes:\n\n")


@pytest.mark.parametrize("command", sorted(set(command_line._COMMANDS) - {"completion"}))
def test_every_command_that_reports_takes_json(command: str) -> None:
    assert "--json" in invoke(command, "--help").stdout
