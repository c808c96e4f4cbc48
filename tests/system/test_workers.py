"""Jobs on worker threads: each done once, in order, whatever threads there are, and none left behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

from ckptfmt._core.system.batches import batches
from ckptfmt._core.system.workers import Workers, in_order


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Return a function that lets only so many threads start; it returns a list that has an entry for each refusal."""
    start = threading.Thread.start

    def limit(count: int) -> list[int]:
        left = [None] * count
        refused: list[int] = []

        def start_if_room(thread: threading.Thread) -> None:
            if not left:
                refused.append(1)
                raise RuntimeError("can't start new thread")
            left.pop()
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_if_room)
        return refused

    return limit


def test_results_come_in_order_and_what_is_not_wanted_is_dropped() -> None:
    assert list(in_order(lambda number: number * 2, range(100), 3)) == list(range(0, 200, 2))
    begun: list[int] = []
    stopped: list[bool] = []
    results = in_order(begun.append, range(1000), 2, lambda: stopped.append(True))
    assert isinstance(results, Iterator)
    next(results)
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(begun) < 20
    assert stopped == [True]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 // number, [1, 0, 1]))


@pytest.mark.parametrize("room", range(6))
def test_each_job_is_done_once_however_few_threads_there_are(room_for: Callable[[int], list[int]], room: int) -> None:
    refused = room_for(room)
    done: Counter[int] = Counter()
    lock = threading.Lock()

    def work(number: int) -> int:
        with lock:
            done[number] += 1
        time.sleep(0)  # lets other threads in
        return number

    for _ in range(20):
        done.clear()
        assert list(in_order(work, range(300), 8)) == list(range(300))
        assert done == Counter(range(300))
    assert refused


def test_jobs_may_have_workers_of_their_own_when_there_are_no_threads(room_for: Callable[[int], list[int]]) -> None:
    for room in (0, 1, 2):
        refused = room_for(room)
        sums = in_order(lambda count: sum(in_order(abs, range(count), 4)), range(30), 4)
        assert list(sums) == [sum(range(count)) for count in range(30)]
        assert refused


@pytest.mark.parametrize("refusal", [RuntimeError("can't start new thread"), MemoryError()])
@pytest.mark.parametrize("place", ["__init__", "start"])
def test_a_thread_that_cannot_be_made_is_done_without(
    monkeypatch: pytest.MonkeyPatch, refusal: Exception, place: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(threading.Thread, place, refuse)
    assert list(in_order(str, range(10), 4)) == [str(number) for number in range(10)]


def test_a_single_job_starts_no_thread(room_for: Callable[[int], list[int]]) -> None:
    refused = room_for(0)
    assert list(in_order(str, [1], 4)) == ["1"]
    assert not refused


@pytest.mark.parametrize("room", [0, 1, 8])
@pytest.mark.parametrize("error", [MemoryError, OSError, KeyboardInterrupt, SystemExit])
def test_what_a_job_raises_is_raised_for_its_result(
    room_for: Callable[[int], list[int]], room: int, error: type[BaseException]
) -> None:
    room_for(room)
    done: list[int] = []

    def work(number: int) -> None:
        if number == 5:
            raise error("five")
        done.append(number)

    results = in_order(work, range(1000), 4)
    for _ in range(5):
        next(results)
    with pytest.raises(error, match="five"):
        next(results)
    assert 5 not in done
    assert len(done) < 50  # the rest is dropped


def test_afterwards_nothing_is_running_and_nothing_begins() -> None:
    running: set[int] = set()
    most: list[int] = []

    def work(number: int) -> int:
        running.add(number)
        most.append(len(running))
        time.sleep(0.002)
        running.remove(number)
        if number == 3:
            raise OSError("three")
        return number

    for _ in range(20):
        with pytest.raises(OSError, match="three"), Workers(4, "test-workers") as workers:
            list(workers.in_order(partial(work, number) for number in range(100)))
        assert not running
        assert not any(thread.name.startswith("test-workers") for thread in threading.enumerate())
    assert max(most) > 1


def test_results_that_are_asked_for_too_late_are_worked_out_by_the_caller() -> None:
    with Workers(2) as workers:
        results = workers.in_order(partial(pow, number, 2) for number in range(20))
        first = next(results)
    assert [first, *results] == [number**2 for number in range(20)]


def wait_until(condition: Callable[[], object]) -> None:
    for _ in range(10_000):
        if condition():
            return
        time.sleep(0.001)
    pytest.fail("it never came to this")


def test_further_interrupts_do_not_leave_a_job_behind() -> None:
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    main = threading.main_thread()
    finished: list[int] = []
    workers = Workers(2)

    def send() -> None:
        assert main.ident is not None
        seen = len(interrupts)
        signal.pthread_kill(main.ident, signal.SIGINT)
        wait_until(lambda: len(interrupts) > seen)

    begun = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            begun.set()
            send()  # while the caller waits for the result
            wait_until(lambda: not workers._threads)
            send()  # while it waits for this job to end
            send()
        finished.append(number)

    def works() -> Iterator[Callable[[], None]]:
        yield partial(work, 0)
        yield partial(work, 1)
        assert begun.wait(60)  # a worker has it, and not the caller

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), workers:
            list(workers.in_order(works()))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(interrupts) == 3
    assert 0 in finished


def run_script(script: str) -> str:
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_jobs_are_done_while_the_interpreter_shuts_down() -> None:
    """In the thread that still runs, and in what runs after it."""
    script = """
import atexit, threading
from ckptfmt._core.system.workers import in_order
def work(when):
    print(when, sum(in_order(abs, range(100), 4)))
def later():
    threading.main_thread().join()
    work("thread")
threading.Thread(target=later).start()
atexit.register(work, "exit")
"""
    assert run_script(script) == "thread 4950\nexit 4950\n"


def test_results_that_nobody_asks_for_do_not_keep_the_interpreter_from_ending() -> None:
    script = """
import sys
from ckptfmt._core.system.workers import in_order
sys.kept = in_order(abs, range(100), 4)
next(sys.kept)
"""
    assert run_script(script) == ""


def test_there_is_one_place_that_starts_threads() -> None:
    """And three that have some: workers, saves and leases. Each does without where the system has none left."""
    package = Path(__file__).parents[2]
    sources = {
        str(path.relative_to(package)): path.read_text(encoding="utf-8")
        for path in [*package.glob("ckptfmt/**/*.py"), *package.glob("cli/**/*.py")]
        if path.parent.name != "testing"
    }

    def modules_with(pattern: str) -> set[str]:
        return {Path(name).stem for name, text in sources.items() if re.search(pattern, text)}

    assert modules_with(r"threading\.Thread\b|ThreadPool|start_new_thread") == {
        "threads",
        "exception_names",  # a list of names
    }
    assert modules_with(r"import Thread\b") == {"workers", "background_saver", "hold"}


def test_small_items_share_a_batch_and_none_is_lost_or_moved() -> None:
    sizes = [1, 1, 8, 3, 3, 3, 0, 1]
    assert list(batches(sizes, int, 8)) == [[1, 1, 8], [3, 3, 3], [0, 1]]
    assert list(batches([], int, 8)) == []
