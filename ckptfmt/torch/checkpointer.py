"""The helper for the training loop: saves when due, and goes on exactly where a killed run stopped."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import SupportsFloat, TypeVar

import torch

from ckptfmt.errors import FormatError, StorageError
from ckptfmt.format.index import is_component_name
from ckptfmt.reader import Checkpoint
from ckptfmt.storage.paths import local_path
from ckptfmt.torch import io, rng
from ckptfmt.torch.failures import UsageError
from ckptfmt.torch.loop import Loop
from ckptfmt.torch.progress import Progress
from ckptfmt.torch.report import ResumeReport, render_report
from ckptfmt.torch.restoring import Stateful, check_components, restore_components
from ckptfmt.torch.selection import Selection, VerifiedCheckpoint, load_newest, select_checkpoints
from ckptfmt.writer import SaveReport, make_metadata

__all__ = ["Checkpointer"]

T = TypeVar("T")

_RNG = "rng"
_PROGRESS = "progress"


class Checkpointer:
    """Saves a training run, and resumes it so that it ends bit-identical to one that was never interrupted.

    ```python
    ckpt = Checkpointer(train_url, net=net, optimizer=optimizer, scheduler=scheduler, save_interval_steps=500)
    ckpt.resume()
    for epoch in ckpt.epochs(args.epochs):
        for images, labels in ckpt.batches(train_loader):
            ...
            optimizer.step()
            ckpt.step(loss=loss)
        scheduler.step()
        ckpt.end_epoch(val_loss=evaluate())
    ```

    `resume()` takes the newest checkpoint of the run in `train_url` that verifies, by what is written inside. It is the
    same command that starts a run and goes on with it: the id of the run stands in every checkpoint.

    Saved and restored are the components, the generators of Python, NumPy (the global one) and PyTorch (CPU and
    CUDA), and the place in the data. What is done after `step()` in the body of the inner loop, or after
    `end_epoch()` in that of the outer one, is not done again after a resume: make these calls the last ones.

    Args:
        train_url: Directory of the run's checkpoints; made if it is not there.
        save_interval_steps: Save after every so many steps; None: at the end of each epoch only.
        run_id: Id of the run. None: the run in `train_url` whose checkpoint was created last, or else a new one.
            Directories are best not shared by runs; those that are need an id for each.
        codec: `none`, `zstd`, or a mapping of component name to one of them.
        components: Everything that has `state_dict()` and `load_state_dict()`: modules, optimizers, schedulers,
            scalers, averages, your own objects. They are restored in the given order.

    Attributes:
        train_url: Directory of the run's checkpoints.
        run_id: Id of the run; None before `resume()` if it was not given.
    """

    def __init__(
        self,
        train_url: str | os.PathLike[str],
        /,
        *,
        save_interval_steps: int | None = None,
        run_id: str | None = None,
        codec: str | Mapping[str, str] = "none",
        **components: Stateful,
    ) -> None:
        _check_arguments(save_interval_steps, components)
        self.train_url = local_path(train_url)
        self.run_id = run_id
        self._interval = save_interval_steps
        self._codec = codec
        self._components = components
        self._loop = Loop()

    @property
    def global_step(self) -> int:
        """Optimizer steps done since the start of the run."""
        return self._loop.step

    @property
    def epoch(self) -> int:
        """Epochs finished, which is the number of the present epoch, counted from 0."""
        return self._loop.epoch

    def resume(self, *, quiet: bool = False) -> ResumeReport:
        """Go on with the run in `train_url`, or start one if there is no checkpoint of it.

        The newest checkpoint that verifies is restored. Damaged ones are passed over and reported, never removed.
        Call it once, when all components are built and before the loop.

        Args:
            quiet: Do not print the report to stderr.

        Raises:
            MismatchError: The checkpoint does not fit the components; lists every reason. Nothing was changed.
            ResumeError: There are checkpoints, and none of them can be used.
            StorageError: The directory cannot be read or made.
            UsageError: It was called before.
        """
        if self._loop.resumed:
            raise UsageError("resume() twice: call it once, before the loop")
        _make_directory(self.train_url)
        selection = select_checkpoints(self.train_url, self.run_id)
        found = load_newest(selection)
        report = self._start(selection) if found is None else self._restore(selection, found)
        self.run_id = report.run_id
        if not quiet:
            sys.stderr.write(render_report(report))
        return report

    def epochs(self, n: int) -> Iterator[int]:
        """Yield the numbers of the epochs to be trained, up to n - 1; after a resume, from the unfinished one on.

        An epoch whose end was not announced by `end_epoch()` is ended, without metrics, before the next one begins.

        Raises:
            UsageError: `resume()` was not called, or an epoch is open.
        """
        for epoch in self._loop.epochs(n):
            yield epoch
            if self.epoch == epoch:
                self.end_epoch()

    def batches(self, loader: Iterable[T]) -> Iterator[T]:
        """Yield the batches of one pass over `loader`; in the epoch of a resume, those that are not done yet.

        The batches are those of the uninterrupted run, in its order: for shuffling loaders, for any number of workers,
        and for loaders with a `generator=`. To get there after a resume, the pass is begun again and the batches that
        are done are loaded once more and dropped: that costs their loading time.

        Two things are beyond it. What persistent workers draw at random comes from a state that they keep from
        epoch to epoch, and starts anew. And a data set or sampler that is iterated in this process and draws from the
        global generators while it goes along must not depend on what it drew before.

        Args:
            loader: A DataLoader or any other iterable that gives the same batches for the same random states.

        Raises:
            UsageError: It is used outside `epochs()`, or twice in an epoch.
            MismatchError: The loader is another one than that of the checkpoint.
        """
        return self._loop.batches(loader)

    def step(self, **metrics: SupportsFloat) -> SaveReport | None:
        """Count a step and save if one is due. Call it once per batch, when all work on the batch is done.

        Args:
            metrics: Values to note in the checkpoint. They are looked at only when one is saved.

        Returns:
            What was saved, or None.

        Raises:
            UsageError: It is called outside `batches()`, or twice for one batch.
            StateError: A component's state cannot be expressed.
            StorageError: The checkpoint could not be saved; those that are there are intact.
        """
        self._loop.count_step()
        if self._interval is None or self._loop.step % self._interval:
            return None
        return self.save(**metrics)

    def end_epoch(self, **metrics: SupportsFloat) -> SaveReport:
        """Count a finished epoch and save.

        Args:
            metrics: Values to note in the checkpoint, e.g. `val_loss=0.31`.

        Raises:
            UsageError: No epoch is open.
            StateError: A component's state cannot be expressed.
            StorageError: The checkpoint could not be saved; those that are there are intact.
        """
        self._loop.end_epoch()
        return self.save(**metrics)

    def save(self, **metrics: SupportsFloat) -> SaveReport:
        """Save now.

        Args:
            metrics: Values to note in the checkpoint.

        Raises:
            UsageError: The run could not go on exactly from here: call it right after `step()` or between epochs.
            StateError: A component's state cannot be expressed.
            StorageError: The checkpoint could not be saved; those that are there are intact.
        """
        progress = self._loop.progress()
        state = {name: component.state_dict() for name, component in self._components.items()}
        state[_RNG] = rng.capture()
        state[_PROGRESS] = progress.to_tree()
        metadata = make_metadata(
            state,
            step=progress.step,
            epoch=progress.epoch,
            metrics={name: _number(name, value) for name, value in metrics.items()} or None,
            run_id=self.run_id,
        )
        return io.write_state(self._target(progress.step), state, metadata=metadata, codec=self._codec)

    def _target(self, step: int) -> Path:
        """Return where to save: never over a checkpoint that is not this run's at this very step."""
        name = f"ckpt-{step:08d}"
        path = Path(self.train_url, f"{name}.ckptfmt")
        number = 1
        while path.exists() and not self._is_ours(path, step):
            number += 1
            path = path.with_name(f"{name}-{number}.ckptfmt")
        return path

    def _is_ours(self, path: Path, step: int) -> bool:
        try:
            with Checkpoint.open(path) as checkpoint:
                return (checkpoint.metadata.run_id, checkpoint.metadata.step) == (self.run_id, step)
        except (FormatError, StorageError):
            return False

    def _restore(self, selection: Selection, found: VerifiedCheckpoint) -> ResumeReport:
        """Check everything that can be checked, then change the live objects."""
        state = found.state
        check_components(self._components, state)
        random = state.get(_RNG)
        if random is not None:
            rng.check(random)
        progress = _progress_of(found)
        restore_components(self._components, state)
        self._loop.begin(progress, random)
        wanted = (*self._components, _RNG, _PROGRESS)
        return ResumeReport(
            directory=self.train_url,
            path=found.path,
            run_id=str(found.metadata.run_id),
            step=progress.step,
            epoch=progress.epoch,
            batch=progress.consumed,
            restored=tuple(name for name in wanted if name in state),
            missing=tuple(name for name in wanted if name not in state),
            ignored=tuple(name for name in state if name not in wanted),
            skipped=found.skipped,
            other_runs=selection.other_runs,
        )

    def _start(self, selection: Selection) -> ResumeReport:
        """Start a new run."""
        self._loop.begin(Progress(), None)
        return ResumeReport(
            directory=self.train_url,
            path=None,
            run_id=self.run_id or _new_run_id(),
            other_runs=selection.other_runs,
        )


def _progress_of(found: VerifiedCheckpoint) -> Progress:
    if _PROGRESS in found.state:
        return Progress.from_tree(found.state[_PROGRESS])
    return Progress(step=found.metadata.step or 0, epoch=found.metadata.epoch or 0)


def _number(name: str, value: SupportsFloat) -> float:
    try:
        return float(value.item() if isinstance(value, torch.Tensor) else value)
    except (RuntimeError, TypeError, ValueError):
        raise UsageError(f"the metric {name} is not a number: give a float or a tensor of one element") from None


def _new_run_id() -> str:
    # The operating system's randomness: the run's own generators must not notice.
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def _check_arguments(save_interval_steps: int | None, components: Mapping[str, object]) -> None:
    if save_interval_steps is not None and save_interval_steps < 1:
        raise UsageError(f"save_interval_steps is {save_interval_steps}: give a number of steps from 1 on, or None")
    for name, component in components.items():
        if name in (_RNG, _PROGRESS) or not is_component_name(name):
            raise UsageError(f"{name!r} cannot be the name of a component: it is reserved or not of A-Z a-z 0-9 _ . -")
        if not isinstance(component, Stateful):
            raise UsageError(f"{name} is a {type(component)} without state_dict() and load_state_dict()")


def _make_directory(path: str) -> None:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be made: {error.strerror or error}") from error
