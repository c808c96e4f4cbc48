"""The checkpoint that a training run would go on from."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ckptfmt.ops.jsonform import metadata_json
from ckptfmt.ops.mixed import scan_all, verified_all
from ckptfmt.ops.progress import Meter, Report
from ckptfmt.runs import EXTENSION, CheckpointFile, choose_run, merged, newest_first, reason, run_ids

__all__ = ["LatestReport", "PassedOver", "find_latest"]


@dataclass(frozen=True)
class PassedOver:
    """A file that could not be used, and why."""

    path: str
    reason: str

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `path`, `reason`."""
        return {"path": self.path, "reason": self.reason}


@dataclass(frozen=True)
class LatestReport:
    """The newest checkpoint of a run.

    Attributes:
        directory: The directory, as it was named.
        run_id: The run; None if no checkpoint belongs to one.
        file: The checkpoint; None if there is none that can be used.
        passed_over: What could not be used: newer ones, and files that do not tell how new they are.
    """

    directory: str
    run_id: str | None
    file: CheckpointFile | None
    passed_over: tuple[PassedOver, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"latest/1"`), `directory`, `run_id` (or null), `path`, `file_bytes` and `identity` (null if
        there is none), `metadata` (see `metadata_json`, or null), `verified` (whether every byte was read and found
        right), `passed_over` (array, see `PassedOver.to_json`).
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
            "passed_over": [item.to_json() for item in self.passed_over],
        }


def find_latest(
    directory: str | os.PathLike[str],
    *,
    run_id: str | None = None,
    verify: bool = False,
    inert: Collection[str] = (),
    progress: Report | None = None,
) -> LatestReport:
    """Return the newest checkpoint of a run by what is written inside: the one that a training would go on from.

    Among the checkpoints of a run count `.pth` files that have more epochs finished, and if no checkpoint belongs to
    a run, all that belong to none.

    Args:
        directory: The directory.
        run_id: The run; None for the one that would be resumed (`ckptfmt.runs.choose_run`).
        verify: Read every byte, and take the newest one that is right.
        inert: See `ckptfmt.ops.sources.open_tensors`.
        progress: Takes how far the reading is.

    Raises:
        StorageError: The directory cannot be listed.
    """
    files = scan_all(directory, inert=inert)
    run_id = choose_run(files) if run_id is None else run_id
    passed: list[CheckpointFile] = []
    found = None
    for file in _candidates(files, run_id):
        meter = Meter(file.path, file.file_bytes or 0, progress)
        checked = verified_all(file, meter.advance, inert=inert) if verify else file
        if checked.usable:
            found = checked
            break
        passed.append(checked)
    told = (*passed, *(file for file in files if not file.usable))
    return LatestReport(os.fspath(directory), run_id, found, tuple(_passed_over(file) for file in told))


def _candidates(files: Iterable[CheckpointFile], run_id: str | None) -> Iterable[CheckpointFile]:
    files = tuple(files)
    ours = newest_first(files, run_id)
    if run_id is None:
        return ours
    others = [file for file in files if file.usable and not file.path.endswith(EXTENSION)]
    return merged(ours, others if ours or not run_ids(files) else ())


def _passed_over(file: CheckpointFile) -> PassedOver:
    assert file.error is not None  # it would not have been passed over
    return PassedOver(file.path, reason(file.error, file.path))
