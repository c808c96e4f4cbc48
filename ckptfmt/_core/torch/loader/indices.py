"""The first indices that a DataLoader draws in a pass: its order, whatever noise its batches have on top."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from ckptfmt._core.torch.live_objects.fingerprints import fingerprint
from ckptfmt._core.torch.loader.kinds import streams
from ckptfmt._core.torch.loader.watch import HEAD, Head

__all__ = ["IndexRecord"]

_MAX_INDICES = 1 << 12


class IndexRecord:
    """Records indices of a pass.

    A loader with workers has drawn some before its pass is there, so each mark contains the number of the draw.

    Args:
        loader: The loader. Anything but a plain DataLoader over a map-style data set has no record.
        iterator: The pass, at its start.
    """

    def __init__(self, loader: object = None, iterator: object = None) -> None:
        self.head: Head = ()
        """Marks of the first recorded draws, in the form of those of batches."""
        if type(loader) is not DataLoader or streams(loader):
            return
        # DataLoader has no public name for the indices of a pass; without this attribute, nothing is recorded.
        drawn = getattr(iterator, "_sampler_iter", None)
        if drawn is not None:
            first = getattr(iterator, "_send_idx", 0) + 1
            iterator._sampler_iter = self._recorded(drawn, first)  # type: ignore[attr-defined]  # just read

    def _recorded(self, drawn: Iterator[Any], first: int) -> Iterator[Any]:
        for number, indices in enumerate(drawn, first):
            if len(self.head) < HEAD:
                self.head = (*self.head, (f"{number} {_mark(indices)}",))
            yield indices


def _mark(indices: object) -> str:
    try:
        return fingerprint(indices, _MAX_INDICES)
    except Exception:  # noqa: BLE001 - a sampler may draw anything, and a mark must not end training
        return ""
