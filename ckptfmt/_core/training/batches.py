"""The batches of one pass over a loader, and where in the pass this process began."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from types import GeneratorType
from typing import Any, TypeVar

__all__ = ["Batches", "counts_over"]

T = TypeVar("T")


class Batches(Iterator[T]):
    """The remaining batches of one pass, from `Checkpointer.batches`.

    ```python
    batches = ckpt.batches(train_loader)
    for i, (images, labels) in enumerate(tqdm(batches, initial=batches.start), batches.start):
        ...
    ```

    `len()` is that of the loader: the number of batches of the whole pass.
    """

    def __init__(self, loader: Iterable[T], start: int, begin: Callable[[Batches[T]], tuple[Iterator[T], int]]) -> None:
        self._loader = loader
        self._start = start
        self._begin = begin
        self._iterator: Iterator[T] | None = None

    def __next__(self) -> T:
        if self._iterator is None:
            self._iterator, self._start = self._begin(self)
        return next(self._iterator)

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]  # a TypeError of its own tells that it has no length

    @property
    def start(self) -> int:
        """Number of batches of the pass that earlier processes trained on; 0 unless the epoch was resumed."""
        return self._start

    @property
    def resumed(self) -> bool:
        """Whether an earlier process began the pass."""
        return self._start > 0


def counts_over(iterator: object) -> list[int]:
    """Return the present number of each `enumerate` over an iterator, also of one over a generator over it.

    It looks at all objects of the process: call it once, not at each batch.
    """
    counts = []
    for counter in gc.get_objects():
        if type(counter) is enumerate:
            made_of: Any = counter.__reduce__()  # the type, and its arguments: the iterator and the number
            inner, number = made_of[1][:2]
            if inner is iterator or _is_over(inner, iterator):
                counts.append(int(number))
    return counts


def _is_over(inner: object, iterator: object) -> bool:
    """Return whether a generator, such as that of a progress bar, iterates over an iterator."""
    frame = inner.gi_frame if isinstance(inner, GeneratorType) else None
    return frame is not None and any(value is iterator for value in frame.f_locals.values())
