"""Checkpoints that cannot be read or judged: none that may be sound is passed over, whatever the system says."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import ckptfmt.torch
from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.torch.resume.opening import CheckpointOpener
from ckptfmt.errors import StorageError
from ckptfmt.torch import Checkpointer, UndecidedError
from tests.torch.job import run_job
from tests.torch.test_selection import Value, damage, put

PASSING = ["EIO", "ESTALE", "EACCES", "EPERM", "ETIMEDOUT", "EMFILE", "ENOMEM", "ENXIO"]
LASTING = [name for name in PASSING if name != "EIO"]


@dataclass
class Failing:
    """Lets operations of the system on some files fail.

    Attributes:
        error: With which error.
        calls: Which operations: `open`, `stat`, `scandir`, `read`.
        paths: On which files.
        times: How often; None: always.
        inside: Reads fail if they touch this offset; None: any.
        hit: How often one has failed.
    """

    error: int
    calls: frozenset[str]
    paths: frozenset[str]
    times: int | None = None
    inside: int | None = None
    hit: int = 0

    def fail(self, call: str, path: str, offset: int = 0, nbytes: int = 1 << 62) -> None:
        if call not in self.calls or path not in self.paths or (self.times is not None and self.hit >= self.times):
            return
        if self.inside is not None and not offset <= self.inside < offset + nbytes:
            return
        self.hit += 1
        raise OSError(self.error, os.strerror(self.error), path)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Failing]:
    """Return a function that lets operations fail from now on."""
    monkeypatch.setattr("ckptfmt._core.storage.local.retries._ALL_PAUSES_SECONDS", 0.0)

    def fail(error: str, calls: str, *paths: Path, times: int | None = None, inside: int | None = None) -> Failing:
        it = Failing(getattr(errno, error), frozenset(calls.split()), frozenset(map(str, paths)), times, inside)

        def by_path(call: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def act(path: Any, *arguments: Any, **options: Any) -> Any:
                if isinstance(path, str | os.PathLike):
                    it.fail(call, os.fspath(path))
                return real(path, *arguments, **options)

            return act

        def preadv(descriptor: int, buffers: list[Any], offset: int, *flags: int) -> int:
            it.fail("read", path_of(descriptor), offset, sum(len(buffer) for buffer in buffers))
            return real_preadv(descriptor, buffers, offset, *flags)

        def pread(descriptor: int, nbytes: int, offset: int) -> bytes:
            it.fail("read", path_of(descriptor), offset, nbytes)
            return real_pread(descriptor, nbytes, offset)

        real_preadv, real_pread = os.preadv, os.pread
        for call in ("open", "stat", "scandir"):
            monkeypatch.setattr(os, call, by_path(call, getattr(os, call)))
        monkeypatch.setattr(os, "preadv", preadv)
        monkeypatch.setattr(os, "pread", pread)
        return it

    return fail


def path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tells files by /proc")


@pytest.fixture
def three(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return three checkpoints of a run, the newest last."""
    first, second, third = (save(tmp_path / f"{step}.ckptfmt", step) for step in (1, 2, 3))
    return first, second, third


def save(path: Path, step: int) -> Path:
    """Save a checkpoint whose data reach far beyond what is read with the index."""
    state = {"value": {"value": f"a {step} 0"}, "weights": {"w": torch.ones(500_000)}}
    ckptfmt.torch.save(state, path, run_id="a", step=step, epoch=0)
    return path


DATA = 1_000_000
"""An offset in these data."""


def resume(directory: Path, **options: Any) -> tuple[Value, Any]:
    value = Value()
    return value, Checkpointer(directory, {"value": value}).resume(quiet=True, allow_mismatch=["rng"], **options)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("error", PASSING)
@pytest.mark.parametrize("call", ["open", "stat", "read"])
@pytest.mark.parametrize("times", [1, 3])
def test_an_error_that_passes_changes_nothing(
    three: tuple[Path, ...], failing: Any, capfd: pytest.CaptureFixture[str], error: str, call: str, times: int
) -> None:
    it = failing(error, call, three[2], times=times)
    value, report = resume(three[0].parent)
    assert it.hit >= 1
    assert value.value == "a 3 0"
    assert report.path == str(three[2])
    assert report.skipped == ()
    if call in ("open", "read"):  # what only tells that a file is the same need not be known
        assert "trying again" in capfd.readouterr().err


@pytest.mark.parametrize("error", LASTING)
@pytest.mark.parametrize("call", ["open", "read"])
def test_an_error_that_lasts_is_never_taken_for_damage(
    three: tuple[Path, ...], failing: Any, error: str, call: str
) -> None:
    directory = three[0].parent
    failing(error, call, three[2])
    with pytest.raises(UndecidedError) as caught:
        resume(directory)
    assert caught.value.code == 78
    assert [item.path for item in caught.value.skipped] == [str(three[2])]
    assert caught.value.skipped[0].reason
    assert names(directory) == ["1.ckptfmt", "2.ckptfmt", "3.ckptfmt"]
    latest = find_latest(directory, verify=True)
    assert latest.file is None
    assert [item.path for item in latest.undecided] == [str(three[2])]


def test_an_older_one_that_cannot_be_read_in_its_data_is_of_no_account(three: tuple[Path, ...], failing: Any) -> None:
    failing("EACCES", "read", three[0], inside=DATA)
    assert resume(three[0].parent)[1].path == str(three[2])


@pytest.mark.parametrize("error", PASSING)
def test_a_directory_that_cannot_be_listed(three: tuple[Path, ...], failing: Any, error: str) -> None:
    directory = three[0].parent
    it = failing(error, "scandir", directory, times=2)
    assert resume(directory)[1].path == str(three[2])
    assert it.hit == 2
    failing(error, "scandir", directory)
    with pytest.raises(UndecidedError, match=re.escape(str(directory))):
        resume(directory)


def test_want_of_memory_is_not_damage(three: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptfmt._core.storage.local.retries._ALL_PAUSES_SECONDS", 0.0)
    left = [2]
    verify = ckptfmt.Checkpoint.verify

    def scarce(checkpoint: ckptfmt.Checkpoint, progress: Any = None) -> Any:
        if left[0] and checkpoint.path == str(three[2]):
            left[0] -= 1
            raise MemoryError
        return verify(checkpoint, progress)

    monkeypatch.setattr(ckptfmt.Checkpoint, "verify", scarce)
    assert resume(three[0].parent)[1].path == str(three[2])
    left[0] = 10**6
    with pytest.raises(UndecidedError) as caught:
        resume(three[0].parent)
    assert [item.path for item in caught.value.skipped] == [str(three[2])]


class TestBadSectors:
    """Bytes that the device does not give, however often it is asked."""

    @pytest.mark.parametrize("inside", [0, DATA, -30], ids=["head", "data", "trailer"])
    def test_the_run_falls_back_loudly_and_touches_nothing(
        self, three: tuple[Path, ...], failing: Any, capfd: pytest.CaptureFixture[str], inside: int
    ) -> None:
        directory = three[0].parent
        size = three[2].stat().st_size
        failing("EIO", "read", three[2], inside=inside % size)
        value, report = resume(directory)
        assert value.value == "a 2 0"
        assert [item.path for item in report.skipped] == [str(three[2])]
        said = capfd.readouterr().err
        assert str(three[2]) in said
        assert str(three[1]) in said
        assert names(directory) == ["1.ckptfmt", "2.ckptfmt", "3.ckptfmt"]
        assert find_latest(directory, verify=True).file.path == report.path  # type: ignore[union-attr]  # or it fails

    @pytest.mark.parametrize("inside", [0, DATA], ids=["head", "data"])
    def test_what_is_there_outlasts_all_that_this_process_tidies(
        self, three: tuple[Path, ...], failing: Any, inside: int
    ) -> None:
        directory = three[0].parent
        failing("EIO", "read", three[2], inside=inside)
        value = Value()
        ckpt = Checkpointer(directory, {"value": value}, keep_last=1, signals=())
        report = ckpt.resume(quiet=True, allow_mismatch=["rng"])
        assert report.path == str(three[1])
        for number in range(4):
            value.value = number
            ckpt.save()
            ckpt.wait()
        ckpt.close()
        left = names(directory)
        assert left[:3] == ["1.ckptfmt", "2.ckptfmt", "3.ckptfmt"]
        assert len(left) == 4, "the new ones are tidied as ever"
        assert ckpt.last_saved is not None
        assert Path(ckpt.last_saved.path).name == left[3]

    def test_if_nothing_else_can_be_read_it_is_not_damage(self, three: tuple[Path, ...], failing: Any) -> None:
        failing("EIO", "read", *three)
        with pytest.raises(UndecidedError) as caught:
            resume(three[0].parent)
        assert {item.path for item in caught.value.skipped} == set(map(str, three))

    def test_damage_of_all_others_is_no_ground_to_fall_back_on(self, three: tuple[Path, ...], failing: Any) -> None:
        damage(three[0])
        damage(three[1])
        failing("EIO", "read", three[2], inside=DATA)
        with pytest.raises(UndecidedError) as caught:
            resume(three[0].parent)
        assert [item.path for item in caught.value.skipped] == [str(three[2])]
        assert names(three[0].parent) == ["1.ckptfmt", "2.ckptfmt", "3.ckptfmt"]


def test_a_name_that_leads_nowhere_is_no_checkpoint(three: tuple[Path, ...]) -> None:
    (three[0].parent / "latest.ckptfmt").symlink_to("gone.ckptfmt")
    report = resume(three[0].parent)[1]
    assert report.path == str(three[2])
    assert [Path(item.path).name for item in report.skipped] == ["latest.ckptfmt"]


def test_never_does_not_begin_a_run_that_may_be_there(three: tuple[Path, ...], failing: Any) -> None:
    failing("EACCES", "open", three[2])
    with pytest.raises(UndecidedError, match=r"\bb\b"):
        Checkpointer(three[0].parent, {"value": Value()}, run_id="b").resume("never", quiet=True)


def test_the_one_that_was_asked_for_is_read_again_and_never_replaced(three: tuple[Path, ...], failing: Any) -> None:
    failing("ESTALE", "open read", three[2], times=2)
    assert resume(three[0].parent, resume=three[2])[1].path == str(three[2])
    failing("ESTALE", "open read", three[2])
    with pytest.raises(UndecidedError):
        resume(three[0].parent, resume=three[2])


def test_uncaught_it_ends_the_process_with_its_code(three: tuple[Path, ...]) -> None:
    three[2].write_bytes((Path(__file__).parents[2] / "spec/vectors/invalid/3.2-major-2.ckptfmt").read_bytes())
    program = """
import sys
from ckptfmt.torch import Checkpointer
from tests.torch.test_selection import Value
Checkpointer(sys.argv[1], {"value": Value()}).resume(allow_mismatch=["rng"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, three[0].parent],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 78, done.stderr
    assert done.stderr.count("3.ckptfmt") == 1


def test_a_metric_that_is_no_number_makes_no_other_file(tmp_path: Path) -> None:
    """NaN is not equal to itself, and ranks compare what they open."""
    path = tmp_path / "a.ckptfmt"
    ckptfmt.torch.save({"value": {"value": 1}}, path, run_id="r", step=1, metrics={"loss": float("nan")})
    with ckptfmt.torch.open(path) as checkpoint:
        metadata = replace(checkpoint.metadata, metrics={"loss": float("nan")})  # as it comes from another process
        chosen = CheckpointReference(str(path), metadata, checkpoint.identity)
    with ExitStack() as stack:
        assert CheckpointOpener({"value": None}, stack).open_chosen(chosen).trees["value"] == {"value": 1}
    put(path, 2)
    with ExitStack() as stack, pytest.raises(StorageError):
        CheckpointOpener({"value": None}, stack).open_chosen(chosen)


def rank_that_cannot_open(rank: int, directory: Path, times: int) -> object:
    if rank == 1:
        left = [times]
        real = os.open

        def fail(path: Any, *arguments: Any, **options: Any) -> int:
            if str(path).endswith(".ckptfmt") and left[0]:
                left[0] -= 1
                raise OSError(errno.EACCES, "denied", path)
            return real(path, *arguments, **options)

        os.open = fail
    value = Value()
    report = Checkpointer(directory, {"value": value}, signals=()).resume(
        quiet=True, allow_mismatch=["rng", "progress"]
    )
    return value.value, report.path


@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo")
class TestRanks:
    """Each rank gets a verdict, and none is left waiting."""

    def test_a_rank_that_reads_at_last_goes_on_with_the_others(
        self, tmp_path: Path, context: ForkServerContext
    ) -> None:
        (tmp_path / "run").mkdir()
        path = put(tmp_path / "run" / "1.ckptfmt", 1)
        ended = run_job(context, tmp_path, rank_that_cannot_open, tmp_path / "run", 2)
        assert [it.value for it in ended] == [("a 1 0", str(path))] * 2

    def test_a_rank_that_cannot_read_ends_all(self, tmp_path: Path, context: ForkServerContext) -> None:
        (tmp_path / "run").mkdir()
        put(tmp_path / "run" / "1.ckptfmt", 1)
        ended = run_job(context, tmp_path, rank_that_cannot_open, tmp_path / "run", 10**6)
        assert [it.error for it in ended] == ["UndecidedError"] * 2
        assert [it.code for it in ended] == [78, 78]
        assert all("denied" in it.said for it in ended)
