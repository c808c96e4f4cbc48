"""Live objects of a training run, and plans of checkpoints of their state."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from ckptfmt._core.container.planning import SavePlan, choose_codecs, plan_components
from ckptfmt._core.torch.distributed.data_parallel import sharded_by
from ckptfmt._core.torch.live_objects.components import checked_components
from ckptfmt._core.torch.live_objects.live_values import Variables
from ckptfmt._core.torch.live_objects.optimizers import optimizers_in
from ckptfmt._core.torch.run.progress import Moment, progress_tree
from ckptfmt._core.torch.state.collect import Collected, Collector
from ckptfmt._core.torch.state.empty_components import HollowComponents
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.report import the_first
from ckptfmt._core.training.run_record import RunRecord
from ckptfmt.errors import StateError, UsageError

__all__ = ["PROGRESS", "RNG", "VARIABLES", "Run"]

RNG = "rng"
"""Component of the random states: of one process, or a `PerRank`."""
PROGRESS = "progress"
"""Component of the progress: of one process, or a `PerRank`."""
VARIABLES = "variables"
"""Component of the values from `Checkpointer.variables`."""


class Run(RunRecord):
    """Objects of a run, and its metadata for each checkpoint.

    Args:
        directory: Directory of its checkpoints.
        run_id: Id of the run; None if not known yet.
        components: The objects by name.
        codec: Compression of the components.
        options: Names of the caller's options, to recognize one among the components.

    Attributes:
        components: The objects by name.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        run_id: str | None,
        components: object,
        codec: str | Mapping[str, str],
        options: Collection[str] = (),
    ) -> None:
        super().__init__(directory, run_id)
        self.components = checked_components(components, (RNG, PROGRESS), options)
        _refuse_sharded(self.components)
        _require_optimizers(self.components)
        self._codec = codec
        self._collector = Collector(self.components)
        self._reported: set[str] = set()
        try:
            choose_codecs(codec, [*self.components, RNG, PROGRESS, VARIABLES])
        except StateError as error:
            raise UsageError(str(error)) from None

    def add_variables(self, variables: Variables) -> None:
        """Add the variables of the loop to the components.

        Raises:
            UsageError: There is a component of that name.
        """
        if VARIABLES in self.components:
            raise UsageError(f"there is a component {VARIABLES!r} already; call variables() once, with all of them")
        self.components |= checked_components({VARIABLES: variables})
        self._collector = Collector(self.components)

    @property
    def hollow(self) -> HollowComponents:
        """Monitor of components with an empty state."""
        return self._collector.hollow

    def gather(self, moment: Callable[[], Moment]) -> Callable[[Mapping[str, float]], SavePlan] | None:
        """Gather the state of all ranks; return, on rank 0, a function that plans a checkpoint with given metrics.

        All ranks call it.

        Args:
            moment: Returns this rank's random states and progress.

        Returns:
            On rank 0 a function; see `_plan` for what it raises. On the others None.

        Raises:
            StateError: The format does not support a component's state, or ranks differ by more than the limit.
            Exception: Raised by a component or `moment`; RankError on the other ranks.
        """

        def own() -> dict[str, Any]:
            progress, random = moment()
            return {RNG: random, PROGRESS: progress_tree(progress)}

        collected = self._collector.collect(own)
        return None if collected is None else partial(self._plan, collected)

    def _plan(self, collected: Collected, metrics: Mapping[str, float]) -> SavePlan:
        """Return the plan of a checkpoint.

        Args:
            collected: The state of all ranks.
            metrics: Values to record.

        Raises:
            StateError: The format does not support a component's state.
            SupersededError: Another process has taken over the run.
            StorageError: The run is not claimed yet, and cannot be claimed now.
        """
        place = collected.own[0][PROGRESS]
        metadata = self.metadata(place["step"], place["epoch"], metrics)
        components = collected.put_together()
        self._report(collected)
        return plan_components(
            components,
            metadata=metadata,
            codec=self._codec,
            text_metadata=collected.text_metadata,
            per_rank=collected.places,
        )

    def _report(self, collected: Collected) -> None:
        """Report, once each, values that differ between ranks, and mappings that are saved as plain dicts."""
        new = [place for place in collected.places if place not in self._reported]
        if new:
            self._reported.update(new)
            count = len(collected.own)
            notify(f"differs between ranks and is saved per rank: {the_first(new)} ({count} ranks)", logging.INFO)
        for component in collected.components:
            if isinstance(self.components[component.name], LRScheduler):  # their mapping types are restored
                continue
            for kind, place in component.turned_to_dicts.items():
                if place not in self._reported:
                    self._reported.add(place)
                    found = f"{place}: a {kind.__name__} is saved as a plain dict and restored as one"
                    notify(f"{found}; convert it to {kind.__name__} in load_state_dict()", logging.INFO)


def _require_optimizers(components: Mapping[str, object]) -> None:
    """Check that the optimizer of each scheduler is saved, too."""
    others = [component for component in components.values() if not isinstance(component, LRScheduler)]
    known = {id(optimizer) for optimizer in optimizers_in(others)}
    for name, component in components.items():
        scheduled = optimizers_in([getattr(component, "optimizer", None)] if isinstance(component, LRScheduler) else [])
        if any(id(optimizer) not in known for optimizer in scheduled):
            raise UsageError(
                f"component {name!r} schedules an optimizer that is not among the components; add it: "
                '"optimizer": optimizer'
            )


def _refuse_sharded(components: Mapping[str, object]) -> None:
    for name, component in components.items():
        sharding = sharded_by(component)
        if sharding is not None:
            found = (
                f"component {name!r} is sharded over the ranks by {sharding}, and sharded state is not supported yet"
            )
            raise UsageError(f"{found}; train it with DistributedDataParallel and a separate optimizer on each rank")
