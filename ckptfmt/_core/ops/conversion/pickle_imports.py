"""What the pickles of a file would import and call if somebody loaded it, found without running any of it."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from ckptfmt._core.interop.findings import Findings
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.pth.audit import Audit
from ckptfmt._core.pth.reading import scan
from ckptfmt._core.runs.scan import reason
from ckptfmt._core.storage import open_source
from ckptfmt.errors import ForeignFileError, StateError

__all__ = ["PickleImportsReport", "list_pickle_imports"]


@dataclass(frozen=True)
class PickleImportsReport:
    """Report of what the pickles of a file would import and call.

    Attributes:
        path: The file, as it was named.
        form: Its form: `zip`, `torchscript`, `stream`, `tar` or `pickle`.
        audit: Audit of its pickles: every name, with a verdict.
        fault: Why the file cannot be converted although it is safe; None if it can be.
        findings: What a conversion would report; None if the file cannot be converted.
    """

    path: str
    form: str
    audit: Audit
    fault: str | None
    findings: Findings | None

    @property
    def safe(self) -> bool:
        """Whether nothing in the file is refused."""
        return self.audit.safe

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"pickle-imports/1"`), `path`, `form`, `fault` (or null), those of `Audit.to_json`,
        and those of `Findings.to_json` if there are any.
        """
        return {
            "report": "pickle-imports/1",
            "path": self.path,
            "form": self.form,
            "fault": self.fault,
            **self.audit.to_json(),
            **({} if self.findings is None else self.findings.to_json()),
        }


def list_pickle_imports(path: str | os.PathLike[str], *, inert: Collection[str] = ()) -> PickleImportsReport:
    """Return what the pickles of a file would import and call.

    A file that is refused or broken is reported like any other.

    Args:
        path: The file.
        inert: See `interop.opening.open_tensors`.

    Raises:
        ForeignFileError: The file is neither a PyTorch file nor a pickle.
        StorageError: It cannot be read.
    """
    with open_source(path) as source:
        container, audit = scan(source, inert=inert)
    fault = None if container.fault is None else container.fault.detail
    findings = None
    if fault is None and audit.safe:
        try:
            with open_tensors(path, inert=inert) as file:
                findings = file.findings() if file.components else None
        except (ForeignFileError, StateError) as error:
            fault = reason(error, os.fspath(path))
    return PickleImportsReport(os.fspath(path), container.form.value, audit, fault, findings)
