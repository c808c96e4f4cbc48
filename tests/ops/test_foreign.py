"""Plain `.safetensors` and `.npz` files as files of tensors: read as their libraries do, and total for any bytes."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.ops.directory.verify import read_all
from ckptfmt._core.ops.inspection.inspect import inspect_file
from ckptfmt.errors import CkptfmtError, ForeignFileError, UnsafeInputError

KINDS = st.sampled_from(["<f4", ">f4", "<f8", "<f2", "<i8", ">i4", "u1", "?", "<c8", ">c16", "<U3", "S5"])
ARRAYS = KINDS.flatmap(lambda kind: hnp.arrays(np.dtype(kind), hnp.array_shapes(min_dims=0, max_side=5)))


def contents(path: Path) -> dict[str, tuple[tuple[int, ...], bytes]]:
    """Return shape and data of each tensor of a file, as the chunks give them and as a whole."""
    with open_tensors(path) as file:
        (part,) = file.components.values()
        assert all(tensor.read() == b"".join(chunk() for chunk in tensor.chunks()) for tensor in part.tensors.values())
        return {name: (info.shape, info.read_copy()) for name, info in part.tensors.items()}


@given(st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), ARRAYS, max_size=4), st.booleans(), st.booleans())
def test_npz_is_read_as_numpy_wrote_it(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, Any], packed: bool, fortran: bool
) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    given_arrays = {name: np.asfortranarray(array) if fortran else array for name, array in arrays.items()}
    savez: Any = np.savez_compressed if packed else np.savez
    savez(path, **given_arrays)
    found = contents(path)
    assert found.keys() == arrays.keys()
    for name, array in given_arrays.items():
        little = array.astype(array.dtype.newbyteorder("<"))
        assert found[name] == (array.shape, np.ascontiguousarray(little).tobytes() if array.size else b"")


def test_large_arrays_of_every_layout(tmp_path: Path) -> None:
    large = np.random.default_rng(0).standard_normal((1500, 900))
    arrays = {"c": large, "fortran": np.asfortranarray(large), "big": large.astype(">f8")}
    savez: Any = np.savez
    savez(tmp_path / "a.npz", **arrays)
    assert {data for _, data in contents(tmp_path / "a.npz").values()} == {large.tobytes()}


def test_pickled_arrays_are_never_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(2), code=np.array([{"a": 1}], dtype=object))
    assert len(inspect_file(tmp_path / "a.npz").tensors) == 2
    with open_tensors(tmp_path / "a.npz") as file, pytest.raises(UnsafeInputError, match="code"):
        read_all(file)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5).filter(lambda name: name != "__metadata__"),
        hnp.arrays(st.sampled_from([np.float32, np.int64, np.bool_]), hnp.array_shapes(min_dims=0, max_side=5)),
        max_size=4,
    ),
    st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)
def test_safetensors_are_read_as_their_library_wrote_them(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, Any], text: dict[str, str] | None
) -> None:
    path = tmp_path_factory.mktemp("st") / "a.safetensors"
    text = text or None  # of an empty mapping, the library makes a header that is no JSON
    path.write_bytes(safetensors.numpy.save(arrays, text))
    assert contents(path) == {name: (array.shape, array.tobytes()) for name, array in arrays.items()}
    with open_tensors(path) as file:
        assert dict(file.components["_root"].text_metadata) == (text or {})


def header(document: object, data: bytes = b"") -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text + data


W = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        header(b"{"),
        header(b'{"a":1,"a":2}'),
        header({"w": W}),  # no data
        header({"w": W}, bytes(9)),  # too much
        header({"w": {**W, "data_offsets": [0, 4]}}, bytes(8)),
        header({"w": {**W, "data_offsets": [1, 9]}}, bytes(9)),  # a hole
        header({"w": W, "v": W}, bytes(8)),  # one over the other
        header({"w": {**W, "shape": [-2]}}, bytes(8)),
        header({"w": {**W, "shape": [2.0]}}, bytes(8)),
        header({"w": {**W, "shape": [True, 2]}}, bytes(8)),
        header({"w": {**W, "shape": [1] * 100}}, bytes(8)),
        header({"w": {**W, "shape": [2**62, 2**62]}}, bytes(8)),
        header({"w": {**W, "dtype": "F31"}}, bytes(8)),
        header({"w": {**W, "dtype": 5}}, bytes(8)),
        header({"w": {**W, "more": 1}}, bytes(8)),
        header({"w": 5}, bytes(8)),
        header({"__metadata__": {"a": 1}}),
        header({"__metadata__": []}),
        header(b"{" + b'"a":[' * 50_000),
        struct.pack("<Q", 10**8) + b"{}",
        struct.pack("<Q", 5) + b"{}",
    ],
)
def test_safetensors_that_are_not_valid_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CkptfmtError):
        inspect_file(path)


def archive(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in entries.items():
            made.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(descr: str = "'<f4'", order: str = "False", shape: str = "(2,)", data: bytes = bytes(8)) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        archive(w=b""),
        archive(w=b"\x93NUMPY\x09\x00" + bytes(20)),
        archive(w=npy(shape="(3,)")),
        archive(w=npy(shape="(-2,)")),
        archive(w=npy(shape="2")),
        archive(w=npy(shape="(2**70,)")),
        archive(w=npy(descr="[('a', '<f4', 3)]")),
        archive(w=npy(descr="[('a',)]")),
        archive(w=npy(order="1")),
        archive(w=npy(shape="(0, 9" + "9" * 4200 + ")", data=b"")),
        archive(w=npy(descr="'<f4', __import__('os').system('true')")),
        archive(w=npy(descr="__import__('os')")),
        archive(w=b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535),
        b"PK\x03\x04" + bytes(100),
    ],
)
def test_npz_that_is_not_valid_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(CkptfmtError):
        inspect_file(path)


def test_npz_with_elements_that_we_have_no_dtype_for(tmp_path: Path) -> None:
    records = np.array([(1.5, [1, 2])], [("a", "<f4"), ("b", ">i2", (2,))])
    times = np.array(["2026-03-01"], "datetime64[s]")
    objects = np.array([(1, None)], [("a", "<f4"), ("b", "O")])
    np.savez(tmp_path / "a.npz", records=records, times=times, long=np.longdouble(3), objects=objects)
    with open_tensors(tmp_path / "a.npz") as file:
        (part,) = file.components.values()
        assert part.tensors["records"].dtype == "[('a', '<f4'), ('b', '>i2', (2,))]"
        assert part.tensors["times"].dtype == "<M8[s]"
        assert part.tensors["records"].read() == records.tobytes()
        assert part.tensors["times"].read() == times.tobytes()
        assert np.frombuffer(part.tensors["long"].read(), np.longdouble) == 3
        with pytest.raises(UnsafeInputError, match=r"'objects'|objects\.npy"):
            part.tensors["objects"].read()


def test_npz_with_names_that_are_no_paths(tmp_path: Path) -> None:
    names = ["dense/kernel:0", "/absolute", "../up", "A", "a", "a\\b", "Grüße", ""]
    arrays: dict[str, Any] = {name: np.full(2, number) for number, name in enumerate(names)}
    np.savez(tmp_path / "a.npz", **arrays)
    assert set(contents(tmp_path / "a.npz")) == set(names)


def test_a_damaged_array_is_told_when_it_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.arange(1000))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.index(np.arange(1000).tobytes()) + 100] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with open_tensors(tmp_path / "a.npz") as file, pytest.raises(ForeignFileError):
        read_all(file)


SOUND = [
    safetensors.numpy.save({"w": np.arange(4.0), "v": np.ones((2, 3), np.int32)}, {"a": "b"}),
    archive(w=npy(), v=npy(descr="'>c8'", order="True", shape="(2, 2)", data=bytes(32))),
]


@given(st.sampled_from(SOUND), st.data())
def test_any_change_ends_in_a_result_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, sound: bytes, data: st.DataObject
) -> None:
    changed = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(changed)) | st.just(len(changed)))
    path = tmp_path_factory.mktemp("any") / "a.bin"
    path.write_bytes(changed[:end])
    try:
        inspect_file(path)
        with open_tensors(path) as file:
            read_all(file)
    except CkptfmtError:
        pass
