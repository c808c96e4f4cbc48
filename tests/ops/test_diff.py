from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt._core.format.packing import TensorRef, Typed
from ckptfmt._core.ops.comparison.diff import DiffReport, Side, diff_files
from ckptfmt._core.ops.comparison.tensor_changes import Change
from ckptfmt._core.ops.comparison.trees import compare_trees
from ckptfmt._core.ops.progress import Progress
from ckptfmt.errors import FormatError, IntegrityError, StorageError
from tests.ops.conftest import CREATED, Save, flip_byte
from tests.ops.sparse import sparse_checkpoint

RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((8, 16)).astype(np.float32)
TRAINING: dict[str, Any] = {
    "net": {"a": WEIGHTS, "b": WEIGHTS[0] * 3},
    "optimizer": {
        "state": {0: {"exp_avg": WEIGHTS * 2}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0, 1]}],
    },
    "rng": {"python": (3, (1, 2, 3), None), "torch": np.arange(5, dtype=np.uint8)},
    "progress": {"step": 5, "epoch": 1},
}


def with_net(**net: Any) -> dict[str, Any]:
    return {**TRAINING, "net": net}


def changes(report: DiffReport) -> list[tuple[str, str | None, str | None]]:
    return [
        (item.change.value, item.before.name if item.before else None, item.after.name if item.after else None)
        for item in report.tensors
    ]


def test_equal_content_is_the_same_however_it_is_stored(save: Save) -> None:
    one = save("a.ckptfmt", TRAINING, run_id="r", step=5)
    other = save("b.ckptfmt", TRAINING, run_id="s", step=6, codec="zstd", metrics={"loss": 1.0})
    report = diff_files(one, other)
    assert report.same
    assert report.equal_tensors == 4
    assert [fact.name for fact in report.facts] == ["run_id", "step", "metrics.loss"]
    assert report.resume.identical is True
    assert diff_files(one, one).facts == ()


def test_what_can_happen_to_a_tensor(save: Save) -> None:
    flat, wide, less = WEIGHTS * 2, WEIGHTS * 3, WEIGHTS * 4
    one = save(state=with_net(same=WEIGHTS, gone=WEIGHTS[1], old=WEIGHTS[2], flat=flat, wide=wide, less=less))
    net = {
        "same": WEIGHTS,
        "new": WEIGHTS[2],
        "flat": flat.reshape(16, 8),
        "wide": wide.astype(np.float64),
        "less": less + 1,
        "more": WEIGHTS[3],
    }
    other = save("b.ckptfmt", with_net(**net))
    report = diff_files(one, other)
    assert changes(report) == [
        ("removed", "gone", None),
        ("renamed", "old", "new"),
        ("reshaped", "flat", "flat"),
        ("retyped", "wide", "wide"),
        ("changed", "less", "less"),
        ("added", None, "more"),
    ]
    assert not report.same
    assert report.resume.identical is False
    assert report.resume.reason == "net differs"
    (net_difference, *others) = report.components
    assert (net_difference.equal, net_difference.tensors, net_difference.values) == (1, 6, 0)
    assert all(item.same for item in others)


def test_a_component_of_another_name_with_equal_tensors_was_renamed(save: Save) -> None:
    one = save("a.ckptfmt", {"model": {"w": WEIGHTS}, "kept": {"v": WEIGHTS[0]}})
    other = save("b.ckptfmt", {"net": {"w": WEIGHTS}, "kept": {"v": WEIGHTS[0]}})
    report = diff_files(one, other)
    assert [item.side for item in report.components] == [Side.BEFORE, Side.BOTH, Side.AFTER]
    (change,) = report.tensors
    assert change.change is Change.RENAMED
    assert change.before is not None
    assert change.after is not None
    assert (change.before.component, change.after.component) == ("model", "net")


def test_hyper_parameters_and_other_values_are_told_with_their_place(save: Save) -> None:
    group = {**TRAINING["optimizer"]["param_groups"][0], "lr": 0.01, "betas": (0.8, 0.99), "fused": True}
    changed = {**TRAINING, "optimizer": {**TRAINING["optimizer"], "param_groups": [group]}}
    report = diff_files(save("a.ckptfmt", TRAINING), save("b.ckptfmt", changed))
    assert [(item.component, item.path, repr(item.before), repr(item.after)) for item in report.values] == [
        ("optimizer", "param_groups[0].lr", "0.1", "0.01"),
        ("optimizer", "param_groups[0].betas[0]", "0.9", "0.8"),
        ("optimizer", "param_groups[0].fused", "absent", "True"),
    ]
    assert not report.same
    assert report.resume.reason == "optimizer differs"


def test_values_say_how_far_apart_and_the_farthest_come_first(save: Save) -> None:
    near, far = WEIGHTS.copy(), WEIGHTS.copy()
    near[0, 0] += 0.25
    far[:4] += 2
    one = save("a.ckptfmt", with_net(a=WEIGHTS, b=WEIGHTS * 1, c=WEIGHTS[0]))
    other = save("b.ckptfmt", with_net(a=near, b=far, c=-WEIGHTS[0]))
    report = diff_files(one, other, values=True)
    found = {item.before.name: item.values for item in report.tensors if item.before is not None}
    assert list(found) == sorted(found, key=lambda name: -found[name].max_abs)  # type: ignore[union-attr]  # all were compared
    assert found["a"] is not None
    assert (found["a"].changed, found["a"].elements, found["a"].share) == (1, 128, 1 / 128)
    assert found["a"].max_abs == pytest.approx(0.25, rel=1e-6)
    assert found["b"] is not None
    assert found["b"].changed == 64
    flat, other_flat = WEIGHTS.ravel().astype(float), far.ravel().astype(float)
    expected = flat @ other_flat / np.linalg.norm(flat) / np.linalg.norm(other_flat)
    assert found["b"].cosine == pytest.approx(expected, rel=1e-12)
    assert found["c"] is not None
    assert found["c"].cosine == pytest.approx(-1)
    assert found["c"].max_rel == pytest.approx(2)


@pytest.mark.parametrize(("tolerance", "same"), [(0.3, True), (0.25, True), (0.2, False)])
def test_differences_within_the_tolerance_do_not_count(save: Save, tolerance: float, same: bool) -> None:
    one = save("a.ckptfmt", with_net(a=np.zeros(5)))
    other = save("b.ckptfmt", with_net(a=np.array([0, 0, 0.25, 0, 0])))
    report = diff_files(one, other, tolerance=tolerance)
    assert report.same is same
    assert report.resume.identical is False, "a resumed run is not told apart by tolerances"


def test_what_is_not_a_number_is_no_difference_to_itself(save: Save) -> None:
    one = save("a.ckptfmt", with_net(a=np.array([np.nan, 1.0, np.inf, 0.0, 5.0])))
    other = save("b.ckptfmt", with_net(a=np.array([np.nan, 1.0, np.inf, -0.0, 6.0])))
    (change,) = diff_files(one, other, values=True).tensors
    assert change.values is not None
    assert (change.values.changed, change.values.max_abs) == (1, 1.0)
    third = save("c.ckptfmt", with_net(a=np.array([np.nan, np.nan, np.inf, 0.0, 5.0])))
    (change,) = diff_files(one, third, values=True).tensors
    assert change.values is not None
    assert change.values.max_abs == math.inf
    json.dumps(change.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("before", "after", "max_abs"),
    [
        (np.array([1, 2, 3], np.int64), np.array([1, 2, 9], np.int64), 6),
        (np.array([True, False]), np.array([True, True]), 1),
        (np.array([1 + 1j, 0], np.complex64), np.array([1 + 1j, 3 + 4j], np.complex64), 5),
        (np.array([1, 2], ml_dtypes.bfloat16), np.array([1, 4], ml_dtypes.bfloat16), 2),
        (np.array([1, 2], ml_dtypes.float8_e4m3fn), np.array([1, 4], ml_dtypes.float8_e4m3fn), 2),
        (np.array([1.5, 2], np.float16), np.array([1.5, 2.5], np.float64), 0.5),
    ],
)
def test_every_dtype_can_be_compared(save: Save, before: Any, after: Any, max_abs: float) -> None:
    one, other = save("a.ckptfmt", with_net(a=before)), save("b.ckptfmt", with_net(a=after))
    (change,) = diff_files(one, other, values=True).tensors
    assert change.values is not None
    assert (change.values.changed, change.values.max_abs) == (1, max_abs)


def test_long_tensors_of_two_dtypes_are_read_side_by_side(save: Save) -> None:
    long = RNG.standard_normal(3 << 20).astype(np.float32)
    one, other = save("a.ckptfmt", with_net(a=long)), save("b.ckptfmt", with_net(a=long.astype(np.float64)))
    (change,) = diff_files(one, other, values=True).tensors
    assert change.values is not None
    assert (change.change, change.values.changed, change.values.max_abs) == (Change.RETYPED, 0, 0)


def test_progress_is_told_in_bytes_and_an_interrupt_ends_the_reading_soon(save: Save, tmp_path: Path) -> None:
    long = RNG.standard_normal(3 << 20)
    one, other = save("a.ckptfmt", with_net(a=long)), save("b.ckptfmt", with_net(a=long + 1))
    np.savez(tmp_path / "a.npz", a=long)
    for before in (one, tmp_path / "a.npz"):
        seen: list[Progress] = []
        diff_files(before, other, values=True, progress=seen.append)
        assert len(seen) >= 6
        assert seen[-1].done_bytes == seen[-1].total_bytes == long.nbytes

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diff_files(one, other, values=True, progress=interrupt)


def test_formats_can_be_mixed(save: Save, tmp_path: Path) -> None:
    ours = save("a.ckptfmt", TRAINING)
    safetensors.numpy.save_file(TRAINING["net"], tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", **TRAINING["net"])
    assert diff_files(tmp_path / "a.safetensors", tmp_path / "a.npz").same
    report = diff_files(tmp_path / "a.safetensors", ours)
    assert changes(report) == []
    assert [(item.name, item.side, item.same) for item in report.components] == [
        ("net", Side.BOTH, True),
        ("optimizer", Side.AFTER, False),
        ("rng", Side.AFTER, False),
        ("progress", Side.AFTER, False),
    ]
    weights = save("b.ckptfmt", {"net": TRAINING["net"]})
    assert diff_files(weights, tmp_path / "a.npz").same
    np.savez(tmp_path / "b.npz", **{**TRAINING["net"], "b": TRAINING["net"]["b"] + 1})
    assert changes(diff_files(weights, tmp_path / "b.npz")) == [("changed", "b", "b")]


def test_the_verdict_knows_what_a_resume_needs(save: Save) -> None:
    without = {name: part for name, part in TRAINING.items() if name != "rng"}
    report = diff_files(save("a.ckptfmt", without), save("b.ckptfmt", without))
    assert (report.same, report.resume.identical) == (True, None)
    assert "rng" in report.resume.reason
    weights = {"net": TRAINING["net"]}
    report = diff_files(save("c.ckptfmt", weights), save("d.ckptfmt", weights))
    assert (report.same, report.resume.identical) == (True, None)


def test_nothing_is_read_of_two_of_ours(tmp_path: Path) -> None:
    one, other = tmp_path / "a.ckptfmt", tmp_path / "b.ckptfmt"
    sparse_checkpoint(one, (16 << 30) // 4)
    sparse_checkpoint(other, (16 << 30) // 4)
    with other.open("r+b") as file:  # damage in the data, which nobody looks at
        file.seek(8 << 30)
        file.write(b"x")
    assert diff_files(one, other).same


def test_damage_in_what_has_to_be_read_is_an_error(save: Save, tmp_path: Path) -> None:
    one, other = save("a.ckptfmt", with_net(a=WEIGHTS)), save("b.ckptfmt", with_net(a=WEIGHTS + 1))
    flip_byte(other, (WEIGHTS + 1).tobytes())
    assert not diff_files(one, other).same
    with pytest.raises(IntegrityError, match="'a'"):
        diff_files(one, other, values=True)
    other.write_bytes(b"")
    with pytest.raises(FormatError):
        diff_files(one, other)
    with pytest.raises(StorageError):
        diff_files(one, tmp_path / "missing")


def test_the_json_form(save: Save) -> None:
    one = save("a.ckptfmt", TRAINING, step=1)
    other = save("b.ckptfmt", with_net(a=WEIGHTS + 1), created=CREATED + timedelta(days=1))
    document = json.loads(json.dumps(diff_files(one, other, values=True).to_json(), allow_nan=False))
    assert list(document) == [
        *("report", "before", "after", "same", "tolerance", "components", "facts", "values", "tensors"),
        *("equal_tensors", "resume"),
    ]
    assert document["report"] == "diff/1"
    assert document["facts"] == [
        {"name": "step", "before": 1},
        {"name": "created", "before": "2026-03-01T09:00:00Z", "after": "2026-03-02T09:00:00Z"},
    ]
    assert [item["change"] for item in document["tensors"]] == ["changed", "removed"]
    assert set(document["tensors"][0]["values"]) == {"elements", "changed", "max_abs", "max_rel", "cosine"}


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(Typed, st.sampled_from(["a", "b"]), inner)
    ),
    max_leaves=10,
)


@given(TREES, TREES)
def test_trees_differ_where_they_do(one: object, other: object) -> None:
    assert list(compare_trees("c", one, one)) == []
    there, back = list(compare_trees("c", one, other)), list(compare_trees("c", other, one))
    assert sorted(item.path for item in there) == sorted(item.path for item in back)
    for item in there:
        json.dumps(item.to_json(), allow_nan=False)


def test_a_tensor_that_took_the_place_of_a_value_is_told() -> None:
    assert [item.path for item in compare_trees("c", {"a": 1}, {"a": TensorRef("a")})] == ["a"]
    assert [item.path for item in compare_trees("c", {"a": TensorRef("a")}, {"a": TensorRef("b")})] == ["a"]
    assert list(compare_trees("c", {}, {"a": TensorRef("a")})) == []


def test_two_of_ours_with_thousands_of_tensors_take_no_time(tmp_path: Path) -> None:
    names = [f"layer.{number}" for number in range(3000)]
    ckptfmt.save({"net": {name: np.full(4, 1.0) for name in names}}, tmp_path / "a.ckptfmt")
    ckptfmt.save({"net": {name: np.full(4, 2.0) for name in names}}, tmp_path / "b.ckptfmt")
    report = diff_files(tmp_path / "a.ckptfmt", tmp_path / "b.ckptfmt")
    assert len(report.tensors) == 3000
