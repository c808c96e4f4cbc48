"""Worker threads: each job is done once, results come in order, and too few threads only make it slower.

A system can run out of threads (a container's limit of processes, `ulimit -u`), for a moment or for good, and an
interpreter that is shutting down starts none. The caller then does the jobs that no worker has claimed.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from ckptfmt._core.system.threads import Thread

__all__ = ["CORES", "Workers", "cores", "in_order"]

T = TypeVar("T")
Item = TypeVar("Item")

_MOST = 8  # from here on, disks and memory are what is waited for
_RANKS = "LOCAL_WORLD_SIZE"  # processes of the job on this machine; torchrun sets it


def cores(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many cores this process may use: its share of those that it may run on, 8 at most."""
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = environment.get(_RANKS, "")
    shared_by = int(ranks) if ranks.isascii() and ranks.isdigit() and len(ranks) < 10 else 1
    return max(1, min(_MOST, present // max(1, shared_by)))


CORES = cores()
"""The same, at the start of the process."""


class _Job(Generic[T]):
    """A piece of work with its result. Any thread may try to run it; only the first one does.

    `concurrent.futures` has no such claim: an executor that fails to start a thread raises, but keeps the job in its
    queue, where a worker may find it while the caller does it, too.
    """

    __slots__ = ("_claim", "_error", "_finished", "_result", "_work")

    def __init__(self, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work
        self._claim = threading.Lock()  # never released
        self._finished = threading.Lock()
        self._finished.acquire()
        self._result: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do the work, unless somebody has claimed it. Never raises: the exception goes to `result`."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._result = cast("Callable[[], T]", self._work)()  # only `drop` and the end of `run` take it away
        except BaseException as error:  # noqa: BLE001 - `result` raises it, in the thread that waits
            self._error = error
        finally:
            self._work = None  # what it holds may be large
            self._finished.release()  # needs no memory, so that nobody waits forever when there is none

    def drop(self) -> None:
        """See to it that the work is not begun any more."""
        if self._claim.acquire(blocking=False):
            self._work = None

    def result(self) -> T:
        """Return the result, once. Does the work if no worker has claimed it, else waits.

        Raises:
            BaseException: Whatever the work raised.
        """
        self.run()
        self._finished.acquire()
        result, error = self._result, self._error
        self._result = self._error = None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        return cast("T", result)


_Queue = SimpleQueue["_Job[Any] | None"]


class Workers:
    """Threads for the jobs of one piece of work, started as they are needed.

    ```python
    with Workers(CORES, "ckptfmt-read") as workers:
        for result in workers.in_order(jobs):
            ...
    ```

    At the end of the `with`, however it ends, nothing is running any more and nothing will be begun: files may be
    closed and memory used again. A job that is being done is waited for, even when further interrupts come.

    All methods are for one thread. Jobs may have workers of their own.

    Args:
        threads: How many threads to start at most.
        name: What their names begin with.
    """

    def __init__(self, threads: int = CORES, name: str = "ckptfmt") -> None:
        self._most = threads
        self._name = name
        self._threads: list[_Worker] = []
        self._queue: _Queue = SimpleQueue()
        self._idle = threading.Semaphore(0)

    def in_order(self, works: Iterable[Callable[[], T]]) -> Iterator[T]:
        """Yield the results of jobs in their order.

        Jobs are taken from `works` only a little ahead of the results, so that few of them are in memory. When a job
        fails or the caller stops early, those that are not begun are dropped.
        """
        ahead = 2 * self._most
        waiting: deque[_Job[T]] = deque()
        alone = True
        try:
            for work in works:
                waiting.append(_Job(work))
                if not alone:
                    self._offer(waiting[-1])
                elif len(waiting) > 1:  # a single job is not worth a thread
                    alone = False
                    for job in waiting:
                        self._offer(job)
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for job in waiting:
                job.drop()

    def _offer(self, job: _Job[Any]) -> None:
        """Let a worker do a job, if there is one or one can be started."""
        if len(self._threads) < self._most and not self._idle.acquire(blocking=False):
            self._start()
        if self._threads:
            self._queue.put(job)

    def _start(self) -> None:
        number = len(self._threads)
        try:
            worker = _Worker(f"{self._name}_{number}", self._queue, self._idle)
            self._threads.append(worker)
            worker.start()
        except RuntimeError:  # none is to be had now; there may be one at the next job
            del self._threads[number:]
        except MemoryError:  # each further try would cost some, and Python tells of each on stderr
            del self._threads[number:]
            self._most = number

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._most = 0
        threads, self._threads = self._threads, []
        interrupt: BaseException | None = None
        for thread in threads:
            thread.retired = True
        for thread in threads:
            while True:
                try:
                    with thread.busy:
                        break
                except BaseException as caught:  # noqa: BLE001 - raised when nothing runs any more
                    interrupt = caught
        for _ in threads:
            self._queue.put(None)
        if interrupt is not None:
            raise interrupt
        for thread in threads:
            if thread.is_alive():  # or an interrupt came before it was
                thread.join()


class _Worker(Thread):
    """A thread that takes jobs from a queue until it finds None there.

    A daemon, so that the end of the interpreter never waits for an idle one that was left behind. While there is a
    job, whoever wants its result waits for it.

    Attributes:
        busy: Held while a job is claimed and done.
        retired: Whether to begin no more jobs; one that was begun ends before `busy` can be had.
    """

    def __init__(self, name: str, queue: _Queue, idle: threading.Semaphore) -> None:
        super().__init__(self._work, name=name, daemon=True)
        self.busy = threading.RLock()
        self.retired = False
        self._queue = queue
        self._idle = idle

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            with self.busy:
                if not self.retired:
                    job.run()
            del job  # it must not hold the result while this thread waits
            self._idle.release()


def in_order(
    work: Callable[[Item], T],
    items: Iterable[Item],
    threads: int = CORES,
    stop: Callable[[], None] | None = None,
) -> Iterator[T]:
    """Yield `work(item)` for each item, in their order, worked out by threads (see `Workers.in_order`).

    Args:
        work: Called from any thread.
        items: Taken on the caller's thread.
        threads: How many threads to start at most.
        stop: Called when the results come to an end, also early, so that jobs which are being done can end soon.
    """
    with Workers(threads, "ckptfmt-ops") as workers:
        try:
            yield from workers.in_order(partial(work, item) for item in items)
        finally:
            if stop is not None:
                stop()
