"""Effects of data-parallel training on live objects: broadcast buffers, and state sharded over ranks."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ckptfmt._core.torch.distributed.wrappers import plain_namer, unwrap

__all__ = ["keep_own_buffers", "sharded_by", "synced_buffers"]


def synced_buffers(module: nn.Module) -> frozenset[str]:
    """Return the plain names of the buffers that the next forward pass overwrites with those of rank 0.

    There are none with `broadcast_buffers=False`, after a forward pass without gradients such as an evaluation, or
    within
    `no_sync`: the pass that follows broadcasts nothing.
    """
    synced = {id(buffer) for part in _parallel_parts(module) if _will_sync(part) for buffer in part.modules_buffers}
    return frozenset(name for name, buffer in _named_buffers(module) if id(buffer) in synced)


def keep_own_buffers(module: nn.Module, names: Collection[str]) -> None:
    """Keep the next forward pass from overwriting buffers whose values each rank has restored for itself.

    A new `DistributedDataParallel` broadcasts before its first pass, even if the saved one did not.

    Args:
        module: The module.
        names: Plain names of the buffers.
    """
    own = {id(buffer) for name, buffer in _named_buffers(module) if name in names}
    for part in _parallel_parts(module):
        if any(id(buffer) in own for buffer in part.modules_buffers):
            part.require_forward_param_sync = False


def sharded_by(component: object) -> str | None:
    """Return the name of what shards a module or optimizer over ranks; None if each rank has its whole state."""
    # A program that uses these classes has imported them; an import here would be slow.
    zero = getattr(sys.modules.get("torch.distributed.optim"), "ZeroRedundancyOptimizer", ())
    if isinstance(component, zero):
        return "ZeroRedundancyOptimizer"
    if not isinstance(component, nn.Module):
        groups = component.param_groups if isinstance(component, Optimizer) else []
        parameters = [parameter for group in groups for parameter in group["params"]]
        return "DTensor" if _have_dtensors(parameters) else None
    fsdp = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", ())
    if any(isinstance(part, fsdp) for part in component.modules()):
        return "FullyShardedDataParallel"
    return "DTensor" if _have_dtensors([*component.parameters(), *component.buffers()]) else None


def _have_dtensors(tensors: Iterable[object]) -> bool:
    return any(hasattr(tensor, "full_tensor") for tensor in tensors)


def _parallel_parts(module: nn.Module) -> Iterator[DistributedDataParallel]:
    return (part for part in module.modules() if isinstance(part, DistributedDataParallel))


def _will_sync(part: DistributedDataParallel) -> bool:
    return bool(part.will_sync_module_buffers())  # type: ignore[no-untyped-call]  # it has no annotations


def _named_buffers(module: nn.Module) -> Iterator[tuple[str, object]]:
    inner = unwrap(module)
    plain = plain_namer(inner)
    return ((plain(name), buffer) for name, buffer in inner.named_buffers(remove_duplicate=False))
