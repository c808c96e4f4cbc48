"""What a run descends from: the checkpoint that it started from, then what that one's run started from, and so on."""

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
    """A file that a run started from, directly or by way of other runs.

    Attributes:
        identity: Its identity, 64 hex digits (spec 12.1); of another format, the BLAKE3 digest of its bytes.
        name: The file's name, if it is known.
        run_id: The run that it belongs to, if it says.
        step: Its step, if it says.
        epoch: Its epoch, if it says.
    """

    identity: str
    name: str | None = None
    run_id: str | None = None
    step: int | None = None
    epoch: int | None = None


def lineage_from(path: str, identity: str, metadata: Metadata) -> tuple[Ancestor, ...]:
    """Return what a run that starts from a checkpoint descends from, the checkpoint itself first."""
    itself = Ancestor(identity, name_as_text(path), metadata.run_id, metadata.step, metadata.epoch)
    return (itself, *lineage_of(metadata))


def lineage_of(metadata: Metadata) -> tuple[Ancestor, ...]:
    """Return what a checkpoint says its run started from, the nearest first; nothing if it says it in another way."""
    noted = (metadata.user or {}).get(_KEY)
    entries = noted if isinstance(noted, list) else []
    try:
        return tuple(Ancestor(**entry) for entry in entries[:_LARGEST_GENERATION])
    except TypeError:
        return ()


def lineage_as_user_data(lineage: Sequence[Ancestor]) -> dict[str, Any] | None:
    """Return a lineage as user metadata that `lineage_of` reads; None if there is none."""
    if not lineage:
        return None
    return {_KEY: [{key: value for key, value in asdict(it).items() if value is not None} for it in lineage]}
