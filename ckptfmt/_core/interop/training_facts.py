"""What a state says of the training that it was saved from: how far it is, and which program saved it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckptfmt._core.container.pytorch_epochs import epochs_finished
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.format.trees import NUMPY_SCALAR
from ckptfmt._core.interop.scalars import scalar_of
from ckptfmt._core.runs.metric_names import mode_of

__all__ = ["Facts", "as_float", "count", "facts_of"]

_LIGHTNING = "pytorch-lightning_version"


@dataclass(frozen=True)
class Facts:
    """What a state says of its training.

    Attributes:
        epoch: Epochs finished.
        step: Steps done.
        metrics: Numbers beside the states whose names tell which way they are better, such as `val_loss`.
        producer: The program that saved it.
        notes: How these were told, in sentences.
    """

    epoch: int | None = None
    step: int | None = None
    metrics: Mapping[str, float] | None = None
    producer: str | None = None
    notes: tuple[str, ...] = ()


def facts_of(state: object) -> Facts:
    """Return what a state says of its training."""
    if not isinstance(state, Mapping):
        return Facts()
    state = {name: _number(value) for name, value in state.items()}
    if _LIGHTNING in state:
        return _lightning(state)
    epochs = epochs_finished(state)
    notes = () if epochs is None else (f"epoch {epochs - 1} is the last finished one, so {epochs} epochs are finished",)
    return Facts(epoch=epochs, step=count(state.get("step")), metrics=_metrics(state), notes=notes)


def _lightning(state: Mapping[str, object]) -> Facts:
    progress: object = state
    for name in ("loops", "fit_loop", "epoch_progress", "current", "processed"):
        progress = progress.get(name) if isinstance(progress, Mapping) else None
    return Facts(
        epoch=count(progress) if progress is not None else count(state.get("epoch")),
        step=count(state.get("global_step")),
        producer=f"PyTorch Lightning {str(state[_LIGHTNING])[:40]}",
    )


def _metrics(state: Mapping[str, object]) -> dict[str, float] | None:
    found = {
        name: value
        for name, value in state.items()
        if type(name) is str and type(value) is float and mode_of(name) is not None
    }
    return found or None


def _number(value: object) -> object:
    """Return a scalar of NumPy as a number of Python; anything else as it is."""
    match value:
        case Typed(name, [str(), bytes()] as parts) if name == NUMPY_SCALAR:
            return scalar_of(parts)
    return value


def count(value: object) -> int | None:
    """Return a number of steps or epochs, if it is one."""
    return value if type(value) is int and 0 <= value < 1 << 62 else None


def as_float(value: object) -> float | None:
    """Return a measured value, if it is a number that a float can hold."""
    try:
        return float(value) if type(value) in (int, float) else None  # type: ignore[arg-type]  # one of the two
    except OverflowError:
        return None
