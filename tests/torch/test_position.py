"""Where in an epoch, and in the run, a resumed loop is: for progress bars, schedules, and what is built before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import ckptfmt.torch
from ckptfmt.torch import Checkpointer, ResumeError, UsageError
from tests.torch.tiny import final_state

SAMPLES = 12
Numbering = Callable[[Checkpointer, Any], Iterator[tuple[int, torch.Tensor]]]


def by_enumerate(ckpt: Checkpointer, loader: Any) -> Iterator[tuple[int, torch.Tensor]]:
    return ckpt.enumerate(loader)


def by_start(ckpt: Checkpointer, loader: Any) -> Iterator[tuple[int, torch.Tensor]]:
    batches = ckpt.batches(loader)
    assert len(batches) == len(loader)
    assert batches.resumed == ckpt.is_resumed_epoch == (batches.start > 0)
    return enumerate(batches, batches.start)


def behind_a_bar(ckpt: Checkpointer, loader: Any) -> Iterator[tuple[int, torch.Tensor]]:
    batches = ckpt.batches(loader)
    return enumerate(bar(batches), batches.start)


def plain(ckpt: Checkpointer, loader: Any) -> Iterator[tuple[int, torch.Tensor]]:
    return enumerate(ckpt.batches(loader))


def plain_behind_a_bar(ckpt: Checkpointer, loader: Any) -> Iterator[tuple[int, torch.Tensor]]:
    return enumerate(bar(ckpt.batches(loader)))


def bar(iterable: Any) -> Iterator[Any]:
    """Yield the same, as a progress bar does."""
    yield from iter(iterable)


def train(directory: Path, numbering: Numbering, kill: int | None = None) -> dict[str, str]:
    """Train two epochs with a learning rate that depends on the number of the batch."""
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    loader: Any = DataLoader(torch.randn(SAMPLES, 4), shuffle=True)  # type: ignore[arg-type]  # a tensor will do
    ckpt = Checkpointer(directory, {"net": net, "optimizer": optimizer}, save_interval_steps=1)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(2):
        for i, batch in numbering(ckpt, loader):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - i / len(loader))
            optimizer.zero_grad()
            (net(batch) ** 2).sum().backward()
            optimizer.step()
            ckpt.step()
            if ckpt.global_step == kill:
                ckpt.close()
                return {}
    return final_state(directory)


@pytest.mark.parametrize("numbering", [by_enumerate, by_start, behind_a_bar])
def test_numbers_continue_after_a_resume(
    tmp_path: Path, numbering: Numbering, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = train(tmp_path / "calm", numbering)
    for kill in (1, 5, 12, 20):
        directory = tmp_path / f"{kill}"
        train(directory, numbering, kill)
        assert train(directory, numbering) == expected, kill
    assert "enumerate" not in capsys.readouterr().err


@pytest.mark.parametrize("numbering", [plain, plain_behind_a_bar])
def test_numbers_that_begin_again_are_reported(
    tmp_path: Path, numbering: Numbering, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, numbering, 5)
    assert "enumerate" not in capsys.readouterr().err
    train(tmp_path, numbering)
    assert capsys.readouterr().err.count("ckpt.enumerate") == 1


def test_the_length_of_a_loader_without_one(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {})
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        with pytest.raises(TypeError):
            len(ckpt.batches(iter([1, 2])))


def test_an_epoch_that_was_begun_by_an_earlier_process(tmp_path: Path) -> None:
    def seen(kill: int | None) -> list[bool]:
        ckpt = Checkpointer(tmp_path, {}, save_interval_steps=1)
        ckpt.resume(quiet=True)
        assert not ckpt.is_resumed_epoch
        found: list[bool] = []
        for _ in ckpt.epochs(3):
            found.append(ckpt.is_resumed_epoch)
            for _ in ckpt.batches([1, 2, 3]):
                ckpt.step()
                if ckpt.global_step == kill:
                    return found
        return found

    assert seen(5) == [False, False]
    assert seen(6) == [True]
    assert seen(None) == [True, False]


def unfreeze_in_training(directory: Path, kill: int | None = None) -> dict[str, str]:
    """Train the head alone for two epochs, then the body, too."""
    torch.manual_seed(0)
    body, head = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    found = ckptfmt.torch.peek(directory)
    if found.epoch > 2:
        optimizer.add_param_group({"params": body.parameters(), "lr": 0.01})
    components = {"body": body, "head": head, "optimizer": optimizer}
    ckpt = Checkpointer(directory, components, save_interval_steps=1)
    report = ckpt.resume(found, quiet=True)
    assert (report.path, report.run_id) == (found.path, found.run_id or report.run_id)
    assert (report.step, report.epoch) == (found.step, found.epoch)
    for epoch in ckpt.epochs(4):
        for batch in ckpt.batches(torch.split(torch.rand(6, 4), 2)):
            optimizer.zero_grad()
            (head(body(batch)) ** 2).sum().backward()
            optimizer.step()
            ckpt.step()
            if ckpt.global_step == kill:
                ckpt.close()
                return {}
        if epoch == 2:
            optimizer.add_param_group({"params": body.parameters(), "lr": 0.01})
        ckpt.end_epoch()
    return final_state(directory)


def test_parameter_groups_that_are_added_in_training(tmp_path: Path) -> None:
    expected = unfreeze_in_training(tmp_path / "calm")
    for kill in (2, 6, 9, 11):
        unfreeze_in_training(tmp_path / f"{kill}", kill)
        assert unfreeze_in_training(tmp_path / f"{kill}") == expected, kill


def some_epochs(directory: Path, n: int, found: Any = "auto") -> Checkpointer:
    ckpt = Checkpointer(directory, {})
    ckpt.resume(found, quiet=True)
    list(ckpt.epochs(n))
    return ckpt


def test_a_peek_changes_nothing_and_finds_what_a_resume_would(tmp_path: Path) -> None:
    nothing = ckptfmt.torch.peek(tmp_path / "run")
    assert (nothing.path, nothing.step, nothing.epoch, nothing.run_id) == (None, 0, 0, None)
    assert not (tmp_path / "run").exists()
    ckpt = some_epochs(tmp_path / "run", 3, nothing)
    newest = max((tmp_path / "run").glob("*.ckptfmt"))
    newest.write_bytes(newest.read_bytes()[:-1])
    before = sorted((tmp_path / "run").iterdir())
    found = ckptfmt.torch.peek(tmp_path / "run")
    assert sorted((tmp_path / "run").iterdir()) == before  # no quarantine: that is for `resume`
    assert (found.epoch, found.run_id) == (2, ckpt.run_id)
    again = Checkpointer(tmp_path / "run", {})
    assert again.resume(found, quiet=True).path == found.path


def test_another_checkpoint_than_peeked_at_is_refused(tmp_path: Path) -> None:
    nothing = ckptfmt.torch.peek(tmp_path)
    some_epochs(tmp_path, 1)
    with pytest.raises(ResumeError):
        some_epochs(tmp_path, 2, nothing)
    found = ckptfmt.torch.peek(tmp_path)
    some_epochs(tmp_path, 2)
    with pytest.raises(ResumeError):
        some_epochs(tmp_path, 3, found)
    with pytest.raises(UsageError):
        some_epochs(tmp_path / "other", 3, found)
    assert some_epochs(tmp_path, 3, ckptfmt.torch.peek(tmp_path)).epoch == 3
