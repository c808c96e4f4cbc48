from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from ckptfmt._core.ops.inspection.inspect import inspect_file
from ckptfmt.errors import ForeignFileError, FormatError, IntegrityError, StorageError, TruncatedError
from tests.ops.conftest import CREATED, Save
from tests.ops.sparse import sparse_checkpoint


def test_the_facts_of_a_checkpoint(save: Save) -> None:
    path = save(run_id="digits-7f3a", epoch=3, step=1200, metrics={"val_loss": 0.31}, user={"note": "first"})
    report = inspect_file(path)
    assert report.path == str(path)
    assert report.file_bytes == path.stat().st_size
    assert report.version == (1, 0)
    assert report.identity is not None
    assert len(report.identity) == 64
    facts = report.metadata
    assert (facts.run_id, facts.epoch, facts.step, facts.created) == ("digits-7f3a", 3, 1200, CREATED)
    assert facts.metrics == {"val_loss": 0.31}
    assert facts.user == {"note": "first"}


def test_components_and_tensors_are_counted(save: Save) -> None:
    report = inspect_file(save())
    assert [(part.name, part.kind, part.tensors, part.elements) for part in report.components] == [
        ("net", "flat", 3, 48 + 3 + 1),
        ("optimizer", "tree", 1, 48),
        ("scheduler", "tree", 0, 0),
    ]
    assert [
        (tensor.component, tensor.name, tensor.dtype, tensor.shape, tensor.nbytes) for tensor in report.tensors
    ] == [
        ("net", "conv.weight", "F32", (3, 16), 192),
        ("net", "conv.bias", "F32", (3,), 12),
        ("net", "steps", "I64", (), 8),
        ("optimizer", "state.0.exp_avg", "F32", (3, 16), 192),
    ]
    assert report.elements == 100
    assert report.tensor_bytes == 404
    assert report.bytes_by_dtype == {"F32": 396, "I64": 8}
    assert report.opaque == ()


def test_members_are_where_the_report_says(save: Save) -> None:
    path = save()
    data = path.read_bytes()
    report = inspect_file(path)
    names = [member.name for part in report.components for member in part.members]
    assert names == ["net.safetensors", "optimizer.msgpack", "optimizer.safetensors", "scheduler.msgpack"]
    net = report.components[0].members[0]
    header = data[net.offset + 8 : net.offset + net.stored_bytes]
    assert header.startswith(b'{"conv.weight":{"dtype":"F32"')


def test_a_compressed_component_says_both_lengths(save: Save) -> None:
    report = inspect_file(save(state={"net": {"w": np.zeros(1 << 16, np.float32)}}, codec="zstd"))
    (net,) = report.components
    assert net.codec == "zstd"
    assert net.logical_bytes > 1 << 18
    assert net.stored_bytes < net.logical_bytes // 10


def test_the_json_form_is_valid_json_with_the_documented_keys(save: Save) -> None:
    path = save(
        metrics={"loss": float("nan"), "best": float("inf")}, user={"raw": b"\x01"}, parent=bytes(range(32)).hex()
    )
    document = json.loads(json.dumps(inspect_file(path).to_json(), allow_nan=False))
    assert list(document) == [
        *("report", "path", "form", "file_bytes", "version", "identity", "required_features", "metadata"),
        *("components", "opaque", "tensors", "state", "totals"),
    ]
    assert document["report"] == "inspect/1"
    assert document["version"] == "1.0"
    assert document["metadata"]["metrics"] == {"loss": "NaN", "best": "Infinity"}
    assert document["metadata"]["created"] == "2026-03-01T09:00:00Z"
    assert document["metadata"]["parent"] == bytes(range(32)).hex()
    assert document["metadata"]["user"] == {"raw": {"$bytes": "01"}}
    assert document["metadata"]["step"] is None
    assert document["tensors"][2] == {
        "component": "net",
        "name": "steps",
        "dtype": "I64",
        "shape": [],
        "nbytes": 8,
    }
    assert document["totals"]["bytes_by_dtype"] == {"F32": 396, "I64": 8}
    assert list(document["totals"]["bytes_by_component"]) == ["net", "optimizer", "scheduler"]


def test_a_file_that_is_no_sound_checkpoint_is_an_error(save: Save, tmp_path: Path) -> None:
    path = save()
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(TruncatedError):
        inspect_file(path)
    path.write_bytes(data[:-65] + b"\x01" + data[-64:] if data[-65] == 0 else data[:-66] + b"\x00" + data[-65:])
    with pytest.raises(IntegrityError):
        inspect_file(path)
    path.write_bytes(b"PK\x03\x04" + data)
    with pytest.raises(ForeignFileError) as foreign:
        inspect_file(path)
    assert foreign.value.path == str(path)
    path.write_bytes(b"#!/bin/sh\n" * 100)
    with pytest.raises(FormatError) as malformed:
        inspect_file(path)
    assert (malformed.value.code, malformed.value.path) == ("magic", str(path))
    with pytest.raises(StorageError):
        inspect_file(tmp_path / "missing.ckptfmt")


def _bytes_read() -> int:
    facts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(facts["rchar"])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what a process reads")
def test_only_head_and_tail_of_a_large_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "large.ckptfmt"
    sparse_checkpoint(path, (10 << 30) // 4)
    inspect_file(path)  # whatever is imported lazily is imported now
    before = _bytes_read()
    report = inspect_file(path)
    read = _bytes_read() - before
    assert report.file_bytes > 10 << 30
    assert report.elements == (10 << 30) // 4
    assert read < 1 << 20


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_without_permission_is_a_storage_error(save: Save) -> None:
    path = save()
    path.chmod(0)
    with pytest.raises(StorageError) as caught:
        inspect_file(path)
    assert caught.value.errno == errno.EACCES
