"""A checkpoint in a store that is unlike a disk: the same bytes, by the same calls, with a URL for a path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt import FormatError, StorageError
from ckptfmt._core.storage.resolve import locate, store_for
from ckptfmt._core.storage.upload import UploadedFile
from ckptfmt.errors import ChangedError
from ckptfmt.testing.stores import content_of, names_in, publish

NET = {f"p{number}": np.arange(700_000 + 977 * number, dtype=np.float32) for number in range(9)}
STATE = {
    "net": NET,
    "optimizer": {"state": {0: {"exp_avg": np.ones(300, dtype=np.float16)}}, "lr": 0.1},
}


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/runs"


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_the_bytes_are_those_of_a_file(place: str, tmp_path: Path, codec: str) -> None:
    ckptfmt.save(STATE, tmp_path / "a.ckptfmt", codec=codec, step=3)
    with ckptfmt.open(tmp_path / "a.ckptfmt") as file:
        created = file.metadata.created
    report = ckptfmt.save(STATE, f"{place}/a.ckptfmt", codec=codec, step=3, created=created)
    assert content_of(*locate(report.path)) == (tmp_path / "a.ckptfmt").read_bytes()


def test_it_is_opened_loaded_and_verified(place: str) -> None:
    report = ckptfmt.save(STATE, f"{place}/a.ckptfmt", step=3)
    assert report.path == f"{place}/a.ckptfmt"
    with ckptfmt.open(report.path) as checkpoint:
        assert (checkpoint.identity, checkpoint.metadata.step) == (report.identity, 3)
        assert checkpoint.verify() == ()
        np.testing.assert_array_equal(checkpoint["net"]["p3"][10:20], NET["p3"][10:20])
    state = ckptfmt.load(report.path)
    np.testing.assert_array_equal(state["net"]["p8"], NET["p8"])


def test_a_save_replaces_what_is_there_and_a_reader_notices(place: str) -> None:
    ckptfmt.save(STATE, f"{place}/a.ckptfmt", step=1)
    with ckptfmt.open(f"{place}/a.ckptfmt") as checkpoint:
        ckptfmt.save(STATE, f"{place}/a.ckptfmt", step=2)
        with pytest.raises(ChangedError):
            checkpoint.load()
    with ckptfmt.open(f"{place}/a.ckptfmt") as checkpoint:
        assert checkpoint.metadata.step == 2


def test_damage_and_absence_are_told_by_name(place: str) -> None:
    with pytest.raises(StorageError, match=place):
        ckptfmt.open(f"{place}/a.ckptfmt")
    report = ckptfmt.save(STATE, f"{place}/a.ckptfmt")
    content = bytearray(content_of(*locate(report.path)))
    content[8192] ^= 1
    publish(store_for(place), "a.ckptfmt", bytes(content), replace=True)
    with pytest.raises(FormatError) as caught:
        ckptfmt.load(report.path)
    assert (caught.value.code, caught.value.path) == ("chunk-digest", report.path)


def test_a_save_that_fails_leaves_nothing(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ckptfmt.save(STATE, f"{place}/a.ckptfmt", step=1)
    monkeypatch.setattr("ckptfmt._core.container.writer.encode_trailer", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ckptfmt.save(STATE, f"{place}/a.ckptfmt", step=2)
    assert names_in(store_for(place)) == {"a.ckptfmt"}
    with ckptfmt.open(f"{place}/a.ckptfmt") as checkpoint:
        assert checkpoint.metadata.step == 1


def test_a_save_sends_what_it_has_before_it_begins_the_next_member(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[int] = []
    write_at = UploadedFile.write_at

    def note(self: UploadedFile, offset: int, buffer: bytes | bytearray | memoryview) -> None:
        write_at(self, offset, buffer)
        waiting.append(self.waiting_bytes)

    monkeypatch.setattr(UploadedFile, "write_at", note)
    ckptfmt.save(STATE, f"{place}/a.ckptfmt")
    assert waiting[0] == 0
    assert waiting[-4:] == [0, 0, 0, 0], "of the last member nothing is left when the index is written"
