"""A whole directory converted, file by file, past those that cannot be."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ckptfmt._core.interop.huggingface.directory import is_checkpoint_directory
from ckptfmt._core.ops.conversion.convert import convert
from ckptfmt._core.ops.conversion.report import ConvertReport
from ckptfmt._core.ops.progress import Report
from ckptfmt._core.runs.scan import EXTENSION
from ckptfmt._core.storage.local.paths import children, is_directory, is_gone, is_link, real_path
from ckptfmt._core.storage.local.publication.atomic_directory import make_directory
from ckptfmt.errors import CkptfmtError, StorageError

__all__ = ["Failure", "Pair", "TreeReport", "convert_tree", "plan_tree"]

_EXTENSIONS = frozenset({".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".safetensors", ".npz", ".tar"})
_MOST_LEVELS = 32


@dataclass(frozen=True)
class Pair:
    """A file or checkpoint directory, and where its conversion goes."""

    source: str
    target: str


@dataclass(frozen=True)
class Failure:
    """A source that was not converted.

    Attributes:
        source: The file or directory.
        error: The reason.
    """

    source: str
    error: CkptfmtError

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `source`, `error` (text) and `kind` (name of the class of the error)."""
        return {"source": self.source, "error": str(self.error), "kind": type(self.error).__name__}


@dataclass(frozen=True)
class TreeReport:
    """What became of all sources in a directory.

    Attributes:
        converted: A report for each that was converted.
        failed: Those that were not.
    """

    converted: tuple[ConvertReport, ...]
    failed: tuple[Failure, ...]

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"convert-tree/1"`), `converted` (array, see `ConvertReport.to_json`), `failed` (array, see
        `Failure.to_json`).
        """
        return {
            "report": "convert-tree/1",
            "converted": [report.to_json() for report in self.converted],
            "failed": [failure.to_json() for failure in self.failed],
        }


def plan_tree(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> tuple[Pair, ...]:
    """Return what there is to convert in a directory and those inside it, by name, and where each goes.

    Files count by their extension; a directory that is one checkpoint counts as one. The target has the directories
    of the source. Where two sources would go to one target, each keeps its extension: `a.pth.ckptfmt`. What lies in
    the target, if that is inside the source, is left out.

    Raises:
        StorageError: A directory cannot be listed.
    """
    root, goal = Path(source), Path(target)
    found = [(path, goal / path.relative_to(root)) for path in _sources(root, real_path(goal), 0)]
    short = [place.with_suffix("") if place.suffix in _EXTENSIONS else place for _, place in found]
    pairs = []
    for (path, place), stem in zip(found, short, strict=True):
        name = (stem if short.count(stem) == 1 else place).name + EXTENSION
        pairs.append(Pair(str(path), str(place.parent / name)))
    return tuple(pairs)


def _sources(directory: Path, goal: Path, level: int) -> Iterator[Path]:
    try:
        found = children(directory)
    except StorageError:
        if level and is_gone(directory):  # removed since it was found
            return
        raise
    for child in found:
        if is_directory(child):
            if is_link(child) or real_path(child) == goal or level == _MOST_LEVELS:
                continue
            if is_checkpoint_directory(child):
                yield child
            else:
                yield from _sources(child, goal, level + 1)
        elif child.suffix in _EXTENSIONS and not child.name.startswith("."):
            yield child


def convert_tree(
    pairs: tuple[Pair, ...],
    *,
    strict: bool = False,
    inert: Collection[str] = (),
    check: bool = False,
    codec: str = "none",
    run_id: str | None = None,
    progress: Report | None = None,
    done: Callable[[ConvertReport | Failure], None] = lambda _: None,
) -> TreeReport:
    """Convert one source after the other; what is wrong with one does not stop the others.

    A source that is removed before its turn is left out.

    Args:
        pairs: What `plan_tree` returned.
        strict: See `convert`.
        inert: See `convert`.
        check: See `convert`.
        codec: See `convert`.
        run_id: See `convert`.
        progress: Called after each piece of work, with the progress of the source in work.
        done: Called with what became of each.
    """
    converted: list[ConvertReport] = []
    failed: list[Failure] = []
    for pair in pairs:
        try:
            make_directory(Path(pair.target).parent)
            report = convert(
                pair.source,
                pair.target,
                strict=strict,
                inert=inert,
                check=check,
                codec=codec,
                run_id=run_id,
                progress=progress,
            )
        except CkptfmtError as error:
            if is_gone(pair.source):  # training removed it meanwhile
                continue
            failed.append(Failure(pair.source, error))
            done(failed[-1])
        else:
            converted.append(report)
            done(report)
    return TreeReport(tuple(converted), tuple(failed))
