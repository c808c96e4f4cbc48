"""Saved states of learning-rate schedulers, fitted to the live schedulers."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["compare_scheduler", "fit_scheduler"]

# Lists with one item per parameter group, in order.
_PER_GROUP = frozenset({"_last_lr", "base_lrs", "base_momentums", "lr_lambdas", "max_lrs", "max_momentums", "min_lrs"})
_PARTS = "_schedulers"
_GONE = "verbose"  # older PyTorch versions have it


def compare_scheduler(live: Mapping[str, Any], saved: object, source: Sequence[int | None] | None) -> Iterator[str]:
    """Yield a line for each difference: attributes of another kind of scheduler, or another number of groups."""
    if not isinstance(saved, Mapping):
        yield f": expected a state dict, found a {type(saved).__name__} in the checkpoint"
        return
    for key in live:
        if key not in saved and not _is_private(key):
            yield f".{key}: in the scheduler, not in the checkpoint"
    for key, value in saved.items():
        here = live.get(key)
        if key not in live and not _is_private(key):
            yield f".{key}: in the checkpoint, not in the scheduler"
        elif key in _PER_GROUP and isinstance(here, list):
            count = len(value) if isinstance(value, list) else 0
            usable = (
                count > max((origin for origin in source if origin is not None), default=-1)
                if source
                else (count == len(here))
            )
            if not usable:
                yield f".{key}: {len(here)} groups in the scheduler, {count} in the checkpoint"
        elif key == _PARTS and isinstance(here, list):
            if not isinstance(value, list) or len(value) != len(here):
                yield f".{key}: {len(here)} in the scheduler, others in the checkpoint"
                continue
            for number, (part, its) in enumerate(zip(here, value, strict=True)):
                yield from (f".{key}[{number}]{line}" for line in compare_scheduler(part, its, source))


def fit_scheduler(live: Mapping[str, Any], saved: Mapping[str, Any], source: Sequence[int | None] | None) -> Any:
    """Return the saved state with what the file lacks: mapping types, and the current order of the groups.

    Args:
        live: State dict of the scheduler; of a chain or sequence, including its parts.
        saved: State in the checkpoint. Entries unknown to the scheduler are omitted.
        source: For each group of the optimizer, the saved group that it comes from; None: as saved.
    """
    known = {key: value for key, value in saved.items() if key in live or _is_private(key)}
    for key, value in known.items():
        if key == _PARTS:
            known[key] = [fit_scheduler(part, its, source) for part, its in zip(live[key], value, strict=True)]
        elif key in _PER_GROUP and isinstance(value, list) and source is not None:
            known[key] = [
                live[key][number] if origin is None else value[origin] for number, origin in enumerate(source)
            ]
        else:
            known[key] = _with_types_of(live.get(key), value)
    return known


def _is_private(key: str) -> bool:
    return key == _GONE or (key.startswith("_") and key != _PARTS)


def _with_types_of(live: Any, saved: Any) -> Any:
    """Return `saved` with the mapping types of `live`: a file has only one, MultiStepLR needs its Counter."""
    if isinstance(live, Mapping) and isinstance(saved, Mapping):
        fitted = {key: _with_types_of(live.get(key), value) for key, value in saved.items()}
        match live:
            case Counter() | OrderedDict():
                return type(live)(fitted)
            case defaultdict():
                return defaultdict(live.default_factory, fitted)
        return fitted
    if isinstance(live, list) and isinstance(saved, list) and len(live) == len(saved):
        return [_with_types_of(here, there) for here, there in zip(live, saved, strict=True)]
    return saved
