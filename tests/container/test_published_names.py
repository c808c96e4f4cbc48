"""Nothing is published that a reader would refuse: one writer checks names, members and facts, whoever calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt._core.container.planning import MemberPlan, SavePlan, fixed_part
from ckptfmt._core.container.writer import write_plan
from ckptfmt._core.format.index import Member, Metadata, is_member_name
from ckptfmt._core.format.layout import MAX_MEMBERS
from ckptfmt._core.format.parsing import validate_names
from ckptfmt._core.format.tensors import Header, plan_header
from ckptfmt._core.ops.conversion.convert import convert
from ckptfmt._core.ops.members.extract import FACTS_NAME, extract
from ckptfmt._core.ops.members.pack import pack
from ckptfmt._core.ops.members.strip import strip_file
from ckptfmt.errors import PackError, Problem, StateError

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
    with pytest.raises(PackError) as caught:
        pack(members, tmp_path / "a.ckptfmt")
    assert name in str(caught.value)
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
    with pytest.raises(PackError, match=r"net\.msgpack"):
        pack(tmp_path / "members", tmp_path / "b.ckptfmt")
    assert not (tmp_path / "b.ckptfmt").exists()


def extract_and_pack(source: Path, target: Path) -> None:
    extract(source, source.with_name("members"))
    pack(source.with_name("members"), target)


WAYS: dict[str, Callable[[Path, Path], object]] = {
    "save": lambda _, target: ckptfmt.save({"net": {"w": np.ones(3)}}, target),
    "convert": convert,
    "strip": lambda source, target: strip_file(source, target, drop=["other"]),
    "pack": extract_and_pack,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_a_checkpoint_goes_by_the_rules_of_the_reader(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "a.ckptfmt", tmp_path / "b.ckptfmt"
    ckptfmt.save({"net": {"w": np.ones(3)}, "other": {"x": 1}}, source)
    target.write_bytes(b"what was there")
    seen: list[list[str]] = []

    def refuse(members: tuple[Member, ...], _: int) -> list[Problem]:
        seen.append([member.name for member in members])
        return [Problem("member-bytes", "no reader takes this")]

    with monkeypatch.context() as patched:
        patched.setattr("ckptfmt._core.container.writer.validate_members", refuse)
        with pytest.raises(StateError, match="member-bytes"):
            WAYS[way](source, target)
    assert "net.safetensors" in seen[0]
    assert target.read_bytes() == b"what was there"
    if way == "pack":
        return
    WAYS[way](source, target)
    assert np.array_equal(ckptfmt.load(target)["net"]["w"], np.ones(3))


HEADER = plan_header([("w", "U8", (3,))])


def with_header(header: Header, *contents: bytes) -> SavePlan:
    parts = [fixed_part(content) for content in contents]
    return SavePlan(("net",), (MemberPlan("net.safetensors", "none", header, parts),), Metadata())


UNREADABLE = {
    "an empty member": SavePlan((), (MemberPlan("a", "none", None, [fixed_part(b"")]),), Metadata()),
    "data longer than its header says": with_header(HEADER, HEADER.block(), b"1234"),
    "another header": with_header(HEADER, plan_header([("v", "U8", (3,))]).block(), b"123"),
}


@pytest.mark.parametrize("why", UNREADABLE)
def test_the_writer_publishes_no_member_that_a_reader_refuses(why: str, tmp_path: Path) -> None:
    with pytest.raises(StateError):
        write_plan(tmp_path / "a.ckptfmt", UNREADABLE[why])
    assert not list(tmp_path.iterdir())


def test_the_writer_publishes_no_index_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptfmt._core.format.layout.MAX_INDEX_BYTES", 100)
    with pytest.raises(StateError, match="limit-index"):
        write_plan(tmp_path / "a.ckptfmt", planned(["a", "b"]))
    assert not list(tmp_path.iterdir())


def test_strip_copies_the_entry_of_a_member(tmp_path: Path) -> None:
    state = {"other": {"x": 1}, "net": {"w": np.arange(5000.0)}}
    ckptfmt.save(state, tmp_path / "a.ckptfmt", codec="zstd")
    strip_file(tmp_path / "a.ckptfmt", tmp_path / "b.ckptfmt", drop=["other"])
    with ckptfmt.open(tmp_path / "a.ckptfmt") as before, ckptfmt.open(tmp_path / "b.ckptfmt") as after:
        (old,) = (member for member in before.index.members if member.component == "net")
        (new,) = after.index.members
        assert old.offset != new.offset
        assert replace(old, offset=new.offset) == new
        assert new.parsed_header == old.parsed_header


def test_save_refuses_a_component_that_cannot_be_a_member(tmp_path: Path) -> None:
    ckptfmt.save({LONGEST: {"w": np.ones(3)}}, tmp_path / "a.ckptfmt")
    assert list(ckptfmt.load(tmp_path / "a.ckptfmt")) == [LONGEST]
    ckptfmt.save({f"{LONGEST}x": {"w": np.ones(3)}}, tmp_path / "a.ckptfmt")  # it is one state then (11.5)
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert list(checkpoint) == ["_root"]


def test_one_rule_for_names() -> None:
    assert all(validate_names([name]) == [] for name in ("a", f"{LONGEST}.safetensors"))
    assert not is_member_name(f"{LONGEST}x.safetensors")


def test_save_refuses_more_dimensions_than_a_reader_takes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(StateError, match="net"):
        ckptfmt.save({"net": {"w": torch.ones([1] * 65)}}, tmp_path / "a.ckptfmt")
    assert not list(tmp_path.iterdir())


def test_convert_refuses_an_array_that_has_the_name_of_the_text_metadata(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", __metadata__=np.ones(3))
    with pytest.raises(StateError, match="__metadata__"):
        convert(tmp_path / "a.npz", tmp_path / "a.ckptfmt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
