"""Options of loggers for a run that is resumed: no step appears twice in its curves."""

from __future__ import annotations

import re
from typing import Any

from ckptfmt._core.torch.checkpointer_properties import RunFacts
from ckptfmt.errors import UsageError

__all__ = ["tensorboard_options", "wandb_options"]

_NOT_IN_WANDB_IDS = re.compile(r"[/\\#?%:]")
_LONGEST_WANDB_ID = 128


def tensorboard_options(ckpt: RunFacts, *, first_step: int = 1) -> dict[str, Any]:
    """Return the options with which a `SummaryWriter` continues the curves of a run.

    ```python
    ckpt.resume()
    writer = SummaryWriter(log_dir, **tensorboard_options(ckpt))
    ```

    An interrupted run has logged steps after its last checkpoint, and does them again. TensorBoard then hides what was
    logged for them before (`purge_step`). This is for values logged at `ckpt.global_step`.

    Args:
        ckpt: The run, after `resume()`.
        first_step: Number under which the first step of the run is logged: 1 for `ckpt.global_step` after
            `ckpt.step()`, 0 for the number that `ckpt.steps()` yields.

    Raises:
        UsageError: `resume()` was not called yet: which steps will be done again is not known.
    """
    _require_start(ckpt, "tensorboard_options")
    return {"purge_step": ckpt.global_step + first_step}


def wandb_options(ckpt: RunFacts) -> dict[str, Any]:
    """Return the options with which `wandb.init` continues the run of Weights & Biases.

    ```python
    ckpt.resume()
    wandb.init(project="digits", **wandb_options(ckpt))
    wandb.log({"loss": loss}, step=ckpt.global_step)
    ```

    Its id is the run id, which every checkpoint records. A step that was logged before the interruption is not logged
    again if `step` is passed: Weights & Biases ignores it.

    Args:
        ckpt: The run, after `resume()`.

    Raises:
        UsageError: `resume()` was not called yet: the id of the run is not known.
    """
    _require_start(ckpt, "wandb_options")
    identifier = _NOT_IN_WANDB_IDS.sub("-", str(ckpt.run_id))
    return {"id": identifier[:_LONGEST_WANDB_ID], "resume": "allow"}


def _require_start(ckpt: RunFacts, name: str) -> None:
    if not ckpt.is_started:
        raise UsageError(f"{name}() called before resume(); call it right after resume()")
