"""What a forked child must let go of: it inherits its parent's handlers of signals, open files and locks.

Children by `os.fork` are copies of the process with one thread: the workers of a `DataLoader`, a `multiprocessing.Pool`
and everything else by the start method `fork`. They run no save, so what belongs to the saves of the parent is not
theirs: a lock that they shared would outlive it, a file that they removed would be missing. Children by `spawn`,
`forkserver` or `subprocess` begin anew and inherit nothing.
"""

from __future__ import annotations

import contextlib
import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["Inherited", "OwnDescriptor", "let_go_in_children"]


class Inherited(Protocol):
    """Something that a forked child has a copy of and must not use."""

    def let_go(self) -> None:
        """Forget what is the parent's, and change nothing that the parent sees. Called in the child."""


_inherited: WeakSet[Inherited] = WeakSet()


def let_go_in_children(thing: Inherited) -> None:
    """Call `let_go` of a thing in every child that is forked as long as the thing is there."""
    _inherited.add(thing)


def _let_go() -> None:
    for thing in list(_inherited):
        with contextlib.suppress(Exception):  # the child has to do without ckptfmt, not without itself
            thing.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


class OwnDescriptor:
    """An open file that no forked child keeps open.

    Args:
        number: Its descriptor. It is this object's from now on.

    Attributes:
        number: The same; None once it is closed.
    """

    def __init__(self, number: int) -> None:
        self.number: int | None = number
        let_go_in_children(self)

    @property
    def opened(self) -> int:
        """Its descriptor. It must not be closed."""
        assert self.number is not None, "it is closed"
        return self.number

    def close(self) -> None:
        """Close it. A second call does nothing."""
        number, self.number = self.number, None
        if number is not None:
            os.close(number)

    def let_go(self) -> None:
        """Close the child's copy. The lock of the parent's stays."""
        self.close()
