"""Collection of the state of all ranks on the rank that writes: once where equal, per rank where it differs.

Ranks exchange only digests at first. Each rank takes part in every exchange, even if it fails, and then all fail
together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ckptfmt._core.container import module_versions as versions
from ckptfmt._core.container.per_rank import PerRank
from ckptfmt._core.container.state.flattening import FlatComponent, flatten_component
from ckptfmt._core.system.gc_pause import collector_paused
from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.state.capture import capture_components
from ckptfmt._core.torch.state.divergence import Difference, Excerpt, Node, Path, describe, differences, excerpt, merged
from ckptfmt._core.torch.state.empty_components import HollowComponents
from ckptfmt._core.torch.state.rank_digests import Fingerprint, Subject, subject_of
from ckptfmt._core.torch.tensors.adapter import TORCH_ADAPTERS
from ckptfmt._core.training.report import the_first
from ckptfmt._core.training.stateful import Stateful
from ckptfmt.errors import StateError

__all__ = ["MOST_PER_RANK_BYTES", "Collected", "Collector"]

MOST_PER_RANK_BYTES = 256 << 20
"""Limit of the differences between ranks, in bytes of all ranks together: each rank needs memory for all of it."""


@dataclass(frozen=True)
class Collected:
    """State of a job at one moment, on the rank that writes it.

    Attributes:
        components: The components of this rank, in order.
        text_metadata: The `__metadata__` of their safetensors members.
        own: State specific to each rank, by component.
        found: Differences between ranks.
        excerpts: The differing values of each other rank, by component.
    """

    components: tuple[FlatComponent, ...]
    text_metadata: Mapping[str, Mapping[str, str]]
    own: tuple[Mapping[str, Any], ...]
    found: Mapping[str, Sequence[Difference]] = field(default_factory=dict)
    excerpts: tuple[Mapping[str, Excerpt], ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """Paths of values that differ between ranks, such as `net.avg`."""
        return tuple(difference.place for found in self.found.values() for difference in found)

    def put_together(self) -> tuple[FlatComponent, ...]:
        """Return all components in the form to write.

        Raises:
            StateError: The format does not support a value.
        """
        with collector_paused():
            whole = [
                merged(component, self.found[component.name], [other[component.name] for other in self.excerpts])
                if component.name in self.found
                else component
                for component in self.components
            ]
            for name in self.own[0]:
                values = tuple(own[name] for own in self.own)
                tree = values[0] if len(values) == 1 else PerRank(values)
                whole.append(flatten_component(name, tree, TORCH_ADAPTERS))
        return tuple(whole)


class _Captured(NamedTuple):
    components: tuple[FlatComponent, ...]
    text_metadata: Mapping[str, Mapping[str, str]]


class _Glance(NamedTuple):
    """First message of each rank."""

    own: Mapping[str, Any]
    fingerprints: Mapping[str, Fingerprint]


class Collector:
    """Collects the state of the objects of a run, repeatedly.

    Args:
        components: The objects by name.
    """

    def __init__(self, components: Mapping[str, Stateful]) -> None:
        self._components = components
        self.hollow = HollowComponents(components)
        self._turn: int | None = None
        self._suspects: frozenset[str] = frozenset()

    def collect(self, remembered: Callable[[], Mapping[str, Any]]) -> Collected | None:
        """Return the state of the job on rank 0, None on the others. All ranks call it.

        Args:
            remembered: Returns the state specific to this rank, by component.

        Raises:
            StateError: The format does not support a state, or ranks differ by more than the limit.
            Exception: Raised by a component; RankError on the other ranks.
        """
        if ranks.world().size == 1:
            own, captured = remembered(), self._capture()
            return Collected(captured.components, captured.text_metadata, (own,))
        subjects: dict[str, Subject] = {}
        captures: list[_Captured] = []

        def glance() -> _Glance:
            own, captured = remembered(), self._capture()
            captures.append(captured)
            with collector_paused():
                for component in captured.components:
                    subjects[component.name] = subject_of(self._components[component.name], component)
                turns = {name: None if name in self._suspects else self._turn for name in subjects}
                return _Glance(own, {name: subject.fingerprint(turns[name]) for name, subject in subjects.items()})

        glances = ranks.gather(glance)
        suspicious = ranks.on_rank_0(lambda: _compare([it.fingerprints for it in glances or ()]))
        collected = None if glances is None else Collected(*captures[0], tuple(it.own for it in glances))
        self._turn = 0 if self._turn is None else self._turn + 1
        return self._with_differences(collected, subjects, suspicious) if suspicious else collected

    def _capture(self) -> _Captured:
        with collector_paused():
            state = capture_components(self._components)
            self.hollow.note(state)
            components = tuple(
                flatten_component(name, tree, TORCH_ADAPTERS, per_rank=False) for name, tree in state.items()
            )
        return _Captured(components, versions.text_metadata(state))

    def _with_differences(
        self, collected: Collected | None, subjects: Mapping[str, Subject], suspicious: Mapping[str, bool]
    ) -> Collected | None:
        """Locate the differences in these components, and collect them.

        Args:
            collected: The state collected so far.
            subjects: The components of this rank.
            suspicious: The components that differ, and whether their large tensors do.
        """

        def description() -> dict[str, Node]:
            with collector_paused():
                return {name: describe(subjects[name], large=large) for name, large in suspicious.items()}

        nodes = ranks.gather(description)
        # From now on a sample is not enough for them: a difference outside the sample must not count as equal.
        self._suspects |= {name for name, large in suspicious.items() if large}
        found = ranks.on_rank_0(lambda: _differences(nodes or ()))
        if not found:
            return collected

        def excerpts() -> dict[str, Excerpt]:
            wanted = found if ranks.world().rank else {}  # rank 0 already has its values
            return {name: excerpt(subjects[name].component, _paths(those)) for name, those in wanted.items()}

        gathered = ranks.gather(excerpts)
        if collected is None or gathered is None:
            return None
        return replace(collected, found=found, excerpts=tuple(gathered[1:]))


def _paths(found: Sequence[Difference]) -> list[Path]:
    return [difference.path for difference in found]


def _compare(fingerprints: Sequence[Mapping[str, Fingerprint]]) -> dict[str, bool]:
    """Return the components that differ between ranks, and whether their large tensors do.

    A component that only some ranks have is taken from rank 0, if those ranks agree.

    Raises:
        StateError: Rank 0 lacks a component, or some ranks lack one that differs between others.
    """
    suspicious = {}
    for name in dict.fromkeys(name for rank in fingerprints for name in rank):
        having = [rank for rank, those in enumerate(fingerprints) if name in those]
        if having[0] != 0:
            raise StateError(name, f"a component of rank {having[0]} but not of rank 0, which writes", _SAME)
        known = [fingerprints[rank][name] for rank in having]
        if any(other != known[0] for other in known):
            if len(having) < len(fingerprints):
                lacking = next(rank for rank in range(len(fingerprints)) if rank not in having)
                raise StateError(name, f"differs between ranks, and is missing on rank {lacking}", _SAME)
            suspicious[name] = any(other.large != known[0].large for other in known)
    return suspicious


_SAME = "pass the same components on all ranks"


def _differences(nodes: Sequence[Mapping[str, Node]]) -> dict[str, list[Difference]]:
    """Return the differences between components.

    Raises:
        StateError: They exceed the limit.
    """
    found = {name: differences(name, [rank[name] for rank in nodes]) for name in nodes[0]}
    found = {name: those for name, those in found.items() if those}
    everything = sorted((it for those in found.values() for it in those), key=lambda it: -it.nbytes)
    # In an exchange, every rank's message is padded to the longest.
    most = max((sum(it.sizes[rank] for it in everything) for rank in range(len(nodes))), default=0)
    if most * len(nodes) > MOST_PER_RANK_BYTES:
        places = the_first([difference.place for difference in everything])
        limit = f"{most:,} bytes differ on each of {len(nodes)} ranks; the limit for all is {MOST_PER_RANK_BYTES:,}"
        advice = "make them equal before the save, or remove them from the state"
        raise StateError(places, limit, advice)
    return found
