"""Threads that fail before they begin, by an error injected into Python's own code and by a real lack of memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from types import FrameType

import pytest

from ckptfmt._core.system.threads import Thread

BROKEN = """
import sys, threading
from ckptfmt._core.system.threads import Thread

class Full(dict):
    def __setitem__(self, key, value):
        raise MemoryError

def fail(*_):
    raise MemoryError

match sys.argv[1]:
    case "active":
        threading._active = Full(threading._active)
    case name:
        setattr(threading.Thread, name, fail)
kept = []
sys.unraisablehook = threading.excepthook = kept.append  # as a test runner or a reporter of errors may do
"""

PLACES = ["_bootstrap", "_bootstrap_inner", "_set_ident", "active"]


def run_broken(place: str, script: str) -> str:
    """Run a script in which each new thread fails at a place before its target is called; return what it prints."""
    command = [sys.executable, "-c", BROKEN + script, place]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return ended.stdout


@pytest.mark.parametrize("daemon", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_a_thread_that_fails_before_it_begins_is_noticed(place: str, daemon: bool) -> None:
    script = f"""
called = []
thread = Thread(called.append, (1,), name="test", daemon={daemon})
try:
    thread.start()
except MemoryError:
    print("noticed", called, thread.under_way, thread in threading.enumerate())
thread.wait()
"""
    assert run_broken(place, script) == "noticed [] False False\n"


@pytest.mark.parametrize("place", PLACES)
def test_its_work_is_done_by_whoever_wanted_it(place: str) -> None:
    script = """
from ckptfmt._core.system.workers import in_order
from ckptfmt._core.training.saving.background_saver import Saver, Written
from ckptfmt._core.container.writer import SaveReport
done = []
print(list(in_order(lambda number: done.append(number) or number, range(5), 3)), done)
saver = Saver()
written = Written(SaveReport("a.ckptfmt", "00" * 32, 100, ("net",)))
for step in (1, 2):
    saver.start(step, lambda: written)
    finished = saver.take(wait=True)
    print(finished.step, finished.written is written, finished.error)
"""
    assert run_broken(place, script) == "[0, 1, 2, 3, 4] [0, 1, 2, 3, 4]\n1 True None\n2 True None\n"


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("room", [0, 4 << 20])
@pytest.mark.parametrize("what", ["work", "save", "hold"])
def test_without_memory_the_work_is_done_without_threads(what: str, room: int) -> None:
    command = [sys.executable, "-m", "tests.without_memory", what, str(room)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    found = json.loads(ended.stdout)
    assert found["right"]
    assert bool(found["refused"]) == (room == 0), "or the limit is not what the test is about"


def test_its_end_is_waited_for_and_then_it_is_not_under_way() -> None:
    go_on = threading.Event()
    thread = Thread(go_on.wait, (60,), name="test", daemon=True)
    thread.start()
    assert thread.under_way
    go_on.set()
    thread.wait()
    assert not thread.under_way
    thread.wait()
    thread.join()


def test_the_end_is_noticed_whatever_its_target_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: raised.append(told.exc_type))

    def fail() -> None:
        raise MemoryError

    thread = Thread(fail, name="test", daemon=True)
    thread.start()
    thread.wait()
    thread.join()
    assert raised == [MemoryError]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_in_a_forked_child_it_is_not_under_way() -> None:
    script = """
import os, threading
from ckptfmt._core.system.threads import Thread
go_on = threading.Event()
thread = Thread(go_on.wait, (60,), name="test", daemon=True)
thread.start()
pid = os.fork()
if not pid:
    os._exit(7 if not thread.under_way else 8)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
go_on.set()
print(code, thread.under_way or "over")
"""
    ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert ended.stdout.startswith("7 ")


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals as POSIX does")
def test_a_start_that_is_interrupted_leaves_a_thread_that_can_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    called: list[int] = []
    thread = Thread(called.append, (1,), name="test", daemon=True)
    begin = Thread._begin

    def interrupt_first(self: Thread) -> None:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        assert interrupted.wait(60)
        begin(self)

    monkeypatch.setattr(Thread, "_begin", interrupt_first)
    interrupted = threading.Event()
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            thread.start()
    finally:
        signal.signal(signal.SIGINT, before)
    assert thread.under_way
    interrupted.set()
    thread.wait()
    assert called == [1]
    thread.join()
