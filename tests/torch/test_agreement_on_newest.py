"""`ckptfmt latest` prints what `resume()` takes, whatever is there, and neither takes an older one in silence."""

from __future__ import annotations

import argparse
import os
import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptfmt.torch
from ckptfmt._core.ops.directory.latest import LatestReport, find_latest
from ckptfmt._core.pth import limits
from ckptfmt.errors import MismatchError, UnsafeInputError
from ckptfmt.torch import Checkpointer, ResumeError, ResumeReport, UndecidedError, UsageError, warm_start
from tests.torch.test_selection import START, Value, damage, put

EXTRAS: dict[str, Any] = {
    "nothing": {},
    "NumPy scalar": {"best": np.float64(0.5)},
    "NumPy array": {"best": np.arange(3)},
    "Namespace": {"args": argparse.Namespace(lr=1)},
    "Path": {"where": Path("a/b")},
    "NumPy epoch": {},
}


class Refused:
    """What a file must never be read for."""

    def __reduce__(self) -> Any:
        return (os.system, ("true",))


@dataclass(frozen=True)
class Pth:
    """A file of the documented loop."""

    epoch: int
    extra: str = "nothing"
    fate: str = "sound"

    def write(self, directory: Path, number: int) -> None:
        path = directory / f"f{number}.pth"
        epoch: Any = np.int64(self.epoch) if self.extra == "NumPy epoch" else self.epoch
        state = {"value": {"value": torch.full((100,), 1.25)}, "epoch": epoch, **EXTRAS[self.extra]}
        torch.save({**state, "it": Refused()} if self.fate == "refused" else state, path)
        data = bytearray(path.read_bytes())
        if self.fate == "damaged":
            data[data.index(np.float32(1.25).tobytes() * 100) + 40] ^= 1
        elif self.fate == "truncated":
            del data[len(data) // 2 :]
        path.write_bytes(data)


@dataclass(frozen=True)
class Own:
    """A file of this format."""

    run_id: str | None
    step: int
    epoch: int
    fate: str = "sound"

    def write(self, directory: Path, number: int) -> None:
        path = put(directory / f"f{number}.ckptfmt", self.step, run_id=self.run_id, epoch=self.epoch)
        if self.fate == "damaged":
            damage(path)
        elif self.fate == "truncated":
            path.write_bytes(path.read_bytes()[:-100])
        elif self.fate == "newer":
            path.write_bytes(path.read_bytes()[:12] + b"\2\0" + path.read_bytes()[14:])


files = st.one_of(
    st.builds(
        Pth,
        epoch=st.integers(0, 4),
        extra=st.sampled_from(list(EXTRAS)),
        fate=st.sampled_from(["sound", "sound", "sound", "damaged", "truncated", "refused"]),
    ),
    st.builds(
        Own,
        run_id=st.sampled_from(["a", "a", "b", None]),
        step=st.integers(0, 9),
        epoch=st.integers(0, 4),
        fate=st.sampled_from(["sound", "sound", "sound", "damaged", "truncated", "newer"]),
    ),
)


def fill(directory: Path, entries: list[Pth | Own]) -> None:
    for number, entry in enumerate(entries):
        entry.write(directory, number)


def resume(directory: Path, run_id: str | None = None) -> ResumeReport | ResumeError:
    try:
        return Checkpointer(directory, {"value": Value()}, run_id=run_id).resume(quiet=True, allow_mismatch=["rng"])
    except ResumeError as error:
        return error


def agree(latest: LatestReport, resumed: ResumeReport | ResumeError) -> None:
    if latest.undecided:
        assert latest.file is None
        assert isinstance(resumed, UndecidedError)
        assert {item.path for item in latest.undecided} == {item.path for item in resumed.skipped}
    elif latest.file is not None and latest.resumable:
        assert isinstance(resumed, ResumeReport)
        assert resumed.path == latest.file.path
    elif latest.skipped:
        assert isinstance(resumed, ResumeError)
        assert not isinstance(resumed, UndecidedError)
        assert {item.path for item in latest.skipped} == {item.path for item in resumed.skipped}
    else:
        assert isinstance(resumed, ResumeReport)
        assert resumed.path is None


@settings(max_examples=150, deadline=None)
@given(st.lists(files, max_size=5), st.sampled_from([None, None, "a", "c"]))
def test_latest_prints_what_resume_takes(entries: list[Pth | Own], run_id: str | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name), entries)
        latest = find_latest(name, run_id=run_id, verify=True)
        resumed = resume(Path(name), run_id)
        agree(latest, resumed)
        if isinstance(resumed, ResumeReport) and resumed.path is not None:
            chosen = entries[int(Path(resumed.path).stem[1:])]
            told = {Path(item.path).stem for item in resumed.skipped}
            for number, entry in enumerate(entries):
                if beats(entry, chosen):
                    assert f"f{number}" in told, "a newer one is passed over in silence"
            assert all(item.reason for item in resumed.skipped)


def beats(entry: Pth | Own, chosen: Pth | Own) -> bool:
    """Say whether a file may be newer than the chosen one, by what it was made of."""
    if isinstance(chosen, Own) and chosen.run_id is not None:
        if isinstance(entry, Own):
            return entry.run_id == chosen.run_id and (entry.step, entry.epoch) > (chosen.step, chosen.epoch)
        return entry.epoch + 1 > chosen.epoch and entry.fate != "refused"
    mine = chosen.epoch + isinstance(chosen, Pth)
    if isinstance(entry, Pth):
        return entry.epoch + 1 > mine
    return entry.run_id is None and entry.epoch > mine


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("which", [(3,), (1, 2, 3)])
def test_the_newest_pth_is_taken_whatever_stands_beside_its_states(
    tmp_path: Path, extra: str, which: tuple[int, ...]
) -> None:
    fill(tmp_path, [Pth(epoch, extra if epoch in which else "nothing") for epoch in (1, 2, 3)])
    assert find_latest(tmp_path).file == find_latest(tmp_path, verify=False).file is not None
    resumed = resume(tmp_path)
    assert isinstance(resumed, ResumeReport)
    assert (resumed.path, resumed.epoch) == (str(tmp_path / "f2.pth"), 4)


def test_a_refused_newest_one_stops_everything_and_says_what_to_do(tmp_path: Path) -> None:
    fill(tmp_path, [Pth(1), Pth(2, fate="refused")])
    error = resume(tmp_path)
    assert isinstance(error, UndecidedError)
    assert error.code == 78
    assert [Path(item.path).name for item in error.skipped] == ["f1.pth"]
    assert "system" in error.skipped[0].reason
    assert "inert=" in error.skipped[0].reason
    assert str(tmp_path / "f1.pth") in str(error)
    latest = find_latest(tmp_path)
    assert latest.file is None
    assert [Path(item.path).name for item in latest.undecided] == ["f1.pth"]


def test_a_person_lets_a_name_past_the_refusal(tmp_path: Path) -> None:
    fill(tmp_path, [Pth(1), Pth(2, fate="refused")])
    with pytest.raises(UndecidedError) as caught:
        Checkpointer(tmp_path, {"value": Value()}).resume(quiet=True, allow_mismatch=["rng"])
    name = "posix.system"
    assert name in caught.value.skipped[0].reason
    report = Checkpointer(tmp_path, {"value": Value()}).resume(quiet=True, allow_mismatch=["rng"], inert=[name])
    assert report.path == str(tmp_path / "f1.pth")
    found = find_latest(tmp_path, inert=[name]).file
    assert found is not None
    assert found.path == report.path
    with pytest.raises(UsageError, match="inert"):
        Checkpointer(tmp_path, {"value": Value()}).resume(inert=name)


def test_and_for_a_warm_start(tmp_path: Path) -> None:
    net, path = torch.nn.Linear(2, 2), tmp_path / "a.pth"
    torch.save({"net": net.state_dict(), "it": Refused()}, path)
    with pytest.raises(UnsafeInputError, match=r"posix\.system"):
        warm_start(path, torch.nn.Linear(2, 2), quiet=True)
    other = torch.nn.Linear(2, 2)
    warm_start(path, other, inert=["posix.system"], quiet=True)
    assert torch.equal(other.weight, net.weight)
    ckpt = Checkpointer(tmp_path / "run", {"net": torch.nn.Linear(2, 2)})
    ckpt.resume(quiet=True)
    ckpt.warm_start(path, inert=["posix.system"], quiet=True)
    ckpt.close()


def test_a_refused_one_that_is_known_to_be_older_or_no_checkpoint_stops_nothing(tmp_path: Path) -> None:
    fill(tmp_path, [Pth(1, fate="refused"), Pth(2), Own("a", 9, 3)])
    (tmp_path / "model.pth").write_bytes(pickle.dumps(Refused()))
    resumed = resume(tmp_path)
    assert isinstance(resumed, ResumeReport)
    assert resumed.path == str(tmp_path / "f2.ckptfmt")
    assert [Path(item.path).name for item in resumed.skipped] == ["model.pth"]
    agree(find_latest(tmp_path), resumed)


def test_what_is_beyond_a_limit_is_not_taken_for_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, [Pth(1), Pth(2)])
    state = {"value": {"value": [[] for _ in range(300)]}, "epoch": 5}
    torch.save(state, tmp_path / "f2.pth")
    monkeypatch.setattr("ckptfmt._core.pth.pickle.machine.MAX_CONTAINERS", 200)
    assert limits.MAX_CONTAINERS > 200
    error = resume(tmp_path)
    assert isinstance(error, UndecidedError)
    assert [Path(item.path).name for item in error.skipped] == ["f2.pth"]
    agree(find_latest(tmp_path), error)


def test_an_own_checkpoint_under_the_name_of_a_pth_file_is_one(tmp_path: Path) -> None:
    state = {"value": {"value": "own"}, "epoch": 4}
    fill(tmp_path, [Pth(1), Pth(2)])
    ckptfmt.torch.save(state, tmp_path / "ckpt_4.pth", created=START)
    resumed = resume(tmp_path)
    assert isinstance(resumed, ResumeReport)
    assert (resumed.path, resumed.epoch) == (str(tmp_path / "ckpt_4.pth"), 5)
    agree(find_latest(tmp_path, verify=True), resumed)


def test_own_checkpoints_without_a_run_count_by_their_epochs_where_there_is_no_run(tmp_path: Path) -> None:
    for epoch in (9, 10):
        ckptfmt.torch.save({"value": {"value": epoch}, "epoch": epoch}, tmp_path / f"ckpt_{epoch}.ckptfmt")
    put(tmp_path / "steps.ckptfmt", 10**6, run_id=None)
    resumed = resume(tmp_path)
    assert isinstance(resumed, ResumeReport)
    assert (resumed.path, resumed.epoch) == (str(tmp_path / "ckpt_10.ckptfmt"), 11)
    assert [Path(item.path).name for item in resumed.skipped] == ["steps.ckptfmt"]
    put(tmp_path / "mine.ckptfmt", 1)
    resumed = resume(tmp_path)
    assert isinstance(resumed, ResumeReport)
    assert resumed.path == str(tmp_path / "mine.ckptfmt")


def test_without_a_run_and_epochs_there_is_a_newest_and_nothing_to_resume_from(tmp_path: Path) -> None:
    for step in (9, 10):
        put(tmp_path / f"{step}.ckptfmt", step, run_id=None)
    latest = find_latest(tmp_path)
    assert latest.file is not None
    assert (latest.file.name, latest.resumable) == ("10.ckptfmt", False)
    resumed = resume(tmp_path)
    assert isinstance(resumed, ResumeReport)
    assert resumed.path is None
    assert {Path(item.path).name for item in resumed.skipped} == {"9.ckptfmt", "10.ckptfmt"}


def test_inert_data_of_a_converted_checkpoint_reach_no_component(tmp_path: Path) -> None:
    state = {"value": {"value": argparse.Namespace(lr=1)}, "epoch": 3}
    torch.save(state, tmp_path / "a.pth")
    (tmp_path / "run").mkdir()
    ckptfmt.convert(tmp_path / "a.pth", tmp_path / "run" / "a.ckptfmt")
    value = Value()
    with pytest.raises(MismatchError, match=r"value\.value: .*argparse\.Namespace"):
        Checkpointer(tmp_path / "run", {"value": value}).resume(quiet=True, allow_mismatch=["rng"])
    assert value.value is None
