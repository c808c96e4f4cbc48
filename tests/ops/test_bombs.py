"""Files of other formats that want all memory or all time: one error of ours, or a result within bounds."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.interop.readers import npz
from ckptfmt._core.ops.directory.verify import read_all
from ckptfmt._core.ops.inspection.inspect import inspect_file
from ckptfmt._core.pth.data import gathering, tensors
from ckptfmt.errors import CkptfmtError, UnsupportedFileError
from tests.ops.test_any_bytes import header, npy
from tests.ops.test_foreign import contents
from tests.pth.test_limits import archive_of

pytest.importorskip("resource", reason="limits the memory of a process as POSIX does")

MOST_BYTES = 2 << 30  # of address space: an interpreter with NumPy takes most of one GiB
MIB = 1 << 20


def fortran_bomb() -> bytes:
    """An archive of 1 MiB whose one array is a GiB of zeros in Fortran order."""
    nbytes = 1 << 30
    start = npy("'<f4'", "True", f"({nbytes // 8}, 2)", b"")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(16 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(start)
    for _ in range(64):
        crc = zlib.crc32(bytes(16 * MIB), crc)
    end = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
    return archive_of([("a.npy", first + 64 * block + end, len(start) + nbytes, crc, 8)])


def of_lists(opening: bytes) -> bytes:
    return header(opening + b"[]," * 30_000_000 + b"[]]}}")


BOMBS: dict[str, Callable[[], bytes]] = {
    "fortran.npz": fortran_bomb,
    "lists.safetensors": lambda: of_lists(b'{"a":['),
    "lists_for_a_shape.safetensors": lambda: of_lists(b'{"a":{"dtype":"F32","shape":['),
    "lists_for_metadata.safetensors": lambda: of_lists(b'{"__metadata__":{"a":['),
    "opened_lists.safetensors": lambda: header(b"[" * 99_000_000),
    "objects.safetensors": lambda: header(b'{"a":' * 100_000),
}
OUTCOMES = {"fortran.npz": "compressed and in Fortran order"}


@pytest.mark.parametrize("command", ["inspect", "inspect --stats", "convert", "verify", "diff"])
@pytest.mark.parametrize("name", BOMBS)
def test_it_ends_in_one_error_within_bounds(tmp_path: Path, command: str, name: str) -> None:
    import resource

    path = tmp_path / name
    path.write_bytes(BOMBS[name]())
    arguments = {"convert": ["out.ckptfmt"], "diff": [name]}.get(command, [])
    done = subprocess.run(
        [sys.executable, "-m", "ckptfmt_cli", *command.split(), name, *arguments],
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES)),
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    told = done.stdout + done.stderr
    assert "Traceback" not in told
    if name == "fortran.npz" and command == "inspect":
        assert done.returncode == 0
        return
    assert done.returncode in (1, 3)
    assert OUTCOMES.get(name, "not a valid .safetensors file") in told
    assert [child.name for child in tmp_path.iterdir()] == [name]


def test_a_header_takes_memory_in_proportion(tmp_path: Path) -> None:
    count = 20_000
    text = ",".join(f'"{number}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for number in range(count))
    (tmp_path / "a.safetensors").write_bytes(header(f"{{{text}}}".encode()))
    tracemalloc.start()
    with open_tensors(tmp_path / "a.safetensors") as file:
        assert len(file.components["_root"].tensors) == count
        _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 500 * count


@pytest.mark.parametrize("length", [100_000_001, 200_000_000, 1 << 34])
def test_a_header_beyond_the_limit_of_the_format_is_told_as_such(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + b'{"a":' + bytes(100))
    with pytest.raises(CkptfmtError, match="100,000,000"):
        inspect_file(tmp_path / "a.safetensors")


def test_a_header_at_the_limit_of_the_format_is_read(tmp_path: Path) -> None:
    text = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(100_000_000)
    (tmp_path / "a.safetensors").write_bytes(header(text, b"x"))
    assert safetensors.numpy.load_file(tmp_path / "a.safetensors")["a"].tolist() == [120]
    assert contents(tmp_path / "a.safetensors") == {"a": ((1,), b"x")}


@pytest.mark.parametrize("name", ["config.json", "trainer_state.json"])
def test_json_of_very_many_values(tmp_path: Path, name: str) -> None:
    weights = safetensors.numpy.save({"w": np.ones(2, np.float32)})
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(f"[{'[],' * 5_000_000}[]]")
    with pytest.raises(UnsupportedFileError, match=name):
        inspect_file(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [">c16", "<U4"])
@pytest.mark.parametrize("shape", [(900, 600), (2, 300_000), (300_000, 2), (30, 100, 200)])
def test_fortran_order_is_undone_in_bounded_memory(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "_WHOLE_BYTES", 1 << 16)
    for name in ("BLOCK_BYTES", "CHUNK_BYTES", "_GATHERED_BYTES"):
        monkeypatch.setattr(tensors, name, MIB // 4)
    monkeypatch.setattr(gathering, "_MOST_READ_BYTES", MIB // 4)
    array = np.asfortranarray(np.arange(np.prod(shape)).astype(dtype).reshape(shape))
    (np.savez_compressed if packed else np.savez)(tmp_path / "a.npz", a=array, b=np.ones(3))
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
    tracemalloc.start()
    with open_tensors(tmp_path / "a.npz") as file:
        read_all(file)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert file.components["_root"].tensors["a"].read() == little.tobytes()
    assert most < 6 * MIB < array.nbytes


def test_a_compressed_array_in_fortran_order_that_takes_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REWORK", "FREE_REWORK_BYTES", "_WHOLE_BYTES"):
        monkeypatch.setattr(npz, name, 0)
    array = np.asfortranarray(np.zeros((3000, 1000)))
    np.savez_compressed(tmp_path / "a.npz", a=array)
    np.savez(tmp_path / "b.npz", a=array)
    with open_tensors(tmp_path / "a.npz") as file, pytest.raises(UnsupportedFileError, match="ascontiguousarray"):
        read_all(file)
    assert contents(tmp_path / "b.npz")["a"] == ((3000, 1000), bytes(24_000_000))


def test_headers_and_json_are_what_they_were(tmp_path: Path) -> None:
    """Spaces, other orders of the keys and escapes, as other writers have them."""
    text = json.dumps(
        {"__metadata__": {"ä\n": '"'}, "w\u00e9": {"shape": [2], "data_offsets": [0, 8], "dtype": "F32"}}, indent=2
    )
    (tmp_path / "a.safetensors").write_bytes(header(text.encode(), bytes(8)))
    assert contents(tmp_path / "a.safetensors") == {"w\u00e9": ((2,), bytes(8))}
    with open_tensors(tmp_path / "a.safetensors") as file:
        assert file.components["_root"].text_metadata == {"ä\n": '"'}
    assert set(safetensors.numpy.load_file(tmp_path / "a.safetensors")) == {"w\u00e9"}
