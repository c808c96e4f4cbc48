"""What data-parallel training does to live objects: which buffers are broadcast, and what is sharded over ranks."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ckptfmt._core.torch.distributed.wrappers import plain_namer, unwrap

__all__ = ["keep_own_buffers", "sharded_by", "synced_buffers"]


def synced_buffers(module: nn.Module) -> frozenset[str]:
    """Return the plain names of the buffers that the next forward pass overwrites with those of rank 0.

    With `broadcast_buffers=False` these are none. Nor are they after a forward pass without gradients, such as an
    evaluation, or within `no_sync`: the pass that follows broadcasts nothing.
    """
    synced = {id(buffer) for part in _parallel_parts(module) if _will_sync(part) for buffer in part.modules_buffers}
    return frozenset(name for name, buffer in _named_buffers(module) if id(buffer) in synced)


def keep_own_buffers(module: nn.Module, names: Collection[str]) -> None:
    """Let the next forward pass leave buffers alone whose values each rank has got back for itself.

    A new `DistributedDataParallel` broadcasts before its first pass, whatever the one did that was saved.

    Args:
        module: The module.
        names: Plain names of the buffers.
    """
    own = {id(buffer) for name, buffer in _named_buffers(module) if name in names}
    for part in _parallel_parts(module):
        if any(id(buffer) in own for buffer in part.modules_buffers):
            part.require_forward_param_sync = False


def sharded_by(component: object) -> str | None:
    """Return what has sharded a module or optimizer over ranks, so that none of them has its whole state."""
    # Whoever uses them has imported them; to import them here would take long.
    zero = getattr(sys.modules.get("torch.distributed.optim"), "ZeroRedundancyOptimizer", ())
    if isinstance(component, zero):
        return "ZeroRedundancyOptimizer"
    if not isinstance(component, nn.Module):
        return None
    fsdp = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", ())
    if any(isinstance(part, fsdp) for part in component.modules()):
        return "FullyShardedDataParallel"
    return "DTensor" if any(hasattr(parameter, "full_tensor") for parameter in component.parameters()) else None


def _parallel_parts(module: nn.Module) -> Iterator[DistributedDataParallel]:
    return (part for part in module.modules() if isinstance(part, DistributedDataParallel))


def _will_sync(part: DistributedDataParallel) -> bool:
    return bool(part.will_sync_module_buffers())  # type: ignore[no-untyped-call]  # it has no annotations


def _named_buffers(module: nn.Module) -> Iterator[tuple[str, object]]:
    inner = unwrap(module)
    plain = plain_namer(inner)
    return ((plain(name), buffer) for name, buffer in inner.named_buffers(remove_duplicate=False))
