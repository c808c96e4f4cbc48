"""What the pickles of a file would have run if somebody had loaded it: told without running any of it."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from ckptfmt._core.interop.base import open_tensors
from ckptfmt._core.ops.conversion.findings import findings_of
from ckptfmt._core.ops.conversion.report import Findings
from ckptfmt._core.pth.audit import Survey
from ckptfmt._core.pth.reading import look
from ckptfmt._core.runs.scan import reason
from ckptfmt._core.storage import open_source
from ckptfmt.errors import ForeignFileError, StateError

__all__ = ["GlobalsReport", "list_globals"]


@dataclass(frozen=True)
class GlobalsReport:
    """What the pickles of a file would have run.

    Attributes:
        path: The file, as it was named.
        form: In which form it is: `zip`, `torchscript`, `stream`, `tar` or `pickle`.
        survey: Every name in its pickles, and what becomes of it here.
        fault: Why it cannot be converted though it is safe, if it cannot.
        findings: What a conversion would tell of it; None if it cannot be converted.
    """

    path: str
    form: str
    survey: Survey
    fault: str | None
    findings: Findings | None

    @property
    def safe(self) -> bool:
        """Whether nothing in it asks for code to be run."""
        return self.survey.safe

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"globals/1"`), `path`, `form`, `fault` (or null), those of `Survey.to_json`, and those of
        `Findings.to_json` where there are any.
        """
        return {
            "report": "globals/1",
            "path": self.path,
            "form": self.form,
            "fault": self.fault,
            **self.survey.to_json(),
            **({} if self.findings is None else self.findings.to_json()),
        }


def list_globals(path: str | os.PathLike[str], *, inert: Collection[str] = ()) -> GlobalsReport:
    """Return what the pickles of a file would have run.

    A file that is refused for it, or broken, is reported like any other.

    Args:
        path: The file.
        inert: See `interop.base.open_tensors`.

    Raises:
        ForeignFileError: It is known to be something else than a file of PyTorch or a pickle.
        StorageError: It cannot be read.
    """
    with open_source(path) as source:
        container, survey = look(source, inert=inert)
    fault = None if container.fault is None else container.fault.detail
    findings = None
    if fault is None and survey.safe:
        try:
            with open_tensors(path, inert=inert) as file:
                findings = findings_of(file)
        except (ForeignFileError, StateError) as error:
            fault = reason(error, os.fspath(path))
    return GlobalsReport(os.fspath(path), container.form.value, survey, fault, findings)
