"""`VerifyReport` as text: one line per file, and a summary."""

from __future__ import annotations

from ckptfmt._core.ops.directory.verify import FileVerdict, Verdict, VerifyReport
from ckptfmt._escaping import escape
from ckptfmt_cli.terminal import Style, Terminal
from ckptfmt_cli.text import count, listed, size
from ckptfmt_cli.views.component_names import is_unnamed

__all__ = ["summary_line", "verdict_line"]

_STYLES: dict[Verdict, Style] = {
    Verdict.SOUND: "good",
    Verdict.TRUNCATED: "warn",
    Verdict.UNREADABLE: "warn",
    Verdict.READABLE: "warn",
}


def verdict_line(file: FileVerdict, terminal: Terminal) -> str:
    """Return the finding about one file: `a.ckptfmt: ok`, `b.ckptfmt: damaged: 1 tensor: net fc.bias`."""
    word = "ok" if file.verdict is Verdict.SOUND else file.verdict.value
    details = escape(_details(file))
    painted = terminal.paint(word, _STYLES.get(file.verdict, "bad"))
    return f"{escape(file.path)}: {painted}" + (f": {details}" if details else "")


def summary_line(report: VerifyReport) -> str:
    """Return the number of files with each verdict, and their total size."""
    total = size(report.total_bytes)
    found = ", ".join(
        f"{report.count(verdict):,} {'ok' if verdict is Verdict.SOUND else verdict.value}"
        for verdict in Verdict
        if report.count(verdict)
    )
    return f"{count(len(report.files), 'file')}, {total}: {found}"


def _details(file: FileVerdict) -> str:
    if file.error is not None:
        return file.error
    tensors = [
        item.tensor if is_unnamed(item.component) else f"{item.component} {item.tensor}"
        for item in file.damaged_tensors
    ]
    others = [str(problem) for problem in file.problems if problem.tensor is None]
    if tensors:
        others = [f"{count(len(tensors), 'tensor')}: {listed(tensors, ', ')}", *others]
    return listed(others or [str(problem) for problem in file.problems], "; ")
