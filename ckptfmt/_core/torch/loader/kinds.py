"""Properties of a loader: its DataLoaders, their workers, and whether it loads ahead."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from ckptfmt._core.torch.live_objects.attributes import walk
from ckptfmt._core.torch.live_objects.contents import is_a
from ckptfmt._core.training.stateful import Stateful

__all__ = [
    "dataloaders",
    "has_started",
    "has_workers",
    "is_known_sampler",
    "is_sequential",
    "is_steady",
    "is_torchdata",
    "length_of",
    "streams",
    "workers_started",
]

_TORCHDATA = "torchdata.stateful_dataloader"


def dataloaders(loader: object) -> list[DataLoader[Any]]:
    """Return the DataLoaders that a loader is or contains, without wrappers that claim to be one."""
    found = (loader, *(slot.value for slot in walk(loader, code=False)))
    return [value for value in found if is_a(value, DataLoader)]  # type: ignore[misc]  # it is one


def workers_started(loader: object) -> bool:
    # DataLoader keeps the iterator of persistent workers in this attribute, without a public name.
    return any(map(has_started, dataloaders(loader)))


def has_started(loader: DataLoader[Any]) -> bool:
    return loader.persistent_workers and getattr(loader, "_iterator", None) is not None


def streams(loader: object) -> bool:
    return any(isinstance(made.dataset, IterableDataset) for made in dataloaders(loader))


def has_workers(loader: object) -> bool:
    return any(made.num_workers > 0 for made in dataloaders(loader))


def is_steady(loader: object) -> bool:
    """Return whether a loader loads each batch on demand, in an order fixed at the start of the pass."""
    if type(loader) is not DataLoader or loader.num_workers > 0 or isinstance(loader.dataset, IterableDataset):
        return False
    return is_known_sampler(loader.sampler) and is_known_sampler(loader.batch_sampler)


def is_known_sampler(sampler: object) -> bool:
    known = type(sampler).__module__.startswith(("torch.utils.data.", "torchdata."))
    return sampler is None or known or isinstance(sampler, Stateful)


def is_sequential(loader: object) -> bool:
    """Return whether a loader is a DataLoader that draws the indices 0, 1, 2 and so on in each pass."""
    return type(loader) is DataLoader and not streams(loader) and type(loader.sampler) is SequentialSampler


def is_torchdata(loader: object) -> bool:
    return any(kind.__module__.startswith(_TORCHDATA) for kind in type(loader).__mro__)


def length_of(loader: object) -> int | None:
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:  # a DataLoader over an iterable data set without a length
        return None
