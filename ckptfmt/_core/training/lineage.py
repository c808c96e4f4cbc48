"""Lineage of a run: the checkpoint that it started from, then the one that checkpoint's run started from, and so on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ckptfmt._core.format.index import Metadata
from ckptfmt._core.storage.local.paths import name_as_text

__all__ = ["Ancestor", "lineage_as_user_data", "lineage_from", "lineage_of"]

_KEY = "lineage"
_LARGEST_GENERATION = 64


@dataclass(frozen=True)
class Ancestor:
    """A file that a run started from, directly or through other runs.

    Attributes:
        identity: Identity, 64 hex digits (spec 12.1); for other formats, the BLAKE3 digest of the bytes, or of
            the digests of several files.
        name: File name; None if unknown.
        run_id: Id of its run; None if not recorded.
        step: Step; None if not recorded.
        epoch: Epoch; None if not recorded.
    """

    identity: str
    name: str | None = None
    run_id: str | None = None
    step: int | None = None
    epoch: int | None = None


def lineage_from(path: str, identity: str, metadata: Metadata) -> tuple[Ancestor, ...]:
    """Return the lineage of a run that starts from a checkpoint, the checkpoint itself first."""
    itself = Ancestor(identity, name_as_text(path), metadata.run_id, metadata.step, metadata.epoch)
    return (itself, *lineage_of(metadata))


def lineage_of(metadata: Metadata) -> tuple[Ancestor, ...]:
    """Return the lineage recorded in a checkpoint, nearest first; empty if it is absent or of another form."""
    noted = (metadata.user or {}).get(_KEY)
    entries = noted if isinstance(noted, list) else []
    try:
        return tuple(Ancestor(**entry) for entry in entries[:_LARGEST_GENERATION])
    except TypeError:
        return ()


def lineage_as_user_data(lineage: Sequence[Ancestor]) -> dict[str, Any] | None:
    """Return a lineage as user metadata that `lineage_of` reads; None for an empty lineage."""
    if not lineage:
        return None
    return {_KEY: [{key: value for key, value in asdict(it).items() if value is not None} for it in lineage]}
