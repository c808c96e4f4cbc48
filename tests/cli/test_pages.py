"""The pages: self-contained, safe with any names, and, in a real browser, to be searched, sorted and read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import ckptfmt
from ckptfmt._escaping import escape
from tests.cli.browser import ask, needs_browser
from tests.cli.conftest import NOW, invoke

HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=alert(1)>\u2028\x1b"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Return the page of a small network whose names try to act."""
    rng = np.random.default_rng(0)
    net: dict[str, Any] = {}
    for layer in range(6):
        net[f"layers.{layer}.attn.weight"] = rng.standard_normal((layer + 8, 8)).astype(np.float32)
        net[f"layers.{layer}.attn.bias"] = np.full(8, float(layer))
    net[HOSTILE] = np.array([1, np.nan, np.inf])
    facts: dict[str, Any] = {"run_id": HOSTILE, "user": {HOSTILE: HOSTILE}, "created": NOW}
    ckptfmt.save({"net": net, "ema": {"w": np.zeros(5000)}}, tmp_path / "a.ckptfmt", **facts)
    result = invoke("inspect", "--html", tmp_path / "page.html", tmp_path / "a.ckptfmt")
    assert (result.exit_code, result.stderr) == (0, "")
    return tmp_path / "page.html"


def check_alone(text: str) -> None:
    """Assert that a page or picture loads nothing."""
    assert not re.search(r"<[a-z][^>]*\s(?:src|href|srcset|action)\s*=", text, re.IGNORECASE)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    assert set(re.findall(r"https?://[^\"'\s<]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_the_page_needs_nothing_from_elsewhere_and_no_name_in_it_acts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    check_alone(text)
    assert "default-src 'none'" in text
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text
    assert "\x1b" not in text


def test_the_page_replaces_an_older_one_as_a_whole(page: Path) -> None:
    before = page.read_text(encoding="utf-8")
    assert invoke("inspect", "--html", page, page.parent / "a.ckptfmt", "--no-stats").exit_code == 0
    after = page.read_text(encoding="utf-8")
    assert len(after) < len(before)
    assert '"stats":null' in after
    assert invoke("inspect", "--html", page.parent / "none" / "p.html", page.parent / "a.ckptfmt").exit_code == 3


@needs_browser
def test_a_browser_shows_all_of_it(page: Path) -> None:
    shown = ask(
        page,
        """
        return {
          title: document.title,
          rows: document.querySelectorAll("#tensors tbody tr").length,
          names: [...document.querySelectorAll("#tensors tbody td:nth-child(2)")].map((cell) => cell.textContent),
          pictures: document.querySelectorAll("#tensors svg.histogram rect").length,
          tree: [...document.querySelectorAll("#tree > details > summary .name")].map((cell) => cell.textContent),
          images: document.querySelectorAll("img").length,
          bad: [...document.querySelectorAll("#tensors .bad")].map((cell) => cell.textContent),
        };
        """,
    )
    assert shown["title"].endswith("a.ckptfmt")
    assert shown["rows"] == 14
    assert escape(HOSTILE) in shown["names"]
    assert shown["pictures"] == 14 * 24
    assert shown["tree"] == ["net", "ema"]
    assert shown["images"] == 0
    assert shown["bad"] == ["2"]


@needs_browser
def test_tensors_can_be_searched_and_sorted(page: Path) -> None:
    found = ask(
        page,
        """
        const cells = () => [...document.querySelectorAll("#tensors tbody td:nth-child(2)")];
        const names = () => cells().map((cell) => cell.textContent);
        const search = document.getElementById("search");
        const type = (text) => { search.value = text; search.dispatchEvent(new Event("input")); };
        const press = (title) => [...document.querySelectorAll("#tensors th button")]
          .find((button) => button.textContent === title).click();
        const answer = {};
        type("net WEIGHT"); answer.weights = names();
        type("layers.3"); answer.third = names();
        type("nothing at all"); answer.nothing = names();
        type("layers bias");
        press("max"); answer.largest = names();
        press("max"); answer.smallest = names();
        press("tensor"); answer.named = names();
        answer.sorted = document.querySelector("#tensors th[aria-sort]").textContent;
        type("");
        const only = document.getElementById("component");
        only.value = "ema"; only.dispatchEvent(new Event("input")); answer.ema = names();
        answer.found = document.getElementById("found").textContent;
        return answer;
        """,
    )
    assert found["weights"] == [f"layers.{layer}.attn.weight" for layer in range(6)]
    assert found["third"] == ["layers.3.attn.weight", "layers.3.attn.bias"]
    assert found["nothing"] == []
    biases = [f"layers.{layer}.attn.bias" for layer in range(6)]
    assert found["largest"] == biases[::-1]
    assert found["smallest"] == found["named"] == biases
    assert found["sorted"] == "tensor"
    assert found["ema"] == ["w"]
    assert found["found"] == "1 of 14 tensors, 39.1 KiB"


@needs_browser
def test_modules_open_and_close(page: Path) -> None:
    opened = ask(
        page,
        """
        const layers = [...document.querySelectorAll("#tree details details")][0];
        layers.open = true;
        layers.dispatchEvent(new Event("toggle"));
        return layers.textContent;
        """,
    )
    assert "attn" in opened
    assert "elements" in opened


CONTRAST = """
const channel = (value) => (value /= 255, value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
const light = (colour) => {
  const [r, g, b] = colour.match(/[0-9.]+/g).map(Number);
  return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
};
const contrast = (one, other) => {
  const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
};
const ground = getComputedStyle(document.querySelector("section") || document.body).backgroundColor;
"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_light_and_in_the_dark(page: Path, scheme: Any) -> None:
    found = ask(
        page,
        CONTRAST
        + """
        const texts = ["h2", "td", "th", ".count", ".bad", "summary .name"];
        return {
          ground: light(ground),
          contrast: texts.map((text) => contrast(getComputedStyle(document.querySelector(text)).color, ground)),
          overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        };
        """,
        scheme,
    )
    assert (found["ground"] > 0.5) == (scheme == "light")
    assert min(found["contrast"]) >= 4.5  # WCAG 2, level AA
    assert found["overflow"] <= 0


@pytest.fixture
def plotted(tmp_path: Path) -> Path:
    """Return a directory with two runs to be drawn."""
    directory = tmp_path / "runs"
    directory.mkdir()
    for run in ("a", HOSTILE):
        for step in (100, 200, 300):
            weights = {"fc.weight": np.full(9, float(step)), "head.weight": np.full(9, 1.0)}
            facts: dict[str, Any] = {"run_id": run, "step": step, "metrics": {"loss": 100 / step}}
            ckptfmt.save({"net": weights}, directory / f"{len(run)}-{step}.ckptfmt", **facts)
    return directory


def test_plots_are_pictures_of_their_own(plotted: Path, tmp_path: Path) -> None:
    result = invoke("plot", plotted, "-o", tmp_path / "p.svg")
    assert (result.exit_code, result.stderr) == (0, "")
    text = (tmp_path / "p.svg").read_text(encoding="utf-8")
    check_alone(text)
    root = ElementTree.fromstring(text)
    titles = [item.text for item in root.iter("{http://www.w3.org/2000/svg}text") if item.get("class") == "title"]
    assert titles[0] == "loss"
    assert len(titles) == 3, "and the norms of each run"
    lines = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == 2 + 4
    assert invoke("plot", plotted, "--no-norms", "-o", tmp_path / "p.html").exit_code == 0
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    check_alone(page)
    assert "<img" not in page


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_the_plot(plotted: Path, tmp_path: Path, scheme: Any) -> None:
    invoke("plot", plotted, "-o", tmp_path / "p.html")
    found = ask(
        tmp_path / "p.html",
        CONTRAST
        + """
        const lines = [...document.querySelectorAll("polyline")];
        const boxes = [...document.querySelectorAll("svg text, polyline")].map((node) => node.getBoundingClientRect());
        const picture = document.querySelector("svg").getBoundingClientRect();
        return {
          lines: lines.length,
          contrast: lines.map((line) => contrast(getComputedStyle(line).stroke, ground)),
          text: contrast(getComputedStyle(document.querySelector("svg text")).fill, ground),
          outside: boxes.filter((box) => box.left < picture.left - 1 || box.right > picture.right + 1 ||
            box.top < picture.top - 1 || box.bottom > picture.bottom + 1).length,
        };
        """,
        scheme,
    )
    assert found["lines"] == 6
    assert found["text"] >= 4.5
    assert min(found["contrast"]) >= 3  # what WCAG 2 asks of graphics
    assert found["outside"] == 0


def test_what_can_go_wrong_with_a_plot(plotted: Path, tmp_path: Path) -> None:
    assert invoke("plot", plotted).exit_code == 2
    assert invoke("plot", plotted, "-o", "p.png").exit_code == 2
    assert invoke("plot", plotted, "-o", tmp_path / "p.svg", "--json").exit_code == 2
    assert invoke("plot", tmp_path / "missing", "-o", "p.svg").exit_code == 3
    (tmp_path / "empty").mkdir()
    result = invoke("plot", tmp_path / "empty", "-o", tmp_path / "p.svg")
    assert result.exit_code == 1
    assert not (tmp_path / "p.svg").exists()
