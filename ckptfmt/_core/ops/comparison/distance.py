"""How far the values of two tensors are apart."""

from __future__ import annotations

from dataclasses import dataclass

from ckptfmt._core.ops.report_json import float_json

__all__ = ["ValueDifference"]


@dataclass(frozen=True)
class ValueDifference:
    """How far apart two tensors of one shape are.

    NaN on both sides is no difference; NaN on one side is an infinite one.

    Attributes:
        elements: Number of elements.
        changed: Number of elements that differ.
        max_abs: Largest absolute difference.
        max_rel: Largest difference relative to the larger of the two magnitudes; at most 2.
        cosine: Cosine of the angle between them, over the elements that are finite on both sides; None if one of
            them is zero.
    """

    elements: int
    changed: int
    max_abs: float
    max_rel: float
    cosine: float | None

    @property
    def share(self) -> float:
        """Share of the elements that differ."""
        return self.changed / self.elements if self.elements else 0.0

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: the attributes under their names (see `float_json`), `cosine` may be null."""
        return {
            "elements": self.elements,
            "changed": self.changed,
            "max_abs": float_json(self.max_abs),
            "max_rel": float_json(self.max_rel),
            "cosine": None if self.cosine is None else float_json(self.cosine),
        }
