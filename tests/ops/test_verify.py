from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt._core.format.layout import encode_preamble, encode_trailer
from ckptfmt._core.ops.directory.listing import EntryState, list_directory
from ckptfmt._core.ops.directory.verify import DamagedTensor, FileVerdict, Verdict, verify_paths
from ckptfmt._core.ops.inspection.inspect import inspect_file
from ckptfmt._core.ops.progress import Progress
from ckptfmt.errors import Problem
from tests.containers import edit_index
from tests.ops.conftest import STATE, Save, flip_byte
from tests.ops.sparse import sparse_checkpoint


def test_a_sound_file_is_sound(save: Save) -> None:
    path = save()
    report = verify_paths([path])
    (file,) = report.files
    assert report.sound
    assert file.verdict is Verdict.SOUND
    assert file.path == str(path)
    assert file.file_bytes == path.stat().st_size
    assert file.identity == inspect_file(path).identity
    assert file.problems == ()


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("damaged", ["a", "b", "c"])
def test_the_damaged_tensor_is_named_and_no_other(save: Save, damaged: str, codec: str) -> None:
    rng = np.random.default_rng(0)
    tensors = {name: rng.integers(0, 256, 512, dtype=np.uint8) for name in "abc"}
    path = save(state={"net": tensors, "rng": {"seed": 1}}, codec=codec)
    flip_byte(path, tensors[damaged][100:150].tobytes())
    report = verify_paths([path])
    assert not report.sound
    assert report.files[0].verdict is Verdict.DAMAGED
    assert report.files[0].damaged_tensors == (DamagedTensor("net", damaged),)


def test_damage_outside_tensors_is_found_too(save: Save) -> None:
    path = save()
    flip_byte(path, b"last_epoch")
    (file,) = verify_paths([path]).files
    assert file.verdict is Verdict.DAMAGED
    assert file.damaged_tensors == ()
    assert file.problems[0].member == "scheduler.msgpack"


def test_damaged_padding_is_found(save: Save) -> None:
    path = save()
    data = bytearray(path.read_bytes())
    data[100] = 1
    path.write_bytes(data)
    (file,) = verify_paths([path]).files
    assert file.verdict is Verdict.DAMAGED
    assert [problem.code for problem in file.problems] == ["padding"]


def _from_the_future(data: bytes) -> bytes:
    """Return the file as a later major version would begin it, with a digest that fits."""
    index_offset, index_bytes = (int.from_bytes(data[-64 + at : -56 + at], "little") for at in (0, 8))
    preamble = encode_preamble(major=9)
    trailer = encode_trailer(preamble, index_offset, data[index_offset : index_offset + index_bytes])
    return preamble + data[64:-64] + trailer


def test_damage_outweighs_what_a_newer_reader_could_still_read(save: Save) -> None:
    path = save(codec="zstd")

    def rename_codec(index: dict[str, Any]) -> dict[str, Any]:
        index["members"][0]["codec"] = "later"
        return index

    path.write_bytes(edit_index(path.read_bytes(), rename_codec))
    assert verify_paths([path]).files[0].verdict is Verdict.UNSUPPORTED
    data = bytearray(path.read_bytes())
    last = inspect_file(path).components[-1].members[-1]
    data[last.offset] ^= 1
    path.write_bytes(data)
    assert verify_paths([path]).files[0].verdict is Verdict.DAMAGED


def test_only_tensors_whose_bytes_have_changed_are_damaged() -> None:
    problems = (
        Problem("zstd-frame", "two frames", member="net.safetensors", tensor="a"),
        Problem("chunk-digest", "a byte has changed", member="net.safetensors", tensor="b"),
        Problem("chunk-digest", "a byte has changed", member="net.safetensors", tensor="b"),
    )
    assert FileVerdict("x", Verdict.DAMAGED, problems).damaged_tensors == (DamagedTensor("net", "b"),)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_no_change_of_a_file_goes_unnoticed_and_none_is_an_error(save: Save, data: st.DataObject) -> None:
    path = save()
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "cut"):
        del content[data.draw(st.integers(0, len(content) - 1), "length") :]
    else:
        content[data.draw(st.integers(0, len(content) - 1), "position")] ^= data.draw(st.integers(1, 255), "change")
    path.write_bytes(content)
    (file,) = verify_paths([path]).files
    assert file.verdict not in {Verdict.SOUND, Verdict.UNREADABLE}
    (entry,) = list_directory(path.parent).entries
    assert entry.state is not EntryState.UNREADABLE


def test_each_kind_of_bad_file_has_its_own_word(save: Save, tmp_path: Path) -> None:
    data = save().read_bytes()
    contents = {
        "truncated": data[: len(data) // 2],
        "empty": b"",
        "malformed": b"hello " * 1000,
        "unsupported": _from_the_future(data),
        "damaged": data[:-65] + b"\x01" + data[-64:],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    report = verify_paths([*(tmp_path / name for name in contents), tmp_path / "missing"])
    assert [file.verdict for file in report.files] == [
        Verdict.TRUNCATED,
        Verdict.TRUNCATED,
        Verdict.MALFORMED,
        Verdict.UNSUPPORTED,
        Verdict.DAMAGED,
        Verdict.UNREADABLE,
    ]
    assert report.files[-1].path == str(tmp_path / "missing")
    assert report.files[-1].error
    assert report.files[-1].file_bytes is None


def test_a_directory_stands_for_its_checkpoints_and_not_for_those_below(save: Save, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("b.ckptfmt", "a.ckptfmt", "below/c.ckptfmt"):
        save(name)
    (tmp_path / "notes.txt").write_text("no checkpoint")
    (tmp_path / ".d.ckptfmt.0123abcd-00.tmp").write_bytes(b"")
    report = verify_paths([tmp_path])
    assert [Path(file.path).name for file in report.files] == ["a.ckptfmt", "b.ckptfmt"]
    assert report.sound


def test_a_file_that_is_named_twice_is_checked_once(save: Save, tmp_path: Path) -> None:
    path = save()
    assert len(verify_paths([path, path, tmp_path]).files) == 1


def test_a_directory_without_checkpoints_is_not_sound(save: Save, tmp_path: Path) -> None:
    path = save()
    (tmp_path / "empty").mkdir()
    report = verify_paths([path, tmp_path / "empty"])
    assert report.empty_directories == (str(tmp_path / "empty"),)
    assert not report.sound
    assert not verify_paths([]).sound


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_progress_goes_from_nothing_to_all(save: Save, codec: str) -> None:
    weights = np.random.default_rng(0).standard_normal(5 << 20, np.float32)
    large = save("large.ckptfmt", {"net": {"w": weights}}, codec=codec)
    small = save("small.ckptfmt")
    seen: list[Progress] = []
    verify_paths([large, small], seen.append)
    total = large.stat().st_size + small.stat().st_size
    done = [progress.done_bytes for progress in seen]
    assert {progress.total_bytes for progress in seen} == {total}
    assert any(0.2 * total < nbytes < 0.6 * total for nbytes in done)
    assert done == sorted(done)
    assert done[-1] == total
    assert {progress.path for progress in seen} == {str(large), str(small)}


def test_many_files_are_checked_at_once_and_told_in_their_order(save: Save, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [3 << 20, 1, 2 << 20, 1, 1 << 20, 1]  # the large ones would come last if the order were that of the end
    for number, size in enumerate(sizes):
        save(f"{number}.ckptfmt", {"net": {"w": rng.integers(0, 256, size, dtype=np.uint8)}})
    flip_byte(tmp_path / "2.ckptfmt", ckptfmt.load(tmp_path / "2.ckptfmt")["net"]["w"][-99:].tobytes())
    verdicts = [file.verdict.value for file in verify_paths([tmp_path]).files]
    assert verdicts == ["sound", "sound", "damaged", "sound", "sound", "sound"]


def test_an_interrupt_ends_the_work_on_all_files_soon(save: Save, tmp_path: Path) -> None:
    for number in range(3):
        sparse_checkpoint(tmp_path / f"{number}.ckptfmt", (64 << 30) // 4)

    calls = []

    def interrupt(progress: Progress) -> None:
        calls.append(progress)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_paths([tmp_path], interrupt)
    assert 1 <= len(calls) < 100  # to read them all takes thousands


def test_a_quick_check_reads_structure_and_index_only(save: Save, tmp_path: Path) -> None:
    path = save()
    flip_byte(path, np.asarray(STATE["net"]["conv.weight"]).tobytes())
    (tmp_path / "cut.ckptfmt").write_bytes(path.read_bytes()[:-1])
    report = verify_paths([tmp_path], quick=True)
    assert [file.verdict for file in report.files] == [Verdict.SOUND, Verdict.TRUNCATED]
    assert report.to_json()["checked"] == "index"
    assert verify_paths([tmp_path]).to_json()["checked"] == "data"


def test_a_file_of_another_format_can_be_read_and_no_more_is_claimed(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"w": np.arange(5)}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", w=np.arange(5))
    report = verify_paths([tmp_path / "a.safetensors", tmp_path / "a.npz"])
    assert [file.verdict for file in report.files] == [Verdict.READABLE, Verdict.READABLE]
    assert not report.sound
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data.replace(np.arange(5).tobytes(), np.arange(1, 6).tobytes()))
    (file,) = verify_paths([tmp_path / "a.npz"]).files  # the archive has a CRC
    assert file.verdict is Verdict.MALFORMED


def test_the_json_form(save: Save, tmp_path: Path) -> None:
    path = save()
    flip_byte(path, np.asarray(STATE["net"]["conv.weight"]).tobytes())
    document = json.loads(json.dumps(verify_paths([path, tmp_path / "missing"]).to_json(), allow_nan=False))
    assert list(document) == ["report", "checked", "sound", "files", "total_bytes", "empty_directories", "counts"]
    assert document["report"] == "verify/1"
    assert document["sound"] is False
    damaged, missing = document["files"]
    assert list(damaged) == [
        "path",
        "verdict",
        "file_bytes",
        "identity",
        "repeated",
        "damaged_tensors",
        "problems",
        "error",
    ]
    assert damaged["damaged_tensors"] == [{"component": "net", "tensor": "conv.weight"}]
    assert damaged["problems"][0]["code"] == "chunk-digest"
    assert (missing["verdict"], missing["problems"]) == ("unreadable", [])
    assert document["counts"] == {
        "sound": 0,
        "damaged": 1,
        "truncated": 0,
        "malformed": 0,
        "unsupported": 0,
        "unreadable": 1,
        "readable": 0,
    }
