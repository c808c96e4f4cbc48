"""Attributes of a loader that passes make refer to other objects, which something else leads to as well.

To put the contents of such an object into the one that a rebuilt loader has in its place would change an object that
others refer to. So the references are saved and restored, as paths, before any contents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckptfmt._core.torch.live_objects.aliases import Aliases, is_copied, put_references
from ckptfmt._core.torch.live_objects.attributes import walk

__all__ = ["Rebinding", "Rebound"]


@dataclass(frozen=True)
class Rebound:
    """What passes have made refer to other objects so far.

    Attributes:
        initial: Path -> another path to its object before the first pass; empty for an object of its own.
        lost: Owner -> path of an object of its own that it cannot be given back.
        around: Paths of the objects.
    """

    initial: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    around: frozenset[str] = frozenset()

    def covers(self, path: str) -> bool:
        """Return whether a path is one of these, or leads through one."""
        return any(path == one or path.startswith((f"{one}.", f"{one}[", f"{one}(")) for one in self.around)


class Rebinding:
    """Tracks references of the loader of a run."""

    def __init__(self) -> None:
        self._first: Aliases | None = None
        self._begun = Aliases(())
        self._latest = self._begun

    def begin(self, loader: object) -> None:
        """Record the references at the start of a pass."""
        self._begun = self._latest = Aliases(walk(loader, repeated=True))
        self._first = self._first or self._begun

    def note(self, loader: object, initial: Mapping[str, str]) -> Rebound:
        """Return what has been rebound, now and before.

        Args:
            loader: The loader.
            initial: What earlier passes have rebound; see `Rebound`.
        """
        slots = list(walk(loader, repeated=True))
        begun, now = self._begun, Aliases(slots)
        self._latest = now
        moved = {slot.path: slot for slot in slots if not now.same(slot.path, begun)}
        moving = {*initial, *moved}
        found, lost, around = dict(initial), dict[str, str](), set[str]()
        for path, slot in moved.items():
            was, partner = begun.partner(path, moving), now.partner(path, moving)
            if was or partner:
                found.setdefault(path, (self._first or begun).partner(path, moving))
                around |= {path, was, partner} - {""} if partner else set()
            if was and not partner and not is_copied(slot.value):
                lost |= {slot.owner: path, path: path}  # and what is in it
        return Rebound(found, lost, frozenset(around))

    def now(self, initial: Mapping[str, str]) -> dict[str, str]:
        """Return, for each path that has been rebound, another path to its object at the last `begin` or `note`."""
        return {path: self._latest.partner(path, initial) for path in initial}

    def at_the_beginning(self, initial: Mapping[str, str]) -> dict[str, str]:
        """Return the same for the start of the pass."""
        return {path: self._begun.partner(path, initial) for path in initial}

    def meet(self, loader: object) -> None:
        """Record the references of a rebuilt loader, before anything is restored."""
        self._first = Aliases(walk(loader, repeated=True))

    def leads_to(self, path: str) -> bool:
        """Return whether a path led to an object of the rebuilt loader, perhaps not as the first one."""
        return self._first is not None and path in self._first

    def put_between(self, loader: object, initial: Mapping[str, str], references: Mapping[str, str]) -> None:
        """Restore references, but not those that other code has set since the loader was rebuilt."""
        first = self._first or Aliases(())
        mine = {path: ref for path, ref in references.items() if first.partner(path, initial) == initial.get(path)}
        put_references(loader, mine)

    def put_now(self, loader: object, references: Mapping[str, str]) -> None:
        """Restore references that the pass itself has not changed since its start."""
        now = Aliases(walk(loader, repeated=True))
        put_references(loader, {path: ref for path, ref in references.items() if now.same(path, self._begun)})
