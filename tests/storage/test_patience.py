"""Trying again, and what errors of the system say of a file after that."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

from ckptfmt._core.storage.local.os_errors import read_error, storage_error
from ckptfmt._core.storage.local.retries import Patience, Trouble, trouble_of
from ckptfmt.errors import ChangedError, ReadError, StorageError


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses that would have been made."""
    made: list[float] = []
    monkeypatch.setattr("ckptfmt._core.storage.local.retries.time.sleep", made.append)
    return made


def failing(*errors: BaseException) -> Callable[[], str]:
    """Return a function that raises these errors, one after the other, and then succeeds."""
    left: Iterator[BaseException] = iter(errors)

    def act() -> str:
        error = next(left, None)
        if error is not None:
            raise error
        return "done"

    return act


def unread(offset: int, code: int = errno.EIO) -> ReadError:
    return read_error("a", offset, OSError(code, "x"))


def test_it_tries_five_times_within_about_a_second_and_tells_of_each(pauses: list[float]) -> None:
    told: list[StorageError] = []
    assert Patience(told.append)(failing(*(unread(7, errno.ESTALE) for _ in range(4))), "a") == "done"
    assert len(told) == len(pauses) == 4
    assert 0.5 <= sum(pauses) <= 2
    assert pauses == sorted(pauses)
    with pytest.raises(ReadError):
        Patience()(failing(*(unread(7, errno.ESTALE) for _ in range(5))), "a")


def test_over_many_files_it_waits_for_a_few_seconds_in_all(pauses: list[float]) -> None:
    patience = Patience()
    for _ in range(100):
        with pytest.raises(StorageError):
            patience(failing(*(unread(7, errno.ETIMEDOUT) for _ in range(5))), "a")
    assert sum(pauses) <= 5.001


def test_only_the_same_bytes_over_and_over_speak_of_the_device() -> None:
    def trouble(*offsets: int, code: int = errno.EIO) -> Trouble:
        with pytest.raises(StorageError) as caught:
            Patience()(failing(*(unread(offset, code) for offset in offsets)), "a")
        return trouble_of(caught.value)

    assert trouble(9, 9, 9, 9, 9) is Trouble.DEVICE
    assert trouble(1, 9, 2, 3, 9) is Trouble.DEVICE
    assert trouble(1, 2, 3, 4, 5) is Trouble.UNKNOWN
    assert trouble(9, 9, 9, 9, 9, code=errno.ESTALE) is Trouble.UNKNOWN


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.ETIMEDOUT])
def test_an_error_of_anything_but_reading_says_nothing(code: int) -> None:
    assert trouble_of(storage_error("a", "cannot be opened", OSError(code, "x"))) is Trouble.UNKNOWN


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENOTDIR, errno.ELOOP])
def test_what_is_not_there_is_not_waited_for(code: int, pauses: list[float]) -> None:
    with pytest.raises(StorageError) as caught:
        Patience()(failing(storage_error("a", "cannot be opened", OSError(code, "x"))), "a")
    assert trouble_of(caught.value) is Trouble.ABSENT
    with pytest.raises(ChangedError) as changed:
        Patience()(failing(ChangedError("a: another file")), "a")
    assert trouble_of(changed.value) is Trouble.CHANGED
    assert pauses == []


def test_want_of_memory_is_waited_for_and_then_an_error_of_the_system() -> None:
    assert Patience()(failing(MemoryError(), MemoryError()), "a") == "done"
    with pytest.raises(StorageError) as caught:
        Patience()(failing(*(MemoryError() for _ in range(5))), "a")
    assert caught.value.errno == errno.ENOMEM
    assert trouble_of(caught.value) is Trouble.UNKNOWN
