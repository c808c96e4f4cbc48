"""The reports on every vector of the spec."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from ckptfmt._core.ops.directory.listing import EntryState, list_directory
from ckptfmt._core.ops.directory.verify import Verdict, verify_paths
from ckptfmt._core.ops.inspection.inspect import inspect_file
from ckptfmt.errors import FormatError, Problem, ProblemKind
from ckptfmt_cli.terminal import PLAIN
from ckptfmt_cli.views.inspect import inspect_lines
from ckptfmt_cli.views.tensors import tensor_lines
from tests.spec.vectors import INVALID, VALID, Vector

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WORDS = {
    ProblemKind.TRUNCATED: Verdict.TRUNCATED,
    ProblemKind.MALFORMED: Verdict.MALFORMED,
    ProblemKind.LIMIT: Verdict.MALFORMED,
    ProblemKind.UNSUPPORTED: Verdict.UNSUPPORTED,
    ProblemKind.CORRUPT: Verdict.DAMAGED,
}
STATES = {
    Verdict.TRUNCATED: EntryState.INCOMPLETE,
    Verdict.MALFORMED: EntryState.DAMAGED,
    Verdict.DAMAGED: EntryState.DAMAGED,
    Verdict.UNSUPPORTED: EntryState.UNREADABLE,
}


def unpack(vectors: list[Vector], directory: Path) -> None:
    for vector in vectors:
        (directory / f"{vector.name}.ckptfmt").write_bytes(vector.data())


def test_valid_vectors_are_sound_listed_and_shown(tmp_path: Path) -> None:
    unpack(VALID, tmp_path)
    verdicts = {Path(file.path).stem: file for file in verify_paths([tmp_path]).files}
    states = {Path(entry.path).stem: entry.state for entry in list_directory(tmp_path).entries}
    assert set(states.values()) == {EntryState.OK}
    assert set(states) == {vector.name for vector in VALID}
    for vector in VALID:
        content = vector.content
        assert verdicts[vector.name].verdict is Verdict.SOUND, vector.name
        assert verdicts[vector.name].identity == content["identity"]
        report = inspect_file(verdicts[vector.name].path)
        json.dumps(report.to_json(), allow_nan=False)
        assert all(
            line.isprintable()
            for line in inspect_lines(report, PLAIN, NOW, tensor_lines(report.tensors, PLAIN, all_tensors=True))
        )
        assert {part.name: (part.kind == "flat", part.tensors) for part in report.components} == {
            name: (part["flat"], len(part["tensors"])) for name, part in content["components"].items()
        }


def test_invalid_vectors_are_called_what_they_are(tmp_path: Path) -> None:
    unpack(INVALID, tmp_path)
    files = {Path(file.path).stem: file for file in verify_paths([tmp_path]).files}
    states = {Path(entry.path).stem: entry.state for entry in list_directory(tmp_path).entries}
    assert set(files) == set(states) == {vector.name for vector in INVALID}
    for vector in INVALID:
        file, state = files[vector.name], states[vector.name]
        assert file.verdict in {WORDS[Problem(code, "").kind] for code in vector.codes}, vector.name
        try:
            if inspect_file(file.path).form != "ckptfmt":
                continue
        except FormatError:
            assert state is STATES[file.verdict], vector.name
        else:
            assert state is EntryState.OK, vector.name  # only the data tell
