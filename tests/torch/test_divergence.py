"""States of several ranks put into one: each rank gets its own back, and what is equal is stored once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import ckptfmt.torch
from ckptfmt._core.container.adapters import TensorLeaf
from ckptfmt._core.container.planning import make_metadata, plan_components
from ckptfmt._core.container.state.flattening import FlatComponent, flatten_component
from ckptfmt._core.container.writer import write_plan
from ckptfmt._core.torch.state.collect import Collector
from ckptfmt._core.torch.state.divergence import Difference, describe, differences, excerpt, merged
from ckptfmt._core.torch.state.rank_digests import Subject, subject_of
from ckptfmt._core.torch.tensors.adapter import TORCH_ADAPTERS, TorchAdapter
from tests import strategies
from tests.torch.same import same

leaves = st.one_of(strategies.scalars, strategies.arrays(), strategies.numpy_scalars)
trees = strategies.trees(leaves)


def flat(tree: object) -> FlatComponent:
    return flatten_component("part", tree, TORCH_ADAPTERS)


def found(states: Sequence[object]) -> list[Difference]:
    subjects = [Subject(flat(state), frozenset(), frozenset()) for state in states]
    return differences("part", [describe(subject, large=True) for subject in subjects])


def saved(path: Path, states: Sequence[object]) -> list[str]:
    """Save the states of ranks as one file; return where they were found to differ."""
    parts = [flat(state) for state in states]
    where = found(states)
    excerpts = [excerpt(part, [difference.path for difference in where]) for part in parts[1:]]
    whole = merged(parts[0], where, excerpts) if where else parts[0]
    write_plan(path, plan_components([whole], metadata=make_metadata({}), text_metadata={}))
    return [difference.place for difference in where]


@st.composite
def related(draw: st.DrawFn) -> list[Any]:
    """Two or three states that may be equal, or differ in a part, or in all."""
    first = draw(trees)

    def changed(value: Any) -> Any:
        what = draw(st.sampled_from(["same"] * 4 + ["other"]))
        if what == "other":
            return draw(trees)
        if isinstance(value, dict):
            return {key: changed(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(changed(item) for item in value)
        return value

    return [first, *(changed(first) for _ in range(draw(st.integers(1, 2))))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=related())
def test_each_rank_gets_back_what_it_had(tmp_path: Path, states: list[Any]) -> None:
    path = tmp_path / "a.ckptfmt"
    places = saved(path, states)
    for rank, state in enumerate(states):
        assert same(ckptfmt.torch.load(path, rank=rank)["part"], state), places
    assert bool(places) == any(written(state) != written(states[0]) for state in states)


def written(state: object) -> list[Any]:
    """Return what is written of a state."""
    part = flat(state)
    return [part.structure, *((name, leaf.dtype, leaf.shape, leaf.read_copy()) for name, leaf in part.tensors.items())]


@pytest.mark.parametrize(
    ("one", "other", "places"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, ["part.b"]),
        ({"a": [1, 2]}, {"a": [1]}, ["part.a"]),
        ({"a": [1, 2, 3]}, {"a": [1, 2, 4]}, ["part.a"]),  # one value, not one for each number
        ({"a": [{"lr": 1}, {"lr": 2}]}, {"a": [{"lr": 1}, {"lr": 3}]}, ["part.a[1].lr"]),
        ({"a": [torch.zeros(1), 1]}, {"a": [torch.ones(1), 1]}, ["part.a[0]"]),
        ({0: {"x": torch.zeros(2)}}, {0: {"x": torch.zeros(3)}}, ["part[0].x"]),
        ({"x": torch.zeros(2)}, {"x": torch.zeros(2, dtype=torch.int32)}, ["part.x"]),
        ({"a": {"x": 1}, "b": 1}, {"a": {"y": 1}, "b": 1}, ["part.a"]),
        ({"a": {"x": 1, "y": 1}}, {"a": {"y": 1, "x": 1}}, ["part.a"]),  # the order is content (spec 10.4)
        ({"a": {1: 0}}, {"a": {True: 0}}, ["part.a"]),
        ({"a": (1, {})}, {"a": [1, {}]}, ["part.a"]),
        ({"a": 0.0}, {"a": -0.0}, ["part.a"]),
        ({"a": float("nan")}, {"a": float("nan")}, []),
        ({"a": np.float32(1)}, {"a": 1.0}, ["part.a"]),
        ({"a": {1, 2}}, {"a": {2, 3}}, ["part.a"]),
        ([1], {"a": 1}, ["part"]),
        ({"a": torch.zeros(2).to_sparse()}, {"a": torch.ones(2).to_sparse()}, ["part.a"]),
        ({"a": torch.zeros(2, dtype=torch.complex128)}, {"a": torch.ones(2, dtype=torch.complex128)}, ["part.a"]),
    ],
)
def test_the_smallest_values_that_differ_are_found(
    tmp_path: Path, one: object, other: object, places: list[str]
) -> None:
    path = tmp_path / "a.ckptfmt"
    assert saved(path, [one, other, one]) == places
    for rank, state in enumerate([one, other, one]):
        assert same(ckptfmt.torch.load(path, rank=rank)["part"], state)


def test_ties_stay_ties_of_the_rank_that_has_them(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    tied, loose = torch.ones(2), torch.ones(2)
    saved(path, [{"a": tied, "b": tied, "c": 1}, {"a": loose, "b": loose.clone(), "c": 1}])
    assert [(part := ckptfmt.torch.load(path, rank=rank)["part"])["a"] is part["b"] for rank in range(2)] == [
        True,
        False,
    ]
    both = [torch.zeros(2), torch.ones(2)]
    assert saved(path, [{"a": tensor, "b": tensor} for tensor in both]) == ["part.a", "part.b"]
    for rank in range(2):
        part = ckptfmt.torch.load(path, rank=rank)["part"]
        assert part["a"] is part["b"]
        assert part["a"].tolist() == both[rank].tolist()


def test_a_mapping_of_which_nearly_all_differs_is_one_value() -> None:
    assert len(found([{"a": dict.fromkeys(range(1000), rank), "b": 1} for rank in range(2)])) == 1
    large = {"weight": torch.zeros(100_000)}
    assert len(found([large | dict.fromkeys(map(str, range(1000)), rank) for rank in range(2)])) == 1000


@pytest.mark.parametrize("number", range(7))
def test_the_windows_of_a_tensor_are_all_of_it(number: int) -> None:
    torch.manual_seed(number)
    values = torch.randn(6, 5, 4, 3)
    tensor: torch.Tensor = [
        values,
        values.to(memory_format=torch.channels_last),
        values[:, 1:],
        values.permute(3, 2, 1, 0),
        values > 0,
        torch.randn(9, 7, dtype=torch.complex64).conj(),
        torch.zeros(0, 3),
    ][number]
    leaf = TorchAdapter().encode(tensor, "x")
    assert isinstance(leaf, TensorLeaf)
    data = bytes(leaf.read())
    for nbytes in (8, 64, 100_000):
        pieces = [bytes(leaf.window(turn, nbytes)) for turn in range(len(data) // 8 + 1)]
        assert b"".join(pieces).startswith(data)


def test_samples_come_to_every_part_of_every_large_tensor() -> None:
    net = nn.Sequential(nn.Linear(200, 300), nn.Linear(300, 100))  # 90,000 values in 6 windows, and two biases
    subjects = [subject_of(net, flat(net.state_dict())) for _ in range(2)]
    assert subjects[0].large == {"0.weight", "0.bias", "1.weight", "1.bias"}
    for name, parameter in net.named_parameters():
        before = [subjects[0].fingerprint(turn) for turn in range(8)]
        with torch.no_grad():
            parameter.view(-1)[-1] += 1
        after = [subjects[0].fingerprint(turn) for turn in range(8)]
        assert [one.small == other.small for one, other in zip(before, after, strict=True)] == [True] * 8
        assert any(one.large != other.large for one, other in zip(before, after, strict=True)), name


def test_one_process_compares_nothing() -> None:
    net = nn.Linear(2, 2)
    collected = Collector({"net": net}).collect(lambda: {"rng": {}})
    assert collected is not None
    assert (collected.found, collected.excerpts, len(collected.own)) == ({}, (), 1)
    assert [component.name for component in collected.put_together()] == ["net", "rng"]
