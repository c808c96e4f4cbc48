"""Stripping, extracting and packing: what stays, stays byte for byte (spec 6.5)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.format.packing import Timestamp
from ckptfmt._core.ops.members.extract import FACTS_NAME, extract
from ckptfmt._core.ops.members.pack import pack
from ckptfmt._core.ops.members.plain_json import decode_metadata, encode_metadata
from ckptfmt._core.ops.members.strip import strip_file
from ckptfmt._core.ops.progress import Progress
from ckptfmt._core.storage.local.publication.atomic_directory import AtomicDirectory
from ckptfmt.errors import (
    CkptfmtError,
    FormatError,
    IntegrityError,
    NotFoundError,
    PackError,
    StorageError,
    UnsupportedVersionError,
)
from tests.ops.conftest import CREATED, Save, flip_byte
from tests.spec.vectors import VALID

RNG = np.random.default_rng(0)
STATE: dict[str, Any] = {
    "net": {f"layer.{number}.w": RNG.standard_normal(number + 1) for number in range(50)},
    "optimizer": {"state": {0: {"exp_avg": RNG.standard_normal(700_000)}}, "lr": 0.1},
    "rng": {"seed": 5, "state": np.arange(9)},
    "notes": [1, "two", None],
}
FACTS: dict[str, Any] = {"run_id": "r", "step": 7, "epoch": 1, "metrics": {"loss": 0.5}, "user": {"host": "node7"}}


@pytest.fixture
def with_opaque(save: Save, tmp_path: Path) -> Path:
    """Return a checkpoint with a member that belongs to no component."""
    extract(save(state=STATE, **FACTS), tmp_path / "members")
    (tmp_path / "members" / "dataset.arrow").write_bytes(RNG.bytes(5_000_000))
    pack(tmp_path / "members", tmp_path / "with.ckptfmt")
    return tmp_path / "with.ckptfmt"


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


# Stripping.


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_what_stays_is_the_same_and_the_rest_is_gone(save: Save, tmp_path: Path, codec: str) -> None:
    source, target = save(state=STATE, codec=codec, **FACTS), tmp_path / "small.ckptfmt"
    report = strip_file(source, target, drop=["optimizer", "rng"])
    assert (report.kept, report.dropped) == (("net", "notes"), ("optimizer", "rng"))
    assert report.file_bytes == target.stat().st_size < report.source_bytes
    with ckptfmt.open(source) as before, ckptfmt.open(target) as after:
        assert after.verify() == ()
        assert list(after) == ["net", "notes"]
        assert [after[name].identity for name in after] == [before[name].identity for name in after]
        assert after["net"].codec == codec
        assert after.identity == report.identity
        facts = after.metadata
        assert (facts.step, facts.epoch, facts.metrics, facts.created) == (7, 1, {"loss": 0.5}, CREATED)
        assert facts.user == {"host": "node7"}
        assert facts.parent == bytes.fromhex(before.identity)
        assert facts.run_id is None, "no training takes it for a checkpoint to go on from"


def test_only_keeps_these_and_notes_can_go(save: Save, tmp_path: Path) -> None:
    strip_file(save(state=STATE, **FACTS), tmp_path / "b.ckptfmt", keep=["net"], notes=False)
    with ckptfmt.open(tmp_path / "b.ckptfmt") as after:
        assert list(after) == ["net"]
        assert after.metadata.user is None


def test_members_that_belong_to_no_component_are_kept_unless_named(with_opaque: Path, tmp_path: Path) -> None:
    report = strip_file(with_opaque, tmp_path / "a2.ckptfmt", drop=["net"])
    assert "dataset.arrow" in report.kept
    with ckptfmt.open(with_opaque) as before, ckptfmt.open(tmp_path / "a2.ckptfmt") as after:
        assert after.read_opaque("dataset.arrow") == before.read_opaque("dataset.arrow")
    assert "dataset.arrow" in strip_file(with_opaque, tmp_path / "a3.ckptfmt", drop=["dataset.arrow"]).dropped


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_damaged_byte_is_not_copied(save: Save, tmp_path: Path, codec: str) -> None:
    weights = RNG.bytes(5000)
    path = save(state={"net": {"w": np.frombuffer(weights, np.uint8), "v": np.ones(3)}, "rng": [1]}, codec=codec)
    flip_byte(path, weights[100:150])
    with pytest.raises(IntegrityError, match="'w'"):
        strip_file(path, tmp_path / "b.ckptfmt", drop=["rng"])
    assert names(tmp_path) == [path.name]
    strip_file(path, tmp_path / "b.ckptfmt", keep=["rng"])  # what is damaged need not stay


def test_names_that_are_not_there_and_the_file_itself_are_refused(save: Save, tmp_path: Path) -> None:
    path = save(state=STATE)
    data = path.read_bytes()
    with pytest.raises(NotFoundError, match="'optimiser'"):
        strip_file(path, tmp_path / "b.ckptfmt", drop=["optimiser"])
    (tmp_path / "link").symlink_to(path)
    for target in (path, tmp_path / "link"):
        with pytest.raises(StorageError, match=target.name):
            strip_file(path, target, drop=["net"])
    assert path.read_bytes() == data


@pytest.mark.parametrize("rewrite", [strip_file, ckptfmt.convert])
def test_a_file_of_a_newer_version_is_not_rewritten(tmp_path: Path, rewrite: Callable[..., object]) -> None:
    """Its index may hold what this program does not know, and a copy would lose."""
    for vector in VALID:
        if vector.name.startswith("newer-minor"):
            (tmp_path / "a.ckptfmt").write_bytes(vector.data())
            with pytest.raises(UnsupportedVersionError):
                rewrite(tmp_path / "a.ckptfmt", tmp_path / "b.ckptfmt")
            assert not (tmp_path / "b.ckptfmt").exists()


def test_progress_of_stripping_reaches_the_end(save: Save, tmp_path: Path) -> None:
    seen: list[Progress] = []
    strip_file(save(state=STATE), tmp_path / "b.ckptfmt", drop=["net"], progress=seen.append)
    assert seen[-1].done_bytes == seen[-1].total_bytes


# Extracting and packing.


@pytest.mark.parametrize("codec", ["none", "zstd", {"optimizer": "zstd"}])
def test_out_and_back_again_gives_the_same_bytes(save: Save, tmp_path: Path, codec: Any) -> None:
    path = save(state=STATE, codec=codec, **FACTS)
    extract(path, tmp_path / "out")
    report = pack(tmp_path / "out", tmp_path / "b.ckptfmt")
    assert (tmp_path / "b.ckptfmt").read_bytes() == path.read_bytes()
    with ckptfmt.open(path) as checkpoint:
        assert report.identity == checkpoint.identity


def test_every_valid_vector_comes_back_the_same(tmp_path: Path) -> None:
    for vector in VALID:
        if vector.name.startswith("newer-minor"):
            continue
        path, again = tmp_path / f"{vector.name}.ckptfmt", tmp_path / f"{vector.name}.again"
        path.write_bytes(vector.data())
        extract(path, tmp_path / vector.name)
        pack(tmp_path / vector.name, again)
        with ckptfmt.open(path) as one, ckptfmt.open(again) as other:
            assert encode_metadata(one.metadata) == encode_metadata(other.metadata), vector.name
            assert [part.identity for part in one.values()] == [part.identity for part in other.values()], vector.name
            assert list(one) == list(other)


def test_each_file_is_one_of_its_format(save: Save, tmp_path: Path) -> None:
    extract(save(state=STATE, codec="zstd"), tmp_path / "out")
    net = safetensors.numpy.load_file(tmp_path / "out" / "net.safetensors")
    assert list(net) == sorted(STATE["net"], key=list(net).index)
    assert all(np.array_equal(net[name], value) for name, value in STATE["net"].items())
    assert msgpack.unpackb((tmp_path / "out" / "notes.msgpack").read_bytes()) == [1, "two", None]
    facts = json.loads((tmp_path / "out" / FACTS_NAME).read_text())
    assert [member["name"] for member in facts["members"]] == [
        *("net.safetensors", "optimizer.msgpack", "optimizer.safetensors", "rng.msgpack", "rng.safetensors"),
        "notes.msgpack",
    ]


def test_some_can_be_extracted_alone(save: Save, tmp_path: Path) -> None:
    path = save(state=STATE)
    report = extract(path, tmp_path / "out", names=["rng", "net.safetensors"])
    assert names(tmp_path / "out") == [FACTS_NAME, "net.safetensors", "rng.msgpack", "rng.safetensors"]
    assert sorted(report.files) == names(tmp_path / "out")
    with pytest.raises(NotFoundError, match=r"'ema'.*net"):
        extract(path, tmp_path / "other", names=["ema"])


def test_a_failure_leaves_nothing(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = RNG.bytes(500)
    path = save(state={"a": {"v": np.ones(3)}, "net": {"w": np.frombuffer(weights, np.uint8)}})
    flip_byte(path, weights)
    with pytest.raises(IntegrityError, match="'w'"):
        extract(path, tmp_path / "out")
    assert names(tmp_path) == [path.name]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AtomicDirectory, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(save(state=STATE), tmp_path / "out")
    assert names(tmp_path) == [path.name]


def test_a_directory_that_holds_something_is_left_as_it_is(save: Save, tmp_path: Path) -> None:
    path = save(state=STATE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match=re.escape(str(tmp_path / "out"))):
        extract(path, tmp_path / "out")
    assert names(tmp_path / "out") == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    extract(path, tmp_path / "empty")
    with pytest.raises(StorageError):
        extract(path, tmp_path / "none" / "below")


def test_files_of_other_programs_can_be_packed(tmp_path: Path) -> None:
    directory = tmp_path / "in"
    directory.mkdir()
    tensors = {"b": np.arange(5, dtype=np.float32), "a": np.arange(16.0).reshape(4, 4)}
    safetensors.numpy.save_file(tensors, directory / "net.safetensors", {"format": "np"})
    (directory / "config.msgpack").write_bytes(msgpack.packb({"lr": 0.5, "name": "x"}))
    (directory / "README").write_text("a file")
    (directory / ".DS_Store").write_bytes(b"x")
    report = pack(directory, tmp_path / "a.ckptfmt", codec="zstd")
    assert report.members == ("config.msgpack", "net.safetensors", "README")
    state = ckptfmt.load(tmp_path / "a.ckptfmt")
    assert state["config"] == {"lr": 0.5, "name": "x"}
    assert all(np.array_equal(state["net"][name], value) for name, value in tensors.items())
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert checkpoint.verify() == ()
        assert checkpoint["net"].text_metadata == {"format": "np"}
        assert checkpoint.read_opaque("README") == b"a file"


def test_facts_can_be_edited(save: Save, tmp_path: Path) -> None:
    extract(save(state=STATE, **FACTS), tmp_path / "out")
    path = tmp_path / "out" / FACTS_NAME
    document = json.loads(path.read_text())
    document["metadata"]["user"]["note"] = "published"
    del document["metadata"]["run_id"]
    path.write_text(json.dumps(document))
    pack(tmp_path / "out", tmp_path / "b.ckptfmt")
    with ckptfmt.open(tmp_path / "b.ckptfmt") as checkpoint:
        assert checkpoint.metadata.user == {"host": "node7", "note": "published"}
        assert checkpoint.metadata.run_id is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("net.msgpack", b"\xc1"),
        ("net.msgpack", b"\xcd\x00\x01"),  # not canonical
        ("net.safetensors", b"no header"),
        ("-x", b"1"),
        ("\u00f6.msgpack", b"\x01"),
        ("empty", b""),
        (FACTS_NAME, b"not JSON"),
        (FACTS_NAME, b"[]"),
        (FACTS_NAME, b'{"members": [], "metadata": {"stpe": 1}}'),
        (FACTS_NAME, b'{"members": [], "metadata": {"step": -1}}'),
        (FACTS_NAME, b'{"members": [], "metadata": {"step": "x"}}'),
        (FACTS_NAME, b'{"members": [], "metadata": {"created": "today"}}'),
        (FACTS_NAME, b'{"members": [], "metadata": {"metrics": {"a": "x"}}}'),
        (FACTS_NAME, b'{"members": [{"name": "gone", "codec": "none"}], "metadata": {}}'),
        (FACTS_NAME, b'{"members": [{"name": "b", "codec": "lzma"}], "metadata": {}}'),
        (FACTS_NAME, b"[" * 100_000),
    ],
)
def test_what_makes_no_checkpoint_is_told_and_nothing_is_written(tmp_path: Path, name: str, content: bytes) -> None:
    directory = tmp_path / "in"
    directory.mkdir()
    (directory / "b").write_bytes(b"1")
    (directory / name).write_bytes(content)
    with pytest.raises(CkptfmtError) as caught:
        pack(directory, tmp_path / "a.ckptfmt")
    assert name in str(caught.value) or "gone" in str(caught.value)
    assert names(tmp_path) == ["in"]


def test_a_tree_that_does_not_fit_its_tensors_is_told(save: Save, tmp_path: Path) -> None:
    extract(save(state=STATE), tmp_path / "out")
    (tmp_path / "out" / "optimizer.safetensors").unlink()
    (tmp_path / "out" / FACTS_NAME).unlink()
    with pytest.raises(FormatError, match=r"state\.0\.exp_avg"):
        pack(tmp_path / "out", tmp_path / "b.ckptfmt")


def test_directories_and_two_states_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in" / "below").mkdir(parents=True)
    with pytest.raises(PackError, match="below"):
        pack(tmp_path / "in", tmp_path / "a.ckptfmt")
    (tmp_path / "in" / "below").rmdir()
    (tmp_path / "in" / "_root.msgpack").write_bytes(b"\x01")
    (tmp_path / "in" / "net.msgpack").write_bytes(b"\x01")
    with pytest.raises(PackError, match="_root"):
        pack(tmp_path / "in", tmp_path / "a.ckptfmt")


@pytest.mark.parametrize("name", ["_x", "_x.msgpack", "shards.index"])
def test_reserved_names_are_kept_and_not_given(tmp_path: Path, name: str) -> None:
    """6.5 and 6.7."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"\x01")
    with pytest.raises(PackError):
        pack(tmp_path / "in", tmp_path / "a.ckptfmt")
    (tmp_path / "in" / FACTS_NAME).write_text(
        f'{{"metadata": {{}}, "members": [{{"name": "{name}", "codec": "none"}}]}}', encoding="utf-8"
    )
    assert pack(tmp_path / "in", tmp_path / "a.ckptfmt").members == (name,)


KEYS = st.sampled_from(["a", "$bytes", "$map", "$float", "$time"]) | st.integers()
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.datetimes(timezones=st.just(UTC))
    | st.builds(Timestamp, st.integers(0, 2**50), st.integers(0, 999_999_999)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "$bytes", "$map", "$float", "$time"]) | st.integers(), inner, max_size=3
        )
    ),
    max_leaves=10,
)


@given(
    st.builds(
        Metadata,
        run_id=st.none() | st.text(min_size=1, max_size=5),
        step=st.none() | st.integers(0, 2**40),
        metrics=st.none() | st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=3),
        created=st.none() | st.datetimes(timezones=st.just(UTC)),
        parent=st.none() | st.binary(min_size=32, max_size=32),
        user=st.none() | st.dictionaries(st.text(max_size=5), PLAIN, max_size=3),
    )
)
def test_facts_become_json_and_back_without_loss(metadata: Metadata) -> None:
    document = json.loads(json.dumps(encode_metadata(metadata), allow_nan=False))
    assert decode_metadata(document) == metadata


def test_what_is_not_a_number_survives_json() -> None:
    metadata = Metadata(metrics={"a": float("nan"), "b": float("-inf")}, created=datetime(2026, 3, 1, tzinfo=UTC))
    found = decode_metadata(json.loads(json.dumps(encode_metadata(metadata))))
    assert found.metrics is not None
    assert np.isnan(found.metrics["a"])
    assert found.metrics["b"] == float("-inf")
