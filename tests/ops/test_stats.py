from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ckptfmt
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.ops.inspection import stats as module
from ckptfmt._core.ops.inspection.stats import BINS, TensorStats, tensor_stats
from ckptfmt._core.ops.progress import Progress
from ckptfmt.errors import IntegrityError
from tests.ops.conftest import Save, flip_byte


def stats_of(path: Path, progress: Any = None) -> dict[str, TensorStats]:
    with open_tensors(path) as file:
        return {item.tensor.name: item for item in tensor_stats(file, list(file.tensors), progress)}


def check(item: TensorStats, array: np.ndarray[Any, Any]) -> None:
    """Compare statistics with what NumPy says."""
    flat = np.abs(array).ravel() if array.dtype.kind == "c" else array.ravel()
    wide = flat.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    assert item.finite == finite.size
    assert item.nan == np.count_nonzero(np.isnan(wide))
    assert item.inf == np.count_nonzero(np.isinf(wide))
    assert item.zeros == np.count_nonzero(wide == 0)
    if not finite.size:
        assert (item.minimum, item.maximum, item.mean, item.std, item.histogram) == (None,) * 5
        return
    assert (item.minimum, item.maximum) == (finite.min(), finite.max())
    with np.errstate(all="ignore"):
        scale = np.abs(finite).max() if finite.size else 1.0
        assert item.mean == pytest.approx(float(finite.mean()), rel=1e-6, abs=1e-9 * scale, nan_ok=True)
        assert item.std == pytest.approx(float(finite.std()), rel=1e-6, abs=1e-7 * scale, nan_ok=True)
    assert item.histogram is not None
    assert sum(item.histogram.counts) == finite.size
    assert len(item.histogram.counts) == BINS
    json.dumps(item.to_json(), allow_nan=False)


DTYPES = st.sampled_from([np.float32, np.float64, np.float16, np.int8, np.uint16, np.int64, np.bool_, np.complex64])


@given(arrays=st.lists(DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_side=8))), max_size=4))
def test_statistics_are_those_of_numpy(tmp_path_factory: pytest.TempPathFactory, arrays: list[Any]) -> None:
    path = tmp_path_factory.mktemp("stats") / "a.ckptfmt"
    ckptfmt.save({"net": {f"t{number}": array for number, array in enumerate(arrays)}}, path)
    found = stats_of(path)
    for number, array in enumerate(arrays):
        check(found[f"t{number}"], array)


@given(rows=DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, st.tuples(st.integers(2, 6), st.integers(1, 9)))))
def test_tensors_of_one_kind_are_told_apart(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> None:
    path = tmp_path_factory.mktemp("stats") / "a.ckptfmt"
    ckptfmt.save({"net": {f"t{number}": row for number, row in enumerate(rows)}}, path)
    found = stats_of(path)
    for number, row in enumerate(rows):
        check(found[f"t{number}"], row)
        with open_tensors(path) as file:  # alone, it is looked at in another way
            (alone,) = tensor_stats(file, [found[f"t{number}"].tensor])
        assert alone.to_json() == found[f"t{number}"].to_json()


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_tensors_of_several_chunks(save: Save, codec: str) -> None:
    rng = np.random.default_rng(0)
    large = rng.standard_normal(3_000_000) * 5 + 2
    large[:7], large[7:12], large[12] = np.nan, np.inf, 0
    check(stats_of(save(state={"net": {"w": large}}, codec=codec))["w"], large)


def test_a_histogram_is_close_to_the_exact_one(save: Save) -> None:
    values = np.random.default_rng(0).standard_normal(1_000_000)
    values[:10] = 9  # one block has a wider range than the others
    found = stats_of(save(state={"net": {"w": values}}))["w"].histogram
    assert found is not None
    exact, edges = np.histogram(values, BINS)
    assert (found.low, found.high) == (edges[0], edges[-1])
    assert np.abs(np.array(found.counts) - exact).sum() < 0.05 * values.size


@pytest.mark.parametrize(
    "array",
    [
        np.array([1.5, -2, 0], ml_dtypes.bfloat16),
        np.array([1.5, -2, 0], ml_dtypes.float8_e5m2),
        np.zeros((0, 3), np.float32),
        np.array(7, np.int64),
        np.array([-1.7e308, 1.7e308]),
        np.full(5, np.nan),
    ],
)
def test_unusual_tensors(save: Save, array: Any) -> None:
    check(stats_of(save(state={"net": {"w": array}}))["w"], array)


def test_tensors_without_numbers_are_left_out(save: Save, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", text=np.array(["a", "bc"]), w=np.arange(3))
    assert list(stats_of(tmp_path / "a.npz")) == ["w"]


def test_damage_is_an_error(save: Save) -> None:
    weights = np.random.default_rng(0).standard_normal(100)
    path = save(state={"net": {"w": weights}})
    flip_byte(path, weights.tobytes())
    with pytest.raises(IntegrityError, match="'w'"):
        stats_of(path)


def test_progress_reaches_the_end(save: Save) -> None:
    seen: list[Progress] = []
    stats_of(save(state={"net": {"w": np.zeros(3 << 20)}}), seen.append)
    assert seen[-1].done_bytes == seen[-1].total_bytes == 8 * (3 << 20)
    assert len(seen) == 6


def test_few_chunks_are_in_memory_at_once(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(state={"net": {"w": np.zeros(32 << 20, np.uint8)}})
    lock, held, most = threading.Lock(), 0, 0
    look = module._look

    def counted(item: Any) -> Any:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        try:
            return look(item)
        finally:
            with lock:
                held -= 1

    monkeypatch.setattr(module, "_look", counted)
    stats_of(path)
    assert 0 < most <= 8  # as many as there are workers


def test_nothing_of_a_tensor_that_is_not_asked_for_is_read(save: Save) -> None:
    secret = np.random.default_rng(0).standard_normal(100)
    path = save(state={"net": {"secret": secret, "w": np.ones(3)}})
    flip_byte(path, secret.tobytes())
    with open_tensors(path) as file:
        (item,) = tensor_stats(file, [tensor for tensor in file.tensors if tensor.name == "w"])
    assert item.mean == 1
    assert not math.isnan(item.std or 0)
