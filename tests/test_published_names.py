"""Nothing is published that a reader would refuse: names and facts are checked by the writer, whoever calls it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt._core.container.planning import MemberPlan, SavePlan, fixed_part
from ckptfmt._core.container.writer import write_plan
from ckptfmt._core.format.index import Metadata, is_member_name
from ckptfmt._core.format.layout import MAX_MEMBERS
from ckptfmt._core.format.parsing import validate_names
from ckptfmt._core.ops.conversion.convert import convert
from ckptfmt._core.ops.members.extract import FACTS_NAME, extract
from ckptfmt._core.ops.members.pack import pack
from ckptfmt._core.ops.members.strip import strip_file
from ckptfmt.errors import PackError, StateError

LONGEST = "x" * 148
REFUSED = {
    "empty": [""],
    "too long": ["x" * 161],
    "component too long": [f"{LONGEST}x.msgpack"],
    "no component": ["_.msgpack", ".msgpack"],
    "other letters": ["größe"],
    "a directory": ["a/b"],
    "twice": ["a", "a"],
    "tensors before tree": ["net.safetensors", "net.msgpack"],
    "apart": ["net.msgpack", "a", "net.safetensors"],
    "a state and another": ["_root.msgpack", "net.msgpack"],
    "too many": [f"m{number}" for number in range(MAX_MEMBERS + 1)],
}


def planned(names: list[str], metadata: Metadata | None = None) -> SavePlan:
    members = tuple(MemberPlan(name, "none", None, [fixed_part(b"\x80")]) for name in names)
    return SavePlan((), members, metadata or Metadata())


@pytest.mark.parametrize("why", REFUSED)
def test_the_writer_publishes_no_names_that_a_reader_refuses(why: str, tmp_path: Path) -> None:
    with pytest.raises(StateError):
        write_plan(tmp_path / "a.ckptfmt", planned(REFUSED[why]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [[], [f"{LONGEST}.msgpack"], ["x" * 160], ["net.msgpack", "a"]])
def test_the_writer_and_the_reader_agree_on_what_may_be(names: list[str], tmp_path: Path) -> None:
    write_plan(tmp_path / "a.ckptfmt", planned(names))
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert [member.name for member in checkpoint.index.members] == names


@pytest.mark.parametrize(
    "metadata", [Metadata(run_id=""), Metadata(run_id="x" * 257), Metadata(step=-1), Metadata(user={"\udcff": 1})]
)
def test_the_writer_publishes_no_facts_that_a_reader_refuses(metadata: Metadata, tmp_path: Path) -> None:
    with pytest.raises(StateError):
        write_plan(tmp_path / "a.ckptfmt", planned(["a"], metadata))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("run_id", ["", "x" * 257])
def test_convert_publishes_no_run_id_that_a_reader_refuses(run_id: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    with pytest.raises(StateError, match="run_id"):
        convert(tmp_path / "a.npz", tmp_path / "a.ckptfmt", run_id=run_id)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("name", [f"{LONGEST}x.msgpack", f"{LONGEST}xx.msgpack", "x" * 161, "größe", "a b"])
def test_pack_names_the_file_that_cannot_be_a_member(name: str, tmp_path: Path) -> None:
    members = tmp_path / "members"
    members.mkdir()
    (members / name).write_bytes(b"\x80")
    with pytest.raises(PackError, match="cannot name a member; rename or move"):
        pack(members, tmp_path / "a.ckptfmt")
    assert [path.name for path in tmp_path.iterdir()] == ["members"]


def test_pack_takes_the_longest_names(tmp_path: Path) -> None:
    members = tmp_path / "members"
    members.mkdir()
    (members / f"{LONGEST}.msgpack").write_bytes(b"\x80")
    (members / ("x" * 160)).write_bytes(b"1")
    pack(members, tmp_path / "a.ckptfmt")
    assert list(ckptfmt.load(tmp_path / "a.ckptfmt")) == [LONGEST]


def test_pack_takes_no_order_that_a_reader_refuses(tmp_path: Path) -> None:
    ckptfmt.save({"net": {"w": np.ones(3), "x": 1}}, tmp_path / "a.ckptfmt")
    extract(tmp_path / "a.ckptfmt", tmp_path / "members")
    facts = json.loads((tmp_path / "members" / FACTS_NAME).read_text())
    facts["members"].reverse()
    (tmp_path / "members" / FACTS_NAME).write_text(json.dumps(facts))
    with pytest.raises(PackError, match="directly before"):
        pack(tmp_path / "members", tmp_path / "b.ckptfmt")
    assert not (tmp_path / "b.ckptfmt").exists()


def test_strip_goes_by_the_same_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckptfmt.save({"net": {"w": np.ones(3)}, "other": {"x": 1}}, tmp_path / "a.ckptfmt")
    seen: list[list[str]] = []
    monkeypatch.setattr("ckptfmt._core.ops.members.strip.require_valid", lambda names, _: seen.append(names))
    strip_file(tmp_path / "a.ckptfmt", tmp_path / "b.ckptfmt", drop=["other"])
    assert seen == [["net.safetensors"]]


def test_save_refuses_a_component_that_cannot_be_a_member(tmp_path: Path) -> None:
    ckptfmt.save({LONGEST: {"w": np.ones(3)}}, tmp_path / "a.ckptfmt")
    assert list(ckptfmt.load(tmp_path / "a.ckptfmt")) == [LONGEST]
    ckptfmt.save({f"{LONGEST}x": {"w": np.ones(3)}}, tmp_path / "a.ckptfmt")  # it is one state then (11.5)
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert list(checkpoint) == ["_root"]


def test_one_rule_for_names() -> None:
    assert all(validate_names([name]) == [] for name in ("a", f"{LONGEST}.safetensors"))
    assert not is_member_name(f"{LONGEST}x.safetensors")
