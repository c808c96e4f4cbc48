"""The checkpoint that training would resume from."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace

from ckptfmt._core.catalog import Candidates, Choice, choose_settled, resume_candidates, scan_all, verified_all
from ckptfmt._core.ops.progress import Meter, Report
from ckptfmt._core.ops.report_json import metadata_json
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.scan import reason
from ckptfmt._core.storage.local.retries import Patience

__all__ = ["LatestReport", "SkippedFile", "find_latest"]


@dataclass(frozen=True)
class SkippedFile:
    """A file that was skipped, and why."""

    path: str
    reason: str

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `path`, `reason`."""
        return {"path": self.path, "reason": self.reason}


@dataclass(frozen=True)
class LatestReport:
    """Report of the newest checkpoint of a run.

    Attributes:
        directory: The directory, as it was named.
        run_id: The run; None if no checkpoint belongs to a run.
        file: The checkpoint; None if no checkpoint is usable, or if the newest cannot be determined.
        resumable: Whether training would resume from it. It does not resume from a checkpoint that belongs to no run
            and records no finished epochs, which is reported only if there is no other.
        skipped: Files that were skipped: newer ones, and those of unknown age.
        undecided: The skipped files that may be sound and newer. Training does not resume until somebody has looked at
            them.
    """

    directory: str
    run_id: str | None
    file: CheckpointReference | None
    resumable: bool = False
    skipped: tuple[SkippedFile, ...] = ()
    undecided: tuple[SkippedFile, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"latest/1"`), `directory`, `run_id` (or null), `path`, `file_bytes` and `identity` (null if
        there is none), `metadata` (see `metadata_json`, or null), `verified` (whether every byte was
        verified), `resumable` (whether training would resume from it), `skipped` and `undecided` (arrays, see
        `SkippedFile.to_json`; the first contains the second).
        """
        file = self.file
        return {
            "report": "latest/1",
            "directory": self.directory,
            "run_id": self.run_id,
            "path": None if file is None else file.path,
            "file_bytes": None if file is None else file.file_bytes,
            "identity": None if file is None else file.identity,
            "metadata": None if file is None else metadata_json(file.metadata),
            "verified": file is not None and file.verified,
            "resumable": self.resumable,
            "skipped": [item.to_json() for item in self.skipped],
            "undecided": [item.to_json() for item in self.undecided],
        }


def find_latest(
    directory: str | os.PathLike[str],
    *,
    run_id: str | None = None,
    verify: bool = False,
    inert: Collection[str] = (),
    progress: Report | None = None,
) -> LatestReport:
    """Return the newest checkpoint of a run by what is stored inside: the one that training would resume from.

    `catalog` decides which one that is. If only checkpoints without a run are there, it is the newest of these. If
    files are removed or replaced meanwhile, the directory is listed again.

    Args:
        directory: The directory.
        run_id: The run; None for the one that training would resume (`runs.scan.choose_run`).
        verify: Verify every byte, and return the newest sound checkpoint.
        inert: See `interop.opening.open_tensors`.
        progress: Called with the progress.

    Raises:
        StorageError: The directory cannot be listed.
    """
    patience = Patience()

    def use(file: CheckpointReference) -> CheckpointReference:
        def read() -> CheckpointReference:
            meter = Meter(file.path, file.file_bytes or 0, progress)
            checked = verified_all(file, meter.advance, inert=inert)
            if checked.error is not None:
                raise checked.error
            return checked

        return patience(read, file.path) if verify else file

    def look() -> Candidates:
        found = resume_candidates(scan_all(directory, inert=inert, patience=patience), run_id)
        return found if found.files or run_id is not None else replace(found, files=found.runless)

    candidates, choice = choose_settled(look(), use, look)
    loose = {file.path for file in candidates.runless}
    resumable = choice.file is not None and choice.file.path not in loose
    return _report(os.fspath(directory), candidates, choice, resumable=resumable)


def _report(
    directory: str, candidates: Candidates, choice: Choice[CheckpointReference], *, resumable: bool
) -> LatestReport:
    passed, undecided = (tuple(map(_skipped, files)) for files in (choice.skipped, choice.undecided))
    return LatestReport(directory, candidates.run_id, choice.result, resumable, passed, undecided)


def _skipped(file: CheckpointReference) -> SkippedFile:
    assert file.error is not None  # it would not have been skipped
    return SkippedFile(file.path, reason(file.error, file.path))
