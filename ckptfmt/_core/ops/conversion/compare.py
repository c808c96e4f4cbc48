"""What was converted compared with what it was made of, value for value, both read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NoReturn

from ckptfmt._core.container.tensor_source import ReadChunk, TensorSource
from ckptfmt._core.format.digest import digest
from ckptfmt._core.format.dtypes import COMPLEX_PARTS
from ckptfmt._core.format.index import ROOT, Metadata
from ckptfmt._core.format.packing import encode
from ckptfmt._core.interop.base import ComponentSource, TensorFile
from ckptfmt._core.ops.conversion.transcode import plan_rewrite
from ckptfmt._core.ops.progress import Meter
from ckptfmt._core.system.workers import in_order
from ckptfmt.errors import IntegrityError, Problem

__all__ = ["compare_conversion", "compare_export"]


_OTHER_VALUES = "its values are not the source's"


def compare_conversion(before: TensorFile, after: TensorFile, meter: Meter) -> int:
    """Compare a converted checkpoint with its source, trees and tensors; return the number of tensors.

    Raises:
        IntegrityError: They differ.
    """
    count = 0
    plan = plan_rewrite(before, Metadata(), codec="none", advance=meter.advance)
    trees = {member.name: member.parts[0].read() for member in plan.members if member.header is None}
    headers = {member.name: member.header.text for member in plan.members if member.header is not None}
    again = plan_rewrite(after, Metadata(), codec="none", advance=meter.advance)
    for member in again.members:
        same = (
            trees.pop(member.name, None) == member.parts[0].read()
            if member.header is None
            else headers.pop(member.name, None) == member.header.text
        )
        if not same:
            _fail(after, "it is not what the source has", member.name)
    for missing in (*trees, *headers):
        _fail(after, "it is missing", missing)
    for name, part in before.components.items():
        for key, tensor in part.tensors.items():
            if not _same_data(tensor, after.components[name].tensors[key], meter):
                _fail(after, _OTHER_VALUES, part.name, key)
            count += 1
    before.finish()
    return count


def compare_export(
    parts: Iterable[ComponentSource], after: TensorFile, *, alone: bool, exact: bool, meter: Meter
) -> int:
    """Compare what was exported with the components that it was made of; return the number of tensors.

    Args:
        parts: The components.
        after: The file or directory that was written.
        alone: Whether it has one component without its name.
        exact: Whether trees were written as they are, too.
        meter: Counts what is read.

    Raises:
        IntegrityError: They differ.
    """
    held = [part for part in after.components.values() if part.tensors]
    there = {full: (part, name) for full, part, name in _named(held, alone=alone and len(held) == 1)}
    if alone:  # a tree whose branches look like components has names of them
        there |= {full: (part, name) for full, part, name in _named(held, alone=False)}
    count = 0
    for full, part, name in _named(parts, alone=alone):
        if full not in there:
            _fail(after, "it is missing", part.name, name)
        other, its_name = there[full]
        if _expressed(part.tensors[name]) != _expressed(other.tensors[its_name]):
            _fail(after, "it has another dtype or shape than in the source", part.name, name)
        if not _same_data(part.tensors[name], other.tensors[its_name], meter):
            _fail(after, _OTHER_VALUES, part.name, name)
        count += 1
    for part in parts if exact and not alone else ():
        found = after.components.get(part.name)
        if not part.flat and (found is None or encode(found.tree()) != encode(part.tree())):
            _fail(after, "it is not what the source has", part.name)
    return count


def _named(parts: Iterable[ComponentSource], *, alone: bool) -> Iterator[tuple[str, ComponentSource, str]]:
    """Yield each tensor with its name in the whole file."""
    for part in parts:
        for name in part.tensors:
            yield (name if alone or part.name == ROOT else f"{part.name}.{name}"), part, name


def _expressed(tensor: TensorSource) -> tuple[str, tuple[int, ...]]:
    if tensor.dtype in COMPLEX_PARTS:
        return COMPLEX_PARTS[tensor.dtype], (*tensor.shape, 2)
    return tensor.dtype, tensor.shape


def _same_data(tensor: TensorSource, other: TensorSource, meter: Meter) -> bool:
    return _digests(tensor, meter) == _digests(other, meter)


def _digests(tensor: TensorSource, meter: Meter) -> list[bytes]:
    def work(chunk: ReadChunk) -> bytes:
        data = chunk()
        meter.advance(memoryview(data).nbytes)
        return digest(data)

    return list(in_order(work, tensor.chunks()))


def _fail(after: TensorFile, what: str, member: str, tensor: str | None = None) -> NoReturn:
    raise IntegrityError(Problem("chunk-digest", what, member, tensor), after.path)
