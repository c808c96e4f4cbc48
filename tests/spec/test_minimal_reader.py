"""The minimal reader, written from the spec alone, answers every vector as its sidecar says."""

from __future__ import annotations

import ast
import contextlib
import json
import random
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptfmt
from spec import minimal_reader
from spec.minimal_reader import NeedsZstd, Refused, read
from spec.vectors.making import frames
from spec.vectors.making.container import File, msgpack, opaque, patched, resealed
from spec.vectors.making.values import Raw
from tests import strategies
from tests.spec.answers import described
from tests.spec.vectors import EVERY_VALID, INVALID, ROOT, SMALL, VALID, Vector

NEED_ZSTD = {"zstd-compressed", "zstd-compressed-planes", "zstd-longest-block"}
NEED_ZSTD |= {"8.2-broken-block", "8.4-block-regenerates-more", "8.4-checksum-compressed"}
NEED_ZSTD |= {"8.4-less-content-compressed", "8.4-more-content-compressed"}
READER = ROOT / "spec" / "minimal_reader.py"


@pytest.mark.usefixtures("with_zstd")
@pytest.mark.parametrize("vector", EVERY_VALID, ids=lambda vector: vector.name)
def test_valid_vector_is_read(vector: Vector) -> None:
    content = described(BytesIO(vector.data()))
    assert content == vector.content
    assert list(content["components"]) == list(vector.content["components"])


@pytest.mark.usefixtures("with_zstd")
@pytest.mark.parametrize("vector", INVALID, ids=lambda vector: vector.name)
def test_invalid_vector_is_refused(vector: Vector, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        read(vector.file(tmp_path))
    assert caught.value.code == vector.problem
    if "member" in vector.sidecar:
        assert caught.value.member == vector.sidecar["member"]
    if "tensor" in vector.sidecar:
        assert caught.value.tensor == vector.sidecar["tensor"]
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("without_zstd")
def test_compressed_blocks_without_a_decoder_are_no_fault_of_the_file(tmp_path: Path) -> None:
    for vector in [vector for vector in VALID + INVALID if vector.name in NEED_ZSTD]:
        with pytest.raises(NeedsZstd):
            read(vector.file(tmp_path))


@pytest.mark.usefixtures("without_zstd")
def test_damage_is_found_without_a_decoder(tmp_path: Path) -> None:
    (vector,) = [vector for vector in VALID if vector.name == "zstd-compressed"]
    damaged = tmp_path / "damaged"
    data = bytearray(vector.data())
    data[vector.content["members"][0]["offset"] + vector.content["members"][0]["stored_bytes"] - 1] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(Refused, match="stored-digest"):
        read(damaged)


def test_blake3_agrees_with_the_blake3_package() -> None:
    piece, group = 1024, 1024 * minimal_reader.LANES
    lengths = {0, 1, 63, 64, 65, 100, 5000, 7 * piece + 1, 100 * piece + 333}
    for border in (piece, 2 * piece, 3 * piece, 4 * piece, 8 * piece, group, group + piece, 2 * group):
        lengths |= {border - 1, border, border + 1}
    data = random.Random(1).randbytes(max(lengths))
    for length in sorted(lengths):
        assert minimal_reader.blake3(data[:length]) == blake3(data[:length]).digest(), length


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.integers(0, 5000).map(bytes))
def test_checksums_agree_with_the_zstandard_package(data: bytes) -> None:
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    assert minimal_reader.xxh64(data) & 0xFFFFFFFF == int.from_bytes(frame[-4:], "little")


def test_the_standard_library_is_enough() -> None:
    tree = ast.parse(READER.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.partition(".")[0] in sys.stdlib_module_names | {"compression"}


@pytest.mark.parametrize(
    ("name", "status", "output"),
    [("flat", 0, '"identity": '), ("3.2-major-2", 1, "major-version: "), ("no-such-vector", 3, "")],
)
def test_the_command_says_by_its_exit_status(name: str, status: int, output: str) -> None:
    vector = next((vector for vector in VALID + INVALID if vector.name == name), None)
    path = vector.file(Path()) if vector else Path("no-such-file.ckptfmt")
    # -I -S: no directory of packages can be imported from.
    done = subprocess.run([sys.executable, "-I", "-S", READER, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (status, int(status == 3))
    assert output in done.stdout
    if status == 0:
        assert json.loads(done.stdout)["version"] == [1, 0]
    if status == 1:
        assert done.stdout.count("\n") == 1


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert minimal_reader.main([]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "FILE" in err


@pytest.mark.usefixtures("without_zstd")
def test_a_missing_decoder_is_status_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (vector,) = [vector for vector in VALID if vector.name == "zstd-compressed"]
    assert minimal_reader.main([str(vector.file(tmp_path))]) == 3
    assert "Zstandard" in capsys.readouterr().err


def borders(vector: Vector) -> set[int]:
    """Offsets at which a part of the file begins or ends."""
    size = len(vector.data())
    index = int.from_bytes(vector.data()[-64:-56], "little")
    places = {0, 12, 16, 64, index, index + 1, size - 64, size - 40, size - 8, size}
    for member in vector.content["members"]:
        places |= {member["offset"], member["offset"] + 8, member["offset"] + member["stored_bytes"]}
    return places


@pytest.mark.usefixtures("with_zstd")
@pytest.mark.parametrize("vector", SMALL, ids=lambda vector: vector.name)
def test_truncated_files_are_refused(vector: Vector, tmp_path: Path) -> None:
    data, path = vector.data(), tmp_path / "cut.ckptfmt"
    lengths = {place + shift for place in borders(vector) for shift in (-1, 0, 1)}
    lengths |= set(random.Random(vector.name).sample(range(len(data)), 10))
    for length in sorted(lengths & set(range(len(data)))):
        path.write_bytes(data[:length])
        with pytest.raises(Refused, match=r"^(too-short|trailer-magic)"):
            read(path)


@pytest.mark.usefixtures("with_zstd")
@pytest.mark.parametrize("vector", SMALL, ids=lambda vector: vector.name)
def test_changed_bytes_are_noticed(vector: Vector, tmp_path: Path) -> None:
    data, path = vector.data(), tmp_path / "changed.ckptfmt"
    chance = random.Random(vector.name)
    places = sorted(borders(vector) - {len(data)})
    for offset in chance.sample(places, min(6, len(places))) + chance.sample(range(len(data)), 6):
        path.write_bytes(patched(data, offset, bytes([data[offset] ^ 1 << chance.randrange(8)])))
        with pytest.raises(Refused):
            read(path)


@pytest.mark.usefixtures("with_zstd")
@settings(max_examples=150)
@given(st.data())
def test_any_index_gives_a_result_or_a_problem(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    vector = data.draw(st.sampled_from(SMALL))
    file = vector.data()
    start = int.from_bytes(file[-64:-56], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        offset = data.draw(st.integers(start, len(file) - 65))
        file = patched(file, offset, data.draw(st.binary(min_size=1, max_size=1)))
    _answers(resealed(file), tmp_path_factory)


@settings(max_examples=150)
@given(
    st.binary(min_size=1, max_size=60)
    | st.sampled_from(b"\x81\x91\x93\xc7\xd4\xd8\xdf").map(lambda b: bytes([b]) * 200)
)
def test_any_tree_gives_a_result_or_a_problem(tmp_path_factory: pytest.TempPathFactory, tree: bytes) -> None:
    _answers(File([msgpack("t.msgpack", Raw(tree))]).encode(), tmp_path_factory)


def _answers(file: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.ckptfmt"
    path.write_bytes(file)
    with contextlib.suppress(Refused):
        read(path)


@settings(max_examples=200)
@given(st.data())
def test_frames_decode_as_the_zstandard_package_decodes_them(data: st.DataObject) -> None:
    content = data.draw(st.binary(min_size=1, max_size=40) | st.integers(1, 300_000).map(bytes))
    frame = bytearray(frames.plane(content))
    if data.draw(st.booleans()):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded, end = minimal_reader._frame(bytes(frame), 0, len(content))
    except Refused:
        return
    if decoded is not None and end == len(frame):
        assert decoded == zstandard.ZstdDecompressor().decompress(bytes(frame), max_output_size=len(content))


@pytest.mark.usefixtures("with_zstd")
def test_frames_of_the_zstandard_package_are_read(tmp_path: Path) -> None:
    path = tmp_path / "packed.ckptfmt"
    content = b"a line of a log, with a number: " * 5000
    for level in (-5, 1, 3, 19):
        compressor = zstandard.ZstdCompressor(level=level, write_content_size=True)
        member = opaque("log", content, codec="zstd", encode=lambda chunk, *_: compressor.compress(chunk))  # noqa: B023  # used at once
        path.write_bytes(File([member]).encode())
        assert described(BytesIO(path.read_bytes()))["members"][0]["data"] == content.hex()


@settings(max_examples=30)
@given(state=strategies.state_trees, facts=strategies.metadata)
def test_it_reads_what_the_library_writes(tmp_path_factory: pytest.TempPathFactory, state: Any, facts: Any) -> None:
    """15.1: what is written obeys every clause that the second reader knows."""
    path = tmp_path_factory.getbasetemp() / "written.ckptfmt"
    report = ckptfmt.save({"net": {"w": np.ones((3, 5), "f2")}, "state": state}, path, **facts)
    content = read(path)
    assert content["identity"] == report.identity
    assert list(content["components"]) == ["net", "state"]
