"""An error in place of each file operation of a run's saves: training goes on, and no good checkpoint is lost."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import ckptfmt
from ckptfmt.torch import Checkpointer
from tests.storage.disturbed_writer import operation_name

STEPS = 4


def os_error(name: str) -> Exception:
    number: int = getattr(errno, name)
    return OSError(number, os.strerror(number))


ERRORS: dict[str, Callable[[], Exception]] = {
    **{name: partial(os_error, name) for name in ("EIO", "ESTALE", "EACCES", "ENOSPC", "EMFILE")},
    "MemoryError": MemoryError,
}


class Failing:
    """Lets the n-th file operation fail, in whatever thread of Python's.

    The interpreter reports every call of a function that is written in C; those of the operating system count.
    """

    def __init__(self) -> None:
        self.at = 0
        self.count = 0
        self.failed = ""
        self.make: Callable[[], Exception] = MemoryError
        sys.addaudithook(self._on_audit)  # it stays, and does nothing unless `on`

    @contextmanager
    def on(self, at: int, make: Callable[[], Exception]) -> Iterator[None]:
        """Let operation `at` fail; 0: none."""
        self.at, self.count, self.failed, self.make = at, 0, "", make
        self._active = True
        threading.setprofile(self._on_call)
        sys.setprofile(self._on_call)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            self._active = False

    _active = False

    def _on_audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._active and event == "open":  # files opened by C code are reported as no call
            self._on_operation("open")

    def _on_call(self, _: FrameType, event: str, function: Any) -> None:
        name = operation_name(function) if event in ("c_call", "c_return") else None
        # What fails to close is closed all the same.
        if name is not None and (event == "c_return") == (name == "close"):
            self._on_operation(name)

    def _on_operation(self, name: str) -> None:
        self.count += 1
        if self.count == self.at:
            self.failed = name
            raise self.make()


@pytest.fixture(scope="module")
def failing() -> Failing:
    return Failing()


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptfmt._core.training.saving.run_saves._LAST_TRIES_SECONDS", (0.0, 0.0))


def steps_in(train_url: Path) -> list[int]:
    steps = []
    for path in train_url.glob("*.ckptfmt"):
        with ckptfmt.open(path) as checkpoint:
            assert checkpoint.verify() == ()
            assert checkpoint["net"].load()["weight"].max() == checkpoint.metadata.step
            steps.append(checkpoint.metadata.step or 0)
    return sorted(steps)


def train(train_url: Path, failing: Failing, at: int, make: Callable[[], Exception]) -> None:
    """Train with a save at each step, one of whose operations fails, and see that nothing is lost."""
    net = torch.nn.Linear(100, 100)
    ckpt = Checkpointer(train_url, {"net": net}, save_interval_steps=1, save_interval_epochs=None, keep_last=2)
    ckpt.resume(quiet=True)
    with failing.on(at, make):
        for _ in ckpt.epochs(1):
            for number in ckpt.batches(range(STEPS)):
                torch.nn.init.constant_(net.weight, number + 1)
                ckpt.step()
                ckpt.wait()
        count = failing.count
    assert ckpt.global_step == STEPS
    last = ckpt.last_saved
    assert last is not None
    with ckptfmt.open(last.path) as checkpoint:
        assert checkpoint.identity == last.identity
        assert checkpoint.metadata.step == STEPS
    steps = steps_in(train_url)
    assert steps[-1] == STEPS
    assert len(steps) >= 2
    ckpt.save()
    ckpt.close()
    assert ckpt.last_error is None
    assert [path.name for path in train_url.iterdir() if path.name.endswith(".tmp")] == []
    if at == 0:
        failing.count = count


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory, failing: Failing) -> int:
    """Return how many operations the saves of a run have."""
    train(tmp_path_factory.mktemp("calm"), failing, 0, MemoryError)
    return failing.count


def fail_at(tmp_path: Path, failing: Failing, error: str, operations: range) -> None:
    assert len(operations) > 2
    hit = 0
    for at in operations:
        train(tmp_path / f"{at}", failing, at, ERRORS[error])
        hit += bool(failing.failed)
    assert hit >= len(operations) - 2  # the last ones may not come: what fails saves its later operations


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_in_a_save_costs_nothing(tmp_path: Path, failing: Failing, operations: int, error: str) -> None:
    """A sample: another place for each error."""
    fail_at(tmp_path, failing, error, range(1 + 7 * list(ERRORS).index(error), operations, 43))


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
def test_an_error_in_each_operation_of_a_save_costs_nothing(
    tmp_path: Path, failing: Failing, operations: int, error: str
) -> None:
    fail_at(tmp_path, failing, error, range(1, operations + 1))
