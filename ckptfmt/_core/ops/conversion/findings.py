"""What is to be told of a source that is converted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ckptfmt._core.interop.base import TensorFile
from ckptfmt._core.interop.dropped import Dropped
from ckptfmt._core.interop.huggingface import CheckpointDirectory
from ckptfmt._core.interop.pth import PthFile
from ckptfmt._core.ops.conversion.report import Findings
from ckptfmt._core.pth.audit import check

__all__ = ["findings_of", "refuse_unknown"]


def findings_of(file: TensorFile) -> Findings:
    """Return what is to be told of a source."""
    inert: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    dropped: list[Dropped] = []
    unknown: list[str] = []
    notes: list[str] = []
    for inner in _files_of_pytorch(file):
        inert += inner.legacy.notes.inert
        modules += inner.legacy.notes.modules
        dropped += [Dropped(what, why, times) for (what, why), times in inner.legacy.notes.dropped.items()]
        unknown += inner.survey.unknown
        notes += inner.notes
    if isinstance(file, CheckpointDirectory):
        dropped += [Dropped(name, why) for name, why in file.left.items()]
        notes += file.notes
    return Findings(
        producer=file.metadata.producer,
        inert=dict(inert),
        unknown=tuple(dict.fromkeys(unknown)),
        modules=dict(modules),
        dropped=tuple(dropped),
        notes=tuple(notes),
    )


def refuse_unknown(file: TensorFile) -> None:
    """Refuse a file with objects of other packages.

    Raises:
        UnsafeInputError: It has some.
    """
    for inner in _files_of_pytorch(file):
        check(inner.survey, inner.path, strict=True)


def _files_of_pytorch(file: TensorFile) -> Iterator[PthFile]:
    files = file.files if isinstance(file, CheckpointDirectory) else (file,)
    return (inner for inner in files if isinstance(inner, PthFile))
