"""Values that differ between ranks: loaded all together or for one rank, and never one in place of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

import ckptfmt
import ckptfmt.torch
from ckptfmt import PerRank
from ckptfmt._core.container.numpy_adapter import NUMPY_ADAPTERS
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt.errors import IntegrityError, MismatchError, StateError
from tests import strategies
from tests.strategies import same

STATE: dict[str, Any] = {
    "net": {"w": np.ones(3), "avg": PerRank((np.zeros(2), np.full(4, 7.0)))},
    "log": PerRank(([1], {"seen": (np.ones(1),)})),
    "rest": {"lr": 0.5},
}


def one_rank(state: Any, rank: int) -> Any:
    """Return a state as one rank has it."""
    if isinstance(state, PerRank):
        return state.values[rank]
    if isinstance(state, dict):
        return {key: one_rank(value, rank) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(one_rank(value, rank) for value in state)
    return state


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=strategies.state_trees)
def test_one_rank_gets_what_is_the_same_everywhere_and_its_own_values(tmp_path: Path, state: Any) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save({"part": state, "rest": 1}, path)
    assert same(ckptfmt.load(path), {"part": state, "rest": 1})
    for rank in range(2):
        assert same(ckptfmt.load(path, rank=rank), {"part": one_rank(state, rank), "rest": 1})


def test_tensors_of_pytorch_go_where_they_are_wanted_in_each_value(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.torch.save({"net": {"avg": PerRank((torch.zeros(2), [torch.ones(3)]))}}, path)
    loaded = ckptfmt.torch.load(path, map_location="cpu")["net"]["avg"]
    assert isinstance(loaded, PerRank)
    assert (loaded.values[0].tolist(), loaded.values[1][0].tolist()) == ([0.0, 0.0], [1.0, 1.0, 1.0])
    assert ckptfmt.torch.load(path, rank=1)["net"]["avg"][0].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("rank", [2, -1])
def test_a_rank_without_values_is_refused_by_their_places(tmp_path: Path, rank: int) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save(STATE, path)
    with pytest.raises(MismatchError) as caught:
        ckptfmt.load(path, rank=rank)
    assert [line.partition(":")[0] for line in caught.value.differences] == ["net.avg"]


def test_what_is_loaded_for_one_rank_is_verified_for_all(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save(STATE, path)
    data = bytearray(path.read_bytes())
    place = data.index(np.full(4, 7.0).tobytes())
    data[place] ^= 1
    path.write_bytes(data)
    for rank in (0, 1, None):
        with pytest.raises(IntegrityError) as caught:
            ckptfmt.load(path, rank=rank)
        assert [problem.tensor for problem in caught.value.problems] == ["avg.1"]


def test_each_value_has_its_tensors_under_the_place_and_the_rank(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save(STATE, path)
    with Checkpoint.open(path, NUMPY_ADAPTERS) as checkpoint:
        assert list(checkpoint["net"].tensors) == ["w", "avg.0", "avg.1"]
        assert list(checkpoint["log"].tensors) == ["1.seen.0"]


@pytest.mark.parametrize("values", [(), (1,)])
def test_a_single_value_is_no_per_rank(values: tuple[int, ...]) -> None:
    with pytest.raises(StateError):
        PerRank(values)


def test_one_inside_another_is_refused_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        ckptfmt.save({"log": {"a": PerRank((1, [PerRank((1, 2))]))}}, tmp_path / "a.ckptfmt")
    assert caught.value.path == "log.a[1][0]"
    assert not list(tmp_path.iterdir())
