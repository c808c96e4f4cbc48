"""What a forked child must drop: signal handlers, open files and locks inherited from its parent.

`os.fork` copies the process with one thread. `DataLoader` workers, `multiprocessing.Pool` and everything else with the
start method `fork` are such children. They never save, so they must not touch what the parent's saves use: a shared
lock would outlive the parent, and a file removed by the child would be missing in the parent. Children started by
`spawn`, `forkserver` or `subprocess` inherit none of this.
"""

from __future__ import annotations

import contextlib
import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["Inherited", "OwnDescriptor", "release_in_children"]


class Inherited(Protocol):
    """A resource that a forked child has a copy of and must not use."""

    def release_in_child(self) -> None:
        """Drop the parent's resource without any change that the parent sees. Called in the child."""


_inherited: WeakSet[Inherited] = WeakSet()


def release_in_children(thing: Inherited) -> None:
    """Call `release_in_child` of an object in every child forked during the object's lifetime."""
    _inherited.add(thing)


def _release() -> None:
    for thing in list(_inherited):
        with contextlib.suppress(Exception):  # a failure here must not break the child
            thing.release_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release)


class OwnDescriptor:
    """An open file that no forked child keeps open.

    Args:
        number: File descriptor. This object owns it from now on.

    Attributes:
        number: File descriptor; None once it is closed.
    """

    def __init__(self, number: int) -> None:
        self.number: int | None = number
        release_in_children(self)

    @property
    def opened(self) -> int:
        """The descriptor. The file must be open."""
        assert self.number is not None, "the descriptor is closed"
        return self.number

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""
        number, self.number = self.number, None
        if number is not None:
            os.close(number)

    def release_in_child(self) -> None:
        """Close the child's copy. The parent's lock stays."""
        self.close()
