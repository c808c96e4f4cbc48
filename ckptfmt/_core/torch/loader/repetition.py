"""Batches and samples that come again in a pass that was resumed by the loader's own state.

Such a pass is not replayed, so nothing shows its order but the batches that follow the resume. They are compared with
those recorded before the save: within one pass, neither a batch nor a sample comes twice, unless the loader draws with
replacement or the data has duplicates, which the record itself mostly shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from ckptfmt._core.format.digest import digest
from ckptfmt._core.torch.live_objects.contents import items, size
from ckptfmt._core.torch.live_objects.fingerprints import fingerprint

__all__ = ["Repeat", "Repetition", "RowSamples", "Rows", "joined", "row_digests", "rows_of"]

RowSamples = Mapping[str, torch.Tensor | tuple[bytes, ...]]
"""Some rows of a batch, copied without waiting for any device: by field, a matrix of some values of each, or bytes."""
Rows = Mapping[str, tuple[int, ...]]
"""Digests of rows, by field."""

_MAX_FIELDS = 4
_MAX_ROWS = 16
_MAX_VALUES = 64
_MIN_VALUES = 8
_MAX_RECORDED = 256
_MIN_KNOWN_ROWS = 8
_ENOUGH_ROWS = 3
_MAX_BATCHES = 32
_DIGEST_BYTES = 7
_GOLDEN = 0.618


def rows_of(batch: object) -> RowSamples:
    """Return the first rows of each field of a batch, without fields whose rows may be equal by chance."""
    fields = items(batch) if size(batch) is not None else []
    found = {str(name): _rows(part) for name, part in [("", batch), *fields[:_MAX_FIELDS]]}
    return {name: rows for name, rows in found.items() if rows is not None}


def row_digests(samples: RowSamples | Rows) -> Rows:
    """Return the digests of rows, unless they are digests. Waits for their devices."""
    return {name: tuple(map(_number, _rows_as_bytes(rows))) for name, rows in samples.items()}


def joined(batches: Iterable[Rows]) -> Rows:
    """Return the rows of several batches, the latest ones if there are many."""
    found: dict[str, list[int]] = {}
    for rows in batches:
        for name, digests in rows.items():
            found.setdefault(name, []).extend(digests)
    return {name: tuple(digests[-_MAX_RECORDED:]) for name, digests in found.items()}


@dataclass(frozen=True)
class Repeat:
    """Something that came before.

    Attributes:
        what: In words.
        is_certain: Whether it is a whole batch, in data whose recorded batches all differ.
    """

    what: str
    is_certain: bool


class Repetition:
    """Compares the batches after a resume with those before.

    Args:
        batches: Fingerprints of recorded batches of the pass, by number.
        rows: Digests of their rows.
    """

    def __init__(self, batches: Mapping[int, str], rows: Rows) -> None:
        self._batches = batches if len(set(batches.values())) == len(batches) else {}
        self._columns = {
            name: _Column(set(known))
            for name, known in rows.items()
            if len(set(known)) == len(known) >= _MIN_KNOWN_ROWS
        }
        self._compared = 0

    def find(self, batch: object) -> Repeat | None:
        """Return what of a batch came before; None if nothing did, as far as known."""
        if self._compared >= _MAX_BATCHES:
            return None
        self._compared += 1
        try:
            mark, rows = fingerprint(batch), row_digests(rows_of(batch))
        except Exception:  # noqa: BLE001 - a batch is an arbitrary object, and must not end training
            return None
        for number, other in self._batches.items():
            if mark == other:
                return Repeat(f"batch {number} of the pass comes again", True)
        found = [column.repeats(rows.get(name, ())) for name, column in self._columns.items()]
        return Repeat("samples of earlier batches come again", False) if any(found) else None


@dataclass
class _Column:
    """Rows of one field.

    Attributes:
        known: Digests of rows before the resume, all different.
        new: Digests of those after it.
        count: Number of those that are known.
        decides: Whether no row came twice after the resume: otherwise the loader draws with replacement.
    """

    known: set[int]
    new: set[int] = field(default_factory=set)
    count: int = 0
    decides: bool = True

    def repeats(self, rows: tuple[int, ...]) -> bool:
        self.decides &= len(set(rows)) == len(rows) and self.new.isdisjoint(rows)
        self.new.update(rows)
        self.count += len(self.known.intersection(rows))
        return self.decides and self.count >= _ENOUGH_ROWS


def _rows(part: object) -> torch.Tensor | tuple[bytes, ...] | None:
    if isinstance(part, np.ndarray) and part.dtype.kind in "biufc":
        part = torch.from_numpy(part) if part.flags.writeable else torch.from_numpy(part[:_MAX_ROWS].copy())
    if isinstance(part, torch.Tensor):
        return _matrix(part)
    count = size(part)
    if not isinstance(part, list | tuple) or count is None or count > 1 << 16:
        return None
    return tuple(text.encode(errors="surrogatepass") for text in part[:_MAX_ROWS] if isinstance(text, str)) or None


def _matrix(part: torch.Tensor) -> torch.Tensor | None:
    if part.layout is not torch.strided or part.is_nested or part.is_quantized or part.device.type == "meta":
        return None
    if part.dim() < 2 or not len(part) or part[0].numel() < _MIN_VALUES:
        return None
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():  # overrides of a subclass do not matter
        rows = part.detach()[:_MAX_ROWS].resolve_conj().resolve_neg()
        rows = rows.reshape(len(rows), -1)
        count = rows.shape[1]
        if count > _MAX_VALUES:
            stride = int(count * _GOLDEN) | 1
            rows = rows[:, torch.arange(_MAX_VALUES, device=rows.device).mul(stride).remainder(count)]
        return rows.clone(memory_format=torch.contiguous_format)


def _rows_as_bytes(rows: torch.Tensor | tuple[bytes | int, ...]) -> Iterator[bytes | int]:
    if isinstance(rows, tuple):
        yield from rows
        return
    for row in rows.cpu().view(torch.uint8).numpy():
        yield row.tobytes()


def _number(row: bytes | int) -> int:
    return row if isinstance(row, int) else int.from_bytes(digest(row)[:_DIGEST_BYTES], "little")
