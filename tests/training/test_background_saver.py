"""The thread of a background save: with no thread to be had, with interrupts, and the timer that wants one, too."""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import pytest

from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.training.saving.background_saver import Saver, Written, wait_for_all
from ckptfmt._core.training.watchdog import HangTimer

REPORT = Written(SaveReport("a.ckptfmt", "00" * 32, 100, ("net",)))


@pytest.mark.parametrize("refusal", [RuntimeError("can't start new thread"), MemoryError()], ids=repr)
def test_without_a_thread_the_caller_saves(monkeypatch: pytest.MonkeyPatch, refusal: Exception) -> None:
    def refuse(_: threading.Thread) -> None:
        raise refusal

    monkeypatch.setattr(threading.Thread, "start", refuse)
    saver = Saver()
    saved_by: list[threading.Thread] = []

    def write() -> Written:
        saved_by.append(threading.current_thread())
        return REPORT

    for step in range(3):
        saver.start(step, write)
        assert not saver.busy
        finished = saver.take()
        assert finished is not None
        assert (finished.step, finished.written, finished.error) == (step, REPORT, None)
    assert saved_by == [threading.main_thread()] * 3
    wait_for_all()


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals as POSIX does")
@pytest.mark.parametrize("waiting", ["take", "wait_for_all"])
def test_an_interrupted_wait_does_not_take_the_save_for_ended(waiting: str) -> None:
    """Or the next save would begin, in the same memory, while this one is being written."""
    saver = Saver()
    interrupted = threading.Event()
    go_on = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def write() -> Written:
        main = threading.main_thread().ident
        assert main is not None
        assert about_to_wait.wait(60)
        for _ in range(100):  # until it waits
            time.sleep(0.02)
            signal.pthread_kill(main, signal.SIGINT)
            if interrupted.wait(0.1):
                break
        assert go_on.wait(60)
        return REPORT

    about_to_wait = threading.Event()
    wait: Callable[[], object] = wait_for_all if waiting == "wait_for_all" else lambda: saver.take(wait=True)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        saver.start(1, write)
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - whenever it comes
            about_to_wait.set()
            wait()
    finally:
        signal.signal(signal.SIGINT, before)
    assert saver.busy
    assert saver.take() is None
    go_on.set()
    finished = saver.take(wait=True)
    assert finished is not None
    assert finished.written == REPORT


def test_a_timer_without_a_thread_is_told_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_for: list[float] = []
    refusing = True

    def set_timer(seconds: float, **_: object) -> None:
        if refusing:
            raise RuntimeError("unable to start watchdog thread")
        set_for.append(seconds)

    monkeypatch.setattr(faulthandler, "dump_traceback_later", set_timer)
    timer = HangTimer(1000.0)
    for _ in range(3):
        timer.reset()
    assert capsys.readouterr().err.count("hang_timeout") == 1
    refusing = False
    timer.reset()
    assert len(set_for) == 1
    timer.reset()  # it was set just now
    assert len(set_for) == 1
    timer.stop()
    refusing = True
    timer.reset()
    assert capsys.readouterr().err.count("hang_timeout") == 1
    timer.stop()
