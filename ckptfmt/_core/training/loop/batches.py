"""The batches of one pass over a loader, and where in the pass this process began."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from types import GeneratorType
from typing import Any, TypeVar

from ckptfmt._core.training.loop.cycle import Cycle

__all__ = ["Batches", "companions_of"]

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


def companions_of(batches: Batches[Any]) -> list[str]:
    """Return which iterators beside resumed batches begin anew: `enumerate()`, `islice()`, `zip()`.

    Also those over a generator over the batches, such as a progress bar. This looks at all objects of the process: call
    it once, not at each batch.
    """
    found = []
    for it in gc.get_objects():
        kind = type(it)
        if not (kind is enumerate or kind is islice or kind is zip):  # `in` would ask metaclasses, which may refuse
            continue
        inside = _referents(it)
        if any(inner is batches or _is_over(inner, batches) for inner in inside) and _begins_anew(it, inside, batches):
            found.append(f"{type(it).__name__}()")
    return found


def _begins_anew(it: object, inside: list[object], batches: Batches[Any]) -> bool:
    if type(it) is enumerate:
        made_of: Any = it.__reduce__()  # the type, and its arguments: the iterator and the number
        return int(made_of[1][1]) < batches.start
    if type(it) is zip:
        others = [inner for inner in inside if inner is not batches and not _is_over(inner, batches)]
        return not all(issubclass(type(other), Cycle) or _counts_on(other, batches) for other in others)
    return True


def _counts_on(other: object, batches: Batches[Any]) -> bool:
    number = re.match(r"count\((\d+)", repr(other)) if type(other) is count else None
    return number is not None and int(number[1]) > batches.start  # it gave the first one already


def _referents(it: object) -> list[object]:
    """Return the iterators inside one; `zip` keeps its own in a tuple."""
    found = gc.get_referents(it)
    return [
        inner
        for part in found
        for inner in (part if type(part) is tuple else (part,))
        if any("__next__" in vars(kind) for kind in type.mro(type(inner)))
    ]


def _is_over(inner: object, batches: Batches[Any]) -> bool:
    """Return whether a generator, such as that of a progress bar, iterates over the batches."""
    if type(inner) is not GeneratorType:  # `isinstance` would run code of a class that defines `__class__`
        return False
    frame = inner.gi_frame
    return frame is not None and any(value is batches for value in frame.f_locals.values())
