"""Writes docs/json.md, the JSON form of every report, from the docstrings of the reports: `make docs`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import ckptfmt._core.ops

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).with_name("json.md")

_HEAD = """# JSON forms

Every command of `ckptfmt` that reports something takes `--json` and then writes one JSON document to standard output,
in ASCII. These forms are part of the public interface: keys are added, never renamed or removed, and `report` names
the form and its version. `to_json()` of a report returns the same document. A name after "see" has a section of its
own below.

`inspect --tree` adds `tree` (array of `Module`) to the report, `inspect --stats` adds `stats` (array of
`TensorStats`). `inspect --tensor NAME` writes `tensor/1`: `report`, `path`, and the keys of `TensorView`. `pin` and
`unpin` write `pin/1` and `unpin/1`: `report`, and `files` (array of `PinChange`).

"""
_FORM = re.compile(r'"([a-z-]+/1)"')


def page() -> str:
    """Return the text of the page."""
    texts = _texts()
    forms = {form[1]: name for name, text in texts.items() if (form := _FORM.search(text))}
    order = [name for _, name in sorted(forms.items())]
    order += sorted(name for name in texts if name not in order and name[0].isupper())
    order += sorted(name for name in texts if name[0].islower())
    titles = {name: f"`{form}`: {name}" for form, name in forms.items()}
    return _HEAD + "".join(f"## {titles.get(name, name)}\n\n{_as_markdown(texts[name])}\n\n" for name in order)


def _texts() -> dict[str, str]:
    """Return the docstrings of each report, and of each object and value in it."""
    found: dict[str, str] = {}
    for module in pkgutil.walk_packages(ckptfmt._core.ops.__path__, "ckptfmt._core.ops."):
        for name, item in vars(importlib.import_module(module.name)).items():
            home = getattr(item, "__module__", "")
            if inspect.isclass(item) and home.startswith("ckptfmt._core.") and "to_json" in vars(item):
                found[name] = f"{inspect.getdoc(item)}\n\n{inspect.cleandoc(str(vars(item)['to_json'].__doc__))}"
            elif inspect.isfunction(item) and home == "ckptfmt._core.ops.report_json" and name.endswith("_json"):
                found[name] = inspect.cleandoc(str(item.__doc__))
    return found


def _as_markdown(docstring: str) -> str:
    """Return a docstring with its list of attributes as a Markdown list."""
    text = re.sub(r"^    (\w+): ", r"- `\1`: ", docstring, flags=re.MULTILINE)
    return re.sub(r"^        ", "  ", text, flags=re.MULTILINE).replace("Attributes:\n", "Attributes:\n\n")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
