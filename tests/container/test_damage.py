"""A checkpoint that was damaged after it was written: always noticed, always named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt.errors import CkptfmtError, FormatError, IntegrityError, TruncatedError, UnsupportedVersionError, error_for
from tests.containers import BytesSource, open_bytes

STATE: dict[str, Any] = {
    "net": {
        "conv.weight": np.arange(30, dtype="f4").reshape(2, 3, 5),
        "conv.bias": np.ones(3, "f2"),
        "w64": np.ones(16),
    },
    "optimizer": {"state": {0: {"exp_avg": np.full(30, 0.5, "f4"), "step": 7}}, "param_groups": [{"lr": 0.1}]},
    "epoch": 3,
}


@pytest.fixture(params=["none", "zstd"], scope="module")
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "a.ckptfmt"
    ckptfmt.save(STATE, path, step=7, metrics={"val_loss": 0.5}, run_id="r", codec=request.param)
    return path.read_bytes()


def spots(checkpoint: Checkpoint) -> dict[tuple[str, str | None], range]:
    """Return where each tensor, and each rest of a member, is stored in the file."""
    result: dict[tuple[str, str | None], range] = {}
    for member in checkpoint.index.members:
        position = member.offset
        for segment in member.segments:
            chunks = range(segment.first_chunk, segment.first_chunk + segment.chunk_count)
            sizes = member.stored_chunk_bytes
            nbytes = segment.nbytes if sizes is None else sum(sizes[number] for number in chunks)
            result[member.name, segment.tensor] = range(position, position + nbytes)
            position += nbytes
    return result


def finding(data: bytes) -> FormatError | None:
    """Return the error that `open` raises, or the one that the problems of `verify` make."""
    try:
        problems = open_bytes(data).verify()
    except FormatError as error:
        return error
    return error_for(problems) if problems else None


def test_every_changed_byte_is_noticed_and_its_tensor_is_named(good: bytes) -> None:
    """7.2, 7.4, 4.5 and 2.2: each byte of the file in turn, each of its bits at least once."""
    where = spots(open_bytes(good))
    damaged = bytearray(good)
    for offset in range(len(good)):
        damaged[offset] ^= 1 << offset % 8
        error = finding(bytes(damaged))
        assert error is not None, f"byte {offset} changed and nobody noticed"
        damaged[offset] = good[offset]
        place = next((key for key, spot in where.items() if offset in spot), None)
        if place is not None:
            assert isinstance(error, IntegrityError)
            assert (error.problems[0].member, error.problems[0].tensor) == place
        elif offset >= 12 and offset < len(good) - 64:  # the index, paddings, the rest of the preamble
            assert isinstance(error, IntegrityError)


def test_load_refuses_what_verify_reports(good: bytes) -> None:
    """14.2: loading never gives a wrong byte; a sample of places, one per tensor, member and padding."""
    places = {spot.start for spot in spots(open_bytes(good)).values()} | {70, 4095, len(good) - 65, len(good) - 100}
    for offset in places:
        damaged = bytearray(good)
        damaged[offset] ^= 0x40
        with pytest.raises(FormatError):
            open_bytes(bytes(damaged)).load()


def test_one_damaged_tensor_leaves_the_others_readable(good: bytes) -> None:
    checkpoint = open_bytes(good)
    spot = spots(checkpoint)["net.safetensors", "conv.weight"]
    damaged = bytearray(good)
    damaged[spot.start + 3] ^= 1
    net = open_bytes(bytes(damaged))["net"]
    assert net["w64"].tolist() == [1] * 16
    with pytest.raises(IntegrityError) as caught:
        net["conv.weight"]
    (problem,) = caught.value.problems
    assert (problem.member, problem.tensor) == ("net.safetensors", "conv.weight")


def test_every_truncation_is_noticed(good: bytes) -> None:
    """4.1 to 4.3: a file that lost its end is truncated, not corrupt."""
    for length in range(len(good)):
        with pytest.raises(TruncatedError):
            open_bytes(good[:length])


def test_bytes_after_the_end_are_noticed(good: bytes) -> None:
    for extra in (b"\0", bytes(64), good[-64:], b"\n"):
        with pytest.raises(FormatError):
            open_bytes(good + extra)


def test_a_file_of_another_kind_is_called_that(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"PK\x03\x04" + bytes(400))
    with pytest.raises(FormatError) as caught:
        ckptfmt.open(path)
    assert caught.value.code == "magic"
    assert caught.value.path == str(path)


def test_a_newer_major_version_is_refused_with_both_versions(good: bytes) -> None:
    """3.2."""
    import struct

    from blake3 import blake3

    head = good[:12] + struct.pack("<HH", 2, 5) + bytes(48)
    offset, nbytes = struct.unpack_from("<QQ", good, len(good) - 64)
    digest = blake3(head + good[offset : offset + nbytes] + good[-64:-40]).digest()
    with pytest.raises(UnsupportedVersionError) as caught:
        open_bytes(head + good[64:-40] + digest + good[-8:])
    assert caught.value.code == "major-version"
    assert all(version in str(caught.value) for version in ("2.5", "1.x"))


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_damaged_chunk_of_a_large_tensor_is_found(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save({"net": {"big": np.random.default_rng(0).random(1 << 20)}}, path, codec=codec)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 5000] ^= 1
    with pytest.raises(IntegrityError) as caught:
        open_bytes(bytes(data)).load()
    assert {problem.tensor for problem in caught.value.problems} == {"big"}


def test_opening_reads_the_head_and_the_tail_only(tmp_path: Path) -> None:
    """14: constant in the size of the data."""
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save({"net": {f"w{n}": np.zeros(1 << 18) for n in range(16)}, "optimizer": {"step": np.zeros(3)}}, path)
    source = BytesSource(path.read_bytes())
    checkpoint = Checkpoint(source)
    assert len(checkpoint["net"].tensors) == 16
    assert sum(nbytes for _, nbytes in source.reads) <= 64 + (64 << 10)
    assert len(source.reads) == 2


def test_a_tensor_that_is_not_there_is_named_with_what_is(good: bytes) -> None:
    checkpoint = open_bytes(good)
    with pytest.raises(ckptfmt.NotFoundError) as missing:
        checkpoint["nett"]
    assert all(name in str(missing.value) for name in ("'nett'", *checkpoint))
    with pytest.raises(ckptfmt.NotFoundError) as missing:
        checkpoint["net"]["conv"]
    assert all(name in str(missing.value) for name in ("'conv'", "conv.weight"))
    assert issubclass(ckptfmt.NotFoundError, (CkptfmtError, KeyError))
