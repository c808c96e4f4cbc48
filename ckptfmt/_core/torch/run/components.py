"""The live objects of a training run, and their state at one moment as a plan to be written."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from ckptfmt._core.container.planning import SavePlan, choose_codecs, plan_components
from ckptfmt._core.torch.distributed.data_parallel import sharded_by
from ckptfmt._core.torch.live_objects.components import checked_components
from ckptfmt._core.torch.run.progress import Moment, progress_tree
from ckptfmt._core.torch.state.collect import Collected, Collector
from ckptfmt._core.torch.state.empty_components import HollowComponents
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.report import the_first
from ckptfmt._core.training.run_record import RunRecord
from ckptfmt.errors import StateError, UsageError

__all__ = ["PROGRESS", "RNG", "Run"]

RNG = "rng"
"""Component of the random states: of one process, or a `PerRank`."""
PROGRESS = "progress"
"""Component of the place in the run: of one process, or a `PerRank`."""


class Run(RunRecord):
    """The objects of a run, and the facts about it that are written into each checkpoint.

    Args:
        directory: Where its checkpoints are.
        run_id: Its id, if it is known.
        components: The objects by name.
        codec: How they are compressed.

    Attributes:
        components: The objects by name.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        run_id: str | None,
        components: object,
        codec: str | Mapping[str, str],
    ) -> None:
        super().__init__(directory, run_id)
        self.components = checked_components(components, (RNG, PROGRESS))
        _refuse_sharded(self.components)
        self._codec = codec
        self._collector = Collector(self.components)
        self._reported: set[str] = set()
        try:
            choose_codecs(codec, [*self.components, RNG, PROGRESS])
        except StateError as error:
            raise UsageError(str(error)) from None

    @property
    def hollow(self) -> HollowComponents:
        """Those of the components that have nothing to save."""
        return self._collector.hollow

    def gather(self, moment: Callable[[], Moment]) -> Callable[[Mapping[str, float]], SavePlan] | None:
        """Look at the state of all ranks; return, on rank 0, what plans a checkpoint of it with some metrics.

        All ranks call it.

        Args:
            moment: Returns what this rank remembers.

        Returns:
            On rank 0 a function; see `_plan` for what it raises. On the others None.

        Raises:
            StateError: A component's state cannot be expressed, or more differs between ranks than may be saved.
            Exception: What a component or `moment` raised; RankError on the ranks where it did not.
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
            metrics: Values to note.

        Raises:
            StateError: A component's state cannot be expressed.
            SupersededError: Another process has taken over the run.
            StorageError: The run could not be claimed so far, and cannot now.
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
        """Report, once each, values that differ between ranks, and mappings that are restored as plain dicts."""
        new = [place for place in collected.places if place not in self._reported]
        if new:
            self._reported.update(new)
            count = len(collected.own)
            notify(f"differs between ranks and is saved per rank: {the_first(new)} ({count} ranks)", logging.INFO)
        for component in collected.components:
            if isinstance(self.components[component.name], LRScheduler):  # they get back what they had
                continue
            for kind, place in component.turned_to_dicts.items():
                if place not in self._reported:
                    self._reported.add(place)
                    found = f"{place}: a {kind.__name__} is saved as a plain dict and restored as one"
                    notify(f"{found}; make a {kind.__name__} of it in load_state_dict()", logging.INFO)


def _refuse_sharded(components: Mapping[str, object]) -> None:
    for name, component in components.items():
        sharding = sharded_by(component)
        if sharding is not None:
            found = f"component {name!r} is sharded over the ranks by {sharding}, and sharded state cannot be saved yet"
            raise UsageError(f"{found}; train it with DistributedDataParallel and an optimizer of each rank's own")
