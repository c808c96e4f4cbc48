"""Metrics as a checkpoint records them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat

from ckptfmt._escaping import describe_error

__all__ = ["as_numbers"]


def as_numbers(metrics: Mapping[str, SupportsFloat]) -> tuple[dict[str, float], list[str]]:
    """Return metrics as numbers, and a complaint about each other value: a save does not fail because of it."""
    numbers = {}
    complaints = []
    for name, value in metrics.items():
        try:
            item = getattr(value, "item", None)  # arrays and tensors: a plain number, from any device
            numbers[name] = float(item() if callable(item) else value)
        except Exception as error:  # noqa: BLE001 - `__float__` may be arbitrary code
            complaints.append(
                f"metric {name!r} left out: {type(value).__name__} is not a number ({describe_error(error)}); "
                "pass a float or a tensor of one element"
            )
    return numbers, complaints
