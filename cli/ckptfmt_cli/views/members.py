"""Reports of `extract`, `pack` and `strip` as text."""

from __future__ import annotations

from ckptfmt._core.ops.members.extract import ExtractReport
from ckptfmt._core.ops.members.pack import PackReport
from ckptfmt._core.ops.members.strip import StripReport
from ckptfmt._escaping import escape
from ckptfmt_cli.text import count, size

__all__ = ["extract_lines", "pack_lines", "strip_lines"]


def extract_lines(report: ExtractReport) -> list[str]:
    """Return where the files are, how many there are, and their total size."""
    return [f"{escape(report.directory)}: {count(len(report.files), 'file')}, {size(report.file_bytes)}"]


def pack_lines(report: PackReport) -> list[str]:
    """Return where the checkpoint is, and its number of members and size."""
    return [f"{escape(report.path)}: {count(len(report.members), 'member')}, {size(report.file_bytes)}"]


def strip_lines(report: StripReport) -> list[str]:
    """Return where the new checkpoint is, its size beside that of the source, and what it holds and lacks."""
    sizes = f"{size(report.file_bytes)} of {size(report.source_bytes)}"
    return [
        f"{escape(report.path)}: {sizes}",
        f"kept: {', '.join(map(escape, report.kept)) or 'nothing'}",
        f"dropped: {', '.join(map(escape, report.dropped)) or 'nothing'}",
    ]
