from __future__ import annotations

import io

import pytest

from ckptfmt._core.ops.progress import Progress
from ckptfmt_cli.progress import ProgressLine, progress_text
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.text import cells

GIB = 1 << 30


def test_share_bytes_rate_and_time_left_are_shown() -> None:
    text = progress_text(Progress("runs/last.ckptfmt", 1 * GIB, 4 * GIB), 2.0, Terminal(width=100))
    assert text == "████░░░░░░░░░░░░ 25%  1.0 GiB of 4.0 GiB  512 MiB/s  6 s left  last.ckptfmt"


def test_a_long_name_gives_way_to_the_facts() -> None:
    progress = Progress("runs/checkpoint_of_the_best_epoch_so_far.ckptfmt", 15 * GIB, 160 * GIB)
    text = progress_text(progress, 30.0, Terminal(width=80, unicode=False))
    assert text == "#...............  9%  15.0 GiB of 160 GiB  512 MiB/s  4 min left  check...ptfmt"
    assert len(text) == 79


@pytest.mark.parametrize("done", [0, 4 * GIB])
@pytest.mark.parametrize("elapsed", [0.0, 1e6])
@pytest.mark.parametrize("width", [20, 80])
def test_beginning_and_end_are_shown_and_the_line_fits(done: int, elapsed: float, width: int) -> None:
    text = progress_text(Progress("a\x1b[2J" + "重" * 100, done, 4 * GIB), elapsed, Terminal(width, unicode=False))
    assert cells(text) < width
    assert text.isprintable()


def test_nothing_to_do_is_no_trouble() -> None:
    assert "0 B of 0 B" in progress_text(Progress("empty.ckptfmt", 0, 0), 1.0, Terminal(width=100))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_line_waits_is_written_over_and_leaves_nothing() -> None:
    stream, clock = io.StringIO(), Clock()
    line = ProgressLine(stream, clock)
    half = Progress("a.ckptfmt", GIB, 2 * GIB)
    line.update(half)
    line.hide()
    assert stream.getvalue() == ""  # short work shows nothing
    clock.now = 1.0
    line.update(half)
    clock.now = 1.01
    line.update(half)  # too soon for another one
    clock.now = 2.0
    line.update(half)
    line.hide()
    line.hide()
    lines = stream.getvalue().split("\r\x1b[K")
    assert [bool(text) for text in lines] == [False, True, True, False]
    assert "\n" not in stream.getvalue()
