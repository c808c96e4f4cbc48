"""Work on many chunks at once, in bounded memory, with the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ckptfmt.workers import CORES

__all__ = ["in_order"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int = CORES,
    stop: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Yield `work(item)` for each item, in their order, worked out by threads.

    Items are taken only a little ahead of the results, so that few are in memory. When the caller stops early or
    an item fails, those that are not begun are dropped, and `stop` is called so that those at work can end soon.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="ckptfmt-ops") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            if stop is not None:
                stop()
