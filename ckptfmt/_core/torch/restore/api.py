"""Restoring a checkpoint into live objects, directly into their memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Never

from ckptfmt._core.container.chunk_reader import ReadTarget
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.storage.local.retries import Patience
from ckptfmt._core.system.gc_pause import collector_paused
from ckptfmt._core.torch import save_load as io
from ckptfmt._core.torch.distributed.data_parallel import keep_own_buffers
from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.live_objects.components import checked_components, name_list, refuse_keywords
from ckptfmt._core.torch.restore.in_place import Placement
from ckptfmt._core.torch.restore.placeholders import Skeletons
from ckptfmt._core.torch.restore.plan import ComponentPlan, LoadModule, RestorePlan, plan_restore
from ckptfmt._core.torch.restore.read_targets import staging_buffer
from ckptfmt._core.training.report import ComponentReport
from ckptfmt._core.training.stateful import Stateful
from ckptfmt.errors import RestoreError, error_for

__all__ = ["ComponentStates", "RestoreReport", "restore"]

_SOON_READ_BYTES = 256 << 20


class ComponentStates:
    """States of components in an open checkpoint, read except for large tensors, which are read in place later.

    With the same number of ranks as at the save, each rank has its own of the values that differ between ranks.

    Args:
        checkpoint: The checkpoint. It must stay open.
        takers: The live objects by name. The state for anything else, such as None, is read whole.

    Attributes:
        trees: The states in the checkpoint, by name.

    Raises:
        FormatError: A state is malformed; IntegrityError if a byte of what was read has changed.
        StorageError: The file cannot be read.
    """

    def __init__(self, checkpoint: Checkpoint, takers: Mapping[str, object]) -> None:
        self._checkpoint = checkpoint
        self._world = ranks.world()
        self._skeletons = Skeletons(checkpoint, self._world)
        with collector_paused():
            self.trees = {
                name: self._skeletons.read(name, taker) for name, taker in takers.items() if name in checkpoint
            }

    def plan(
        self,
        takers: Mapping[str, Stateful],
        trees: Mapping[str, Any],
        allow_mismatch: Collection[str],
        refused: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> RestorePlan:
        """Compare the trees, or a selection of them, with the objects to restore (see `plan_restore`)."""
        with collector_paused():
            plan = plan_restore(
                takers,
                trees,
                allow_mismatch,
                same=self._skeletons.same_bits,
                refused=refused,
                path=self._checkpoint.path,
            )
        return replace(plan, components=tuple(map(self._with_ranks, plan.components)))

    def rank_count(self, name: str) -> int:
        """Return for how many ranks a component has values: 1 if all are shared, 0 if the number varies by path."""
        counts = set(self._skeletons.per_rank.get(name, {}).values()) or {1}
        return counts.pop() if len(counts) == 1 else 0

    def _with_ranks(self, plan: ComponentPlan) -> ComponentPlan:
        """Return a plan with the values that this rank restores as its own, and those that it cannot."""
        counts = self._skeletons.per_rank.get(plan.name, {})
        size = self._world.size
        here = "1 rank is" if size == 1 else f"{size} ranks are"
        lost = [
            f"{place}: saved per rank by {count} ranks, and {here} here; allow_mismatch takes rank 0's value"
            for place, count in counts.items()
            if count != size
        ]
        own = tuple(place for place, count in counts.items() if count == size)
        return replace(plan, differences=(*plan.differences, *lost), per_rank=own)

    def restore(
        self,
        plan: RestorePlan,
        progress: Callable[[int], None] | None = None,
        patience: Patience | None = None,
    ) -> tuple[ComponentReport, ...]:
        """Read the data directly to its destinations in a plan from `plan`, and verify it.

        Args:
            plan: The plan.
            progress: Called with the number of bytes read since its last call.
            patience: How often to retry failed reads, each time from the start; None: no retries.

        Raises:
            MismatchError: The data does not fit its destinations. Nothing was changed.
            FormatError: A byte has changed; a note says that the objects are now a mixture of old and new.
            StorageError: The file cannot be read; the same note is attached.
            RestoreError: A component raised.
        """
        plan.require_fit()
        with collector_paused():
            placement = Placement(plan, self._skeletons, self._checkpoint.path)
        names = [component.name for component in plan.components]
        targets = {name: placement.targets.get(name, {}) for name in names if name in self.trees}
        try:
            patience = Patience(pauses=()) if patience is None else patience
            patience(partial(_fill, self._checkpoint, targets, progress), self._checkpoint.path)
            with collector_paused():
                reports = placement.finish()
                for component in plan.components:
                    _keep_own_buffers(component)
                return reports
        except RestoreError:  # it already says what was changed
            raise
        except BaseException as error:
            error.add_note(
                f"{self._checkpoint.path}: raised during the restore: {', '.join(names)} may now be part old and "
                "part new; do not train with them; restore another checkpoint into them, or rebuild them"
            )
            raise


@dataclass(frozen=True)
class RestoreReport:
    """Report of `restore`.

    Attributes:
        path: The checkpoint.
        identity: Its identity, 64 hex digits.
        step: Optimizer steps done, if recorded.
        epoch: Epochs finished, if recorded.
        components: Report of each given component.
        unexpected: Names of components that are in the checkpoint but were not given.
    """

    path: str
    identity: str
    step: int | None
    epoch: int | None
    components: tuple[ComponentReport, ...]
    unexpected: tuple[str, ...]


def restore(
    path: str | os.PathLike[str],
    components: Mapping[str, object] | None = None,
    *,
    allow_mismatch: Collection[str] = (),
    verify_first: bool = False,
    progress: Callable[[int], None] | None = None,
    **unknown: Never,
) -> RestoreReport:
    """Restore live objects from a checkpoint, without a second copy of it in memory.

    Data is read directly into the memory of parameters and optimizer state, on any device, and every byte is verified.
    This takes less than 64 MiB of additional memory, apart from optimizer state that does not exist yet. Objects with
    hooks or custom loading are restored through `load_state_dict`.

    Names, shapes, dtypes and options are compared first. If anything does not fit, one error lists all differences, and
    nothing is changed. Data is verified while it is read. If some of it is damaged, the error names every damaged
    tensor, and the objects are a mixture of old and new: do not train with them; restore another checkpoint into them,
    or rebuild them. With `verify_first`, data is read twice, and nothing is changed unless all of it is sound.

    Args:
        path: The checkpoint.
        components: Objects to restore, by the names under which they were saved: modules, optimizers, schedulers,
            scalers, your own.
        allow_mismatch: Names of components that may differ: only what fits is restored.
        verify_first: Verify all data before the first object is changed.
        progress: Called with the number of bytes read since its last call.
        unknown: Not for use; it lets an unknown keyword end in a clear error.

    Raises:
        MismatchError: The checkpoint does not fit the objects; lists every reason. Nothing was changed.
        IntegrityError: Data is damaged; `problems` names every tensor, the notes say what was changed.
        FormatError: The file is not valid, or needs a newer version. Nothing was changed.
        StorageError: The file cannot be read.
        RestoreError: A component raised; `component` names it, `changed` lists what was changed.
        UsageError: `components` is not a mapping of names to objects with `state_dict()` and `load_state_dict()`.
    """
    refuse_keywords("restore(path", ("allow_mismatch", "verify_first", "progress"), components, unknown)
    allowed = name_list("allow_mismatch", allow_mismatch)
    takers = checked_components(components)
    with io.open(path) as checkpoint:
        # After a pause, the collector goes through all that was made meanwhile: once, if the rest is soon done.
        with collector_paused() if checkpoint.file_bytes <= _SOON_READ_BYTES else nullcontext():
            reports = _restore(checkpoint, takers, allowed, progress, verify_first=verify_first)
        return RestoreReport(
            path=checkpoint.path,
            identity=checkpoint.identity,
            step=checkpoint.metadata.step,
            epoch=checkpoint.metadata.epoch,
            components=reports,
            unexpected=tuple(name for name in checkpoint if name not in takers),
        )


def _restore(
    checkpoint: Checkpoint,
    takers: Mapping[str, Stateful],
    allow_mismatch: Collection[str],
    progress: Callable[[int], None] | None,
    *,
    verify_first: bool,
) -> tuple[ComponentReport, ...]:
    with collector_paused():
        states = ComponentStates(checkpoint, takers)
        plan = states.plan(takers, states.trees, allow_mismatch)
        plan.require_fit()
    if verify_first:
        _fill(checkpoint, {name: {} for name in states.trees}, None)
    return states.restore(plan, progress)


def _keep_own_buffers(plan: ComponentPlan) -> None:
    if plan.per_rank and isinstance(plan.load, LoadModule):
        keep_own_buffers(plan.load.module, {place.removeprefix(f"{plan.name}.") for place in plan.per_rank})


def _fill(
    checkpoint: Checkpoint, targets: Mapping[str, Mapping[str, ReadTarget]], progress: Callable[[int], None] | None
) -> None:
    problems = checkpoint.fill(targets, progress=progress, make_buffer=staging_buffer)
    if problems:
        raise error_for(problems, checkpoint.path)
