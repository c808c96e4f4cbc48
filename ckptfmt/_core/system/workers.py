"""Worker threads: each job runs once, results are in order, and a lack of threads only costs speed.

A system can run out of threads (a container's process limit, `ulimit -u`), briefly or permanently, and an interpreter
that is shutting down starts none. The caller then runs the jobs that no worker has claimed.
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

_MOST = 8  # beyond this, disks and memory are the bottleneck
_RANKS = "LOCAL_WORLD_SIZE"  # processes of the job on this machine; torchrun sets it


def cores(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of cores for this process: its share of those in its affinity mask, at most 8."""
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = environment.get(_RANKS, "")
    shared_by = int(ranks) if ranks.isascii() and ranks.isdigit() and len(ranks) < 10 else 1
    return max(1, min(_MOST, present // max(1, shared_by)))


CORES = cores()
"""Number of cores for this process, determined at import."""


class _Job(Generic[T]):
    """A job and its result. Any thread may try to run it; only the first one does.

    `concurrent.futures` has no such claim: an executor that fails to start a thread raises, but leaves the job in its
    queue, where a worker may take it while the caller runs it too.
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
        """Run the job, unless it is already claimed. Never raises: `result` raises the exception."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._result = cast("Callable[[], T]", self._work)()  # only `drop` and the end of `run` clear it
        except BaseException as error:  # noqa: BLE001 - `result` raises it, in the thread that waits
            self._error = error
        finally:
            self._work = None  # it may hold large objects
            self._finished.release()  # needs no memory, so that nobody waits forever when there is none

    def drop(self) -> None:
        """Prevent the job from starting."""
        if self._claim.acquire(blocking=False):
            self._work = None

    def result(self) -> T:
        """Return the result, once. Runs the job if no worker has claimed it, otherwise waits.

        Raises:
            BaseException: The exception that the job raised.
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
    """Worker threads for the jobs of one task, started on demand.

    ```python
    with Workers(CORES, "ckptfmt-read") as workers:
        for result in workers.in_order(jobs):
            ...
    ```

    When the `with` block ends, for any reason, no job is running and none will start: files may be closed and memory
    reused. It waits for running jobs, even after further interrupts.

    Call all methods from one thread. Jobs may use workers of their own.

    Args:
        threads: How many threads to start at most.
        name: Prefix of the thread names.
    """

    def __init__(self, threads: int = CORES, name: str = "ckptfmt") -> None:
        self._most = threads
        self._name = name
        self._threads: list[_Worker] = []
        self._queue: _Queue = SimpleQueue()
        self._idle = threading.Semaphore(0)

    def in_order(self, works: Iterable[Callable[[], T]]) -> Iterator[T]:
        """Yield the results of jobs in order.

        Jobs are taken from `works` only a little ahead of the results, so that few are in memory. When a job fails or
        the caller stops early, jobs that have not started are dropped.
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
        """Hand a job to a worker, if one is idle or can be started."""
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
        except RuntimeError:  # no thread now; the next job may get one
            del self._threads[number:]
        except MemoryError:  # each further try would cost memory, and Python reports each on stderr
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
                except BaseException as caught:  # noqa: BLE001 - raised once no job is running
                    interrupt = caught
        for _ in threads:
            self._queue.put(None)
        if interrupt is not None:
            raise interrupt
        for thread in threads:
            if thread.is_alive():  # an interrupt may have come before it was started
                thread.join()


class _Worker(Thread):
    """A thread that takes jobs from a queue until it finds None there.

    A daemon, so that the interpreter never waits at exit for an idle worker. The consumer of a job's result waits for
    the job.

    Attributes:
        busy: Held while a job is claimed and run.
        retired: Whether to start no more jobs. A running job ends before `busy` can be acquired.
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
    """Yield `work(item)` for each item, in order, computed by threads (see `Workers.in_order`).

    Args:
        work: Called from any thread.
        items: Iterated on the caller's thread.
        threads: How many threads to start at most.
        stop: Called when the iteration ends, even early, so that running jobs can stop soon.
    """
    with Workers(threads, "ckptfmt-ops") as workers:
        try:
            yield from workers.in_order(partial(work, item) for item in items)
        finally:
            if stop is not None:
                stop()
