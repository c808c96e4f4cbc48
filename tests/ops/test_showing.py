from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

import ckptfmt
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.ops.inspection.tensor_preview import TensorView, find_tensor, view_tensor
from ckptfmt.errors import CkptfmtError, NotFoundError
from tests.ops.conftest import Save
from tests.ops.sparse import sparse_checkpoint


def view(path: Path, name: str = "w") -> TensorView:
    with open_tensors(path) as file:
        return view_tensor(file, find_tensor(file.tensors, name))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.array(5.5),
        np.array([True, False]),
        np.array([1 + 2j], np.complex64),
        np.zeros((0, 4)),
        np.arange(1001),
        np.random.default_rng(0).standard_normal((50, 60)),
        np.random.default_rng(0).standard_normal((9, 10, 11, 12)).astype(np.float32),
        np.arange(10_000).reshape(2, 5000),
        np.arange(5_000_000, dtype=np.int64),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_it_is_shown_as_numpy_shows_it(save: Save, array: Any) -> None:
    assert view(save(state={"net": {"w": array}})).text(75) == np.array2string(array, max_line_width=75)


@given(hnp.arrays(np.int32, hnp.array_shapes(max_dims=4, max_side=12)))
def test_any_shape_is_shown_as_numpy_shows_it(tmp_path_factory: pytest.TempPathFactory, array: Any) -> None:
    path = tmp_path_factory.mktemp("show") / "a.ckptfmt"
    ckptfmt.save({"net": {"w": array}}, path)
    assert view(path).text(75) == np.array2string(array, max_line_width=75)


def test_short_floats_are_shown_as_numbers(save: Save) -> None:
    path = save(state={"net": {"w": np.array([1.5, -2], ml_dtypes.bfloat16)}})
    assert view(path).text(75) == "[ 1.5 -2. ]"


def test_of_a_huge_tensor_only_its_corners_are_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.ckptfmt"
    sparse_checkpoint(path, (64 << 30) // 4)
    assert view(path, "wte.weight").text(75) == "[0. 0. 0. ... 0. 0. 0.]"


def test_many_dimensions_are_shown_as_one(save: Save) -> None:
    path = save(state={"net": {"w": np.zeros((7,) * 6 + (2,))}})
    assert view(path).text(75) == "[0. 0. 0. ... 0. 0. 0.]"


def test_names_are_found_with_and_without_their_component(save: Save) -> None:
    path = save(state={"net": {"w": np.ones(1), "v": np.ones(2)}, "ema": {"w": np.zeros(1)}})
    assert view(path, "v").tensor.nbytes == 16
    assert view(path, "ema.w").tensor.component == "ema"
    with pytest.raises(NotFoundError, match=r"net\.w, ema\.w"):
        view(path, "w")
    with pytest.raises(NotFoundError, match=r"net\.v\b"):
        view(path, "net.vv")


def test_text_has_no_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.array(["a"]))
    with pytest.raises(CkptfmtError, match="'w'"):
        view(tmp_path / "a.npz")


def test_the_json_form(save: Save) -> None:
    path = save(state={"net": {"w": np.array([[1.0, np.nan], [np.inf, 2]]), "large": np.zeros(2000)}})
    document = json.loads(json.dumps(view(path).to_json(), allow_nan=False))
    assert document["values"] == [1.0, "NaN", "Infinity", 2.0]
    assert (document["name"], document["shape"]) == ("w", [2, 2])
    assert view(path, "large").to_json()["values"] is None
