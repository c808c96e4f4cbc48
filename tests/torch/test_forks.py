"""Children that a training forks: they end when they are told to, and touch nothing of their parent's."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import FrameType
from unittest import mock

import pytest
import torch
from torch.utils.data import DataLoader

from ckptfmt._core.container import writer
from ckptfmt._core.storage.local.file_leases import read_lease
from ckptfmt._core.storage.local.lock import directory_lock
from ckptfmt._core.storage.local.publication.atomic_directory import AtomicDirectory
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt._core.storage.local.publication.leftovers import Writer, temporary_files
from ckptfmt._core.storage.local.publication.temporary import discard_all
from ckptfmt.torch import Checkpointer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def in_process(context: ForkServerContext, function: Callable[..., object], *arguments: object) -> int | None:
    """Call a function in a process of its own, so that no child is forked from that of the tests."""
    process = context.Process(target=function, args=arguments)
    process.start()
    process.join(60)
    code = process.exitcode
    process.kill()
    process.join()
    return code


def fork(act: Callable[[], object]) -> int:
    """Fork a child that acts and then ends; return its number."""
    pid = os.fork()
    if not pid:
        try:
            act()
        finally:
            os._exit(3)
    return pid


def ending(pid: int) -> int:
    """Wait for a child; return its exit code, or minus the signal that ended it."""
    for _ in range(3000):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the child does not end")


def sleep() -> None:
    """Sleep for a minute in short pieces: Python runs no handler for a signal that comes just before a sleep begins."""
    for _ in range(6000):
        time.sleep(0.01)


def ready(act: Callable[[], object]) -> int:
    """Fork a child that acts; return its number when it does."""
    reader, report = os.pipe()

    def report_and_act() -> None:
        os.write(report, b".")
        act()

    pid = fork(report_and_act)
    os.read(reader, 1)
    return pid


def end_children(train_url: Path) -> None:
    ckpt = Checkpointer(train_url, {})
    ckpt.resume(quiet=True)
    child = ready(sleep)
    os.kill(child, signal.SIGTERM)
    assert ending(child) == -signal.SIGTERM

    def have_child() -> None:
        grandchild = ready(sleep)
        os.kill(grandchild, signal.SIGTERM)
        os._exit(7 if ending(grandchild) == -signal.SIGTERM else 8)

    assert ending(fork(have_child)) == 7
    forked = multiprocessing.get_context("fork")
    for _ in range(6):
        process = forked.Process(target=sleep)
        process.start()
        process.terminate()  # it may not even run yet
        process.join(30)
        assert process.exitcode == -signal.SIGTERM
    with forked.Pool(2) as pool:
        assert pool.map(abs, [-1, 2]) == [1, 2]
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as program:
        program.terminate()
        assert program.wait(30) == -signal.SIGTERM
    # The training itself is asked as before.
    assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(3)):
            ckpt.step()


def test_children_end_when_they_are_told_to(tmp_path: Path, context: ForkServerContext) -> None:
    assert in_process(context, end_children, tmp_path / "run") == 75


class Slow(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return index


def finish_step(train_url: Path, number: signal.Signals) -> None:
    """Signal the training and, as some launchers do, all workers of its loader, too."""
    ckpt = Checkpointer(train_url, {}, save_interval_epochs=None)
    ckpt.resume(quiet=True)
    loader = DataLoader(Slow(), batch_size=1, num_workers=2, multiprocessing_context="fork", persistent_workers=True)
    for _ in ckpt.epochs(2):
        for batch in ckpt.batches(loader):
            if ckpt.epoch == 1 and int(batch) == 2:
                for process in multiprocessing.active_children():
                    os.kill(process.pid or 0, number)
                assert len(multiprocessing.active_children()) == 2
                time.sleep(0.2)
                assert len(multiprocessing.active_children()) == 2
            if ckpt.epoch == 1 and int(batch) == 5:
                os.kill(os.getpid(), number)
            ckpt.step()
    os._exit(9)


def test_a_signal_to_all_processes_of_a_job_does_not_kill_the_workers(
    tmp_path: Path, context: ForkServerContext
) -> None:
    assert in_process(context, finish_step, tmp_path / "run", signal.SIGUSR1) == 75


def inherit_handlers(train_url: Path) -> None:
    def own(number: int, frame: FrameType | None) -> None:
        os._exit(11)

    signal.signal(signal.SIGUSR1, own)
    ckpt = Checkpointer(train_url, {})
    ckpt.resume(quiet=True)
    assert signal.getsignal(signal.SIGUSR1) is not own
    child = ready(sleep)
    os.kill(child, signal.SIGUSR1)
    assert ending(child) == 11  # what was there before is there again
    ours = signal.getsignal(signal.SIGTERM)
    assert callable(ours)

    def later(number: int, frame: FrameType | None) -> None:
        assert callable(ours)
        ours(number, frame)

    signal.signal(signal.SIGTERM, later)  # set over the training's, which it calls
    child = ready(sleep)
    os.kill(child, signal.SIGTERM)
    assert ending(child) == -signal.SIGTERM
    ckpt.close()
    assert signal.getsignal(signal.SIGTERM) is later
    assert signal.getsignal(signal.SIGUSR1) is own


def test_children_get_the_handlers_that_were_there_before(tmp_path: Path, context: ForkServerContext) -> None:
    assert in_process(context, inherit_handlers, tmp_path / "run") == 0


def outlive(directory: Path, told: Connection) -> None:
    """Fork a child in the middle of a publication and of a lock, and let it live on."""
    with AtomicFile(directory / "a.ckptfmt") as file, directory_lock(directory):
        file.write(b"content")
        told.send(ready(sleep))  # until then it holds what was forked
        told.recv()


def test_a_child_that_outlives_its_parent_holds_no_lock(tmp_path: Path, context: ForkServerContext) -> None:
    here, there = context.Pipe()
    parent = context.Process(target=outlive, args=(tmp_path, there))
    parent.start()
    child = here.recv()
    parent.kill()
    parent.join()
    try:
        assert [it.writer for it in temporary_files(tmp_path)] == [Writer.NONE]
        with directory_lock(tmp_path, wait_seconds=0.0), AtomicFile(tmp_path / "a.ckptfmt"):
            assert len(temporary_files(tmp_path)) == 1  # the parent's is removed
    finally:
        os.kill(child, signal.SIGKILL)


def leave_the_parents_alone(directory: Path) -> None:
    with (
        AtomicFile(directory / "a.ckptfmt") as file,
        AtomicDirectory(directory / "members") as members,
        directory_lock(directory),
    ):
        file.write(b"content")
        (members.work / "member").write_bytes(b"member")
        assert ending(fork(discard_all)) == 3

        def unwind() -> None:
            file.__exit__(None, None, None)
            members.__exit__(None, None, None)

        assert ending(fork(unwind)) == 3
        child = ready(sleep)
        file.commit()
        members.commit()
    try:
        with directory_lock(directory, wait_seconds=0.0):  # the child does not hold it
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert (directory / "a.ckptfmt").read_bytes() == b"content"
    assert (directory / "members" / "member").read_bytes() == b"member"


def test_a_child_removes_nothing_of_its_parents(tmp_path: Path, context: ForkServerContext) -> None:
    assert in_process(context, leave_the_parents_alone, tmp_path) == 0


def close_in_child(train_url: Path) -> None:
    """Leave the block of a Checkpointer in a child, while its parent saves."""
    go_on, let_go = os.pipe()

    def slow(*arguments: object, **options: object) -> object:
        os.read(go_on, 1)
        return writer.write_plan(*arguments, **options)  # type: ignore[arg-type]  # they are the same

    with mock.patch("ckptfmt._core.training.saving.run_writer.write_plan", slow):
        with Checkpointer(train_url, {}, on_failed_save="raise", save_on_exception=True) as ckpt:
            ckpt.resume(quiet=True)
            ckpt.save()
            child = os.fork()
            if not child:
                try:
                    ckpt.__exit__(None, None, None)
                    ckpt.__exit__(ValueError, ValueError(), None)
                    assert ckpt.last_saved is None
                    os._exit(5)
                finally:
                    os._exit(6)
            assert ending(child) == 5
            lease = read_lease(train_url, ckpt.run_id or "")
            assert lease is not None
            assert lease.holder is not None  # the parent still saves the run
            os.write(let_go, b".")
        assert ckpt.last_saved is not None
    assert [path.suffix for path in train_url.glob("ckpt*")] == [".ckptfmt"]


def test_a_child_leaves_the_save_to_its_parent(tmp_path: Path, context: ForkServerContext) -> None:
    assert in_process(context, close_in_child, tmp_path / "run") == 0


def end_with_a_timer(train_url: Path, stuck: bool) -> None:
    ckpt = Checkpointer(train_url, {}, hang_timeout=2.0 if stuck else 60.0)
    ckpt.resume(quiet=True)
    pid = os.fork()
    if not pid:
        ckpt.close()
        sys.exit(4)  # through the end of the interpreter
    assert ending(pid) == 4
    if stuck:
        time.sleep(60)
    ckpt.close()


def end_program(train_url: Path, stuck: bool) -> None:
    program = f"from tests.torch import test_forks; test_forks.end_with_a_timer({str(train_url)!r}, {stuck})"
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, check=False, timeout=60)
    sys.exit(done.returncode if not stuck or b"Timeout" in done.stderr else 99)


@pytest.mark.parametrize(("stuck", "code"), [(False, 0), (True, 1)])
def test_a_child_ends_although_its_parent_watches_for_hangs(
    tmp_path: Path, context: ForkServerContext, stuck: bool, code: int
) -> None:
    assert in_process(context, end_program, tmp_path / "run", stuck) == code
