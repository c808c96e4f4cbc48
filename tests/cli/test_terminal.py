from __future__ import annotations

import io

import pytest

from ckptfmt_cli.terminal import Terminal


class Screen(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def __init__(self, encoding: str = "utf-8", *, interactive: bool = True) -> None:
        super().__init__(io.BytesIO(), encoding)
        self._interactive = interactive

    def isatty(self) -> bool:
        return self._interactive


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_a_terminal_gets_colour_and_a_pipe_does_not() -> None:
    assert Terminal.of(Screen()).colour
    assert not Terminal.of(Screen(interactive=False)).colour


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("NO_COLOR", "yes"), ("TERM", "dumb")])
def test_a_person_who_wants_no_colour_gets_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert not Terminal.of(Screen()).colour


def test_an_empty_no_color_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")  # https://no-color.org: "when present and not an empty string"
    assert Terminal.of(Screen()).colour


def test_a_pipe_is_80_columns_wide_unless_columns_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Terminal.of(Screen(interactive=False)).width == 80
    monkeypatch.setenv("COLUMNS", "200")
    assert Terminal.of(Screen(interactive=False)).width == 200
    assert Terminal.of(Screen()).width == 200


@pytest.mark.parametrize("nonsense", ["", "0", "-1", "wide"])
def test_a_senseless_width_is_ignored(monkeypatch: pytest.MonkeyPatch, nonsense: str) -> None:
    monkeypatch.setenv("COLUMNS", nonsense)
    assert Terminal.of(Screen(interactive=False)).width == 80


def test_where_only_ascii_arrives_the_ellipsis_is_three_dots() -> None:
    assert Terminal.of(Screen("ascii")).ellipsis == "..."
    assert Terminal.of(Screen("utf-8")).ellipsis == "…"
