"""`resume` fills the memory that is there, and not before every byte of the checkpoint was verified."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

import ckptfmt.torch
from ckptfmt import IntegrityError
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt.torch import Checkpointer, ResumeError
from tests.torch.same import same
from tests.torch.training import Parts, places, trained


def saved(directory: Path, parts: Parts) -> Path:
    net, optimizer = parts
    ckpt = Checkpointer(directory, {"net": net, "optimizer": optimizer})
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.close()
    (path,) = directory.glob("*.ckptfmt")
    return path


def damage(path: Path, component: str, tensor: str) -> None:
    with ckptfmt.open(path) as checkpoint:
        member = checkpoint[component].tensor_member
        assert member is not None
        segment = next(segment for segment in member.segments if segment.tensor == tensor)
    content = bytearray(path.read_bytes())
    content[member.offset + segment.offset] ^= 1
    path.write_bytes(content)


def test_weights_and_moments_land_in_the_memory_that_is_there(tmp_path: Path) -> None:
    net, optimizer = trained(0)
    saved(tmp_path, (net, optimizer))
    other, its = trained(1)
    before = places(other, its)
    assert Checkpointer(tmp_path, {"net": other, "optimizer": its}).resume(quiet=True).resumed
    assert same((other.state_dict(), its.state_dict()), (net.state_dict(), optimizer.state_dict()))
    assert places(other, its) == before


def test_damage_is_found_before_anything_changes(tmp_path: Path) -> None:
    damage(saved(tmp_path, trained(0)), "optimizer", "state.1.exp_avg_sq")
    net, optimizer = trained(1)
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    with pytest.raises(ResumeError, match=r"state\.1\.exp_avg_sq"):
        Checkpointer(tmp_path, {"net": net, "optimizer": optimizer}).resume(quiet=True)
    assert same((net.state_dict(), optimizer.state_dict()), before)


def test_what_changes_after_it_was_verified_is_not_taken_for_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, trained(0))
    verify = Checkpoint.verify

    def verify_then_damage(checkpoint: Checkpoint) -> object:
        problems = verify(checkpoint)
        damage(path, "net", "2.weight")
        return problems

    monkeypatch.setattr(Checkpoint, "verify", verify_then_damage)
    net, optimizer = trained(1)
    with pytest.raises(IntegrityError) as caught:
        Checkpointer(tmp_path, {"net": net, "optimizer": optimizer}).resume(quiet=True)
    assert caught.value.problems[0].tensor == "2.weight"
    assert "net" in caught.value.__notes__[0]
