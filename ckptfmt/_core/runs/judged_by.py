"""The metric that a run judges its checkpoints by, recorded in each of them as user metadata."""

from __future__ import annotations

from typing import Any

from ckptfmt._core.format.index import Metadata
from ckptfmt._core.runs.retention import Mode

__all__ = ["judged_as_user_data", "judged_by"]

_KEY = "keep_best"


def judged_by(metadata: Metadata) -> tuple[str, Mode] | None:
    """Return the metric and its direction as recorded in a checkpoint; None if absent, or of another form."""
    match (metadata.user or {}).get(_KEY):
        case [str(name), "min"]:
            return name, "min"
        case [str(name), "max"]:
            return name, "max"
    return None


def judged_as_user_data(judged: tuple[str, Mode] | None) -> dict[str, Any]:
    """Return a metric and its direction as user metadata that `judged_by` reads; empty for None."""
    return {} if judged is None else {_KEY: list(judged)}
