"""A component that raises while it is restored: an error that names it, the file, and what was changed."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Never

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from ckptfmt.errors import RestoreError
from ckptfmt.torch import Checkpointer, restore, warm_start
from tests.torch.job import run_job


class Counter:
    """A component that counts, and raises when it is asked to."""

    def __init__(self, count: int = 0, error: BaseException | None = None, of_state: Exception | None = None) -> None:
        self.count = count
        self.error = error
        self.of_state = of_state

    def state_dict(self) -> dict[str, Any]:
        if self.of_state is not None:
            raise self.of_state
        return {"count": self.count, "weights": torch.ones(2)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        self.count = state["count"]


class Unspeakable(Exception):  # noqa: N818 - its name does not matter
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no words")


def raise_here(*arguments: object) -> Never:
    raise ZeroDivisionError("in a hook")


class Own(nn.Linear):
    """A module with a way of its own to load, which raises."""

    def load_state_dict(self, *arguments: object, **options: object) -> Never:
        raise ZeroDivisionError("of its own")


def with_hook() -> nn.Module:
    net = nn.Linear(2, 2)
    net.register_load_state_dict_post_hook(raise_here)  # type: ignore[no-untyped-call]  # PyTorch's own
    return net


def optimizer_with_hook() -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))])
    optimizer.register_load_state_dict_post_hook(raise_here)
    return optimizer


class Plateau(StepLR):
    """A scheduler that cannot be loaded."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        raise ZeroDivisionError("of a scheduler")


def scheduler() -> StepLR:
    return Plateau(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=1.0), 1)


def saved(directory: Path, **components: Any) -> Path:
    """Save components as a run, and return the file."""
    ckpt = Checkpointer(directory, components)
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.close()
    assert ckpt.last_saved is not None
    return Path(ckpt.last_saved.path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return saved(tmp_path.resolve(), net=nn.Linear(2, 2), part=Counter(5), last=Counter(6))


RESTORES: list[Callable[[Path, dict[str, Any]], object]] = [
    lambda path, components: Checkpointer(path.parent, components).resume(quiet=True),
    lambda path, components: Checkpointer(path.parent / "other", components).resume(path, quiet=True),
    restore,
]


@pytest.mark.parametrize("act", RESTORES, ids=["resume", "resume from a file", "restore"])
@pytest.mark.parametrize("error", [ValueError("no"), MemoryError(), RestoreError("theirs"), Unspeakable()], ids=repr)
def test_the_error_names_the_component_and_the_file_and_what_was_changed(
    path: Path, act: Callable[[Path, dict[str, Any]], object], error: Exception
) -> None:
    net, last = nn.Linear(2, 2), Counter(1)
    before = net.weight.clone()
    with pytest.raises(RestoreError) as caught:
        act(path, {"net": net, "part": Counter(error=error), "last": last})
    assert caught.value.component == "part"
    assert caught.value.path == str(path)
    assert caught.value.__cause__ is error
    assert not torch.equal(net.weight, before)
    assert last.count == 1
    assert caught.value.changed == ("net", "part")
    assert "part" in str(caught.value)
    assert str(path) in str(caught.value)


def test_data_read_in_place_count_as_changed(tmp_path: Path) -> None:
    path = saved(tmp_path.resolve(), part=Counter(5), net=nn.Linear(2, 2), last=Counter(6))
    net = nn.Linear(2, 2)
    before = net.weight.clone()
    with pytest.raises(RestoreError) as caught:
        restore(path, {"part": Counter(error=ValueError()), "net": net, "last": Counter()})
    assert not torch.equal(net.weight, before)
    assert caught.value.changed == ("part", "net")


MAKERS: list[Callable[[], Any]] = [lambda: Own(2, 2), with_hook, optimizer_with_hook, scheduler]


@pytest.mark.parametrize("make", MAKERS, ids=["load_state_dict", "hook", "optimizer", "scheduler"])
def test_modules_optimizers_and_schedulers_that_raise_are_named(tmp_path: Path, make: Callable[[], Any]) -> None:
    made = make()
    others = {"optimizer": made.optimizer} if isinstance(made, StepLR) else {}
    path = saved(tmp_path, it=made, **others)
    with pytest.raises(RestoreError) as caught:
        restore(path, {"it": make()})
    assert caught.value.component == "it"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_component_whose_state_cannot_be_compared_is_named_and_nothing_is_changed(path: Path) -> None:
    class Mute(nn.Linear):
        def state_dict(self, *arguments: Any, **options: Any) -> Never:
            raise ZeroDivisionError

    part = Counter(1)
    with pytest.raises(RestoreError) as caught:
        restore(path, {"part": part, "net": Mute(2, 2)})
    assert caught.value.component == "net"
    assert caught.value.changed == ()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert part.count == 1


def test_a_warm_start_names_what_raised(path: Path) -> None:
    ckpt = Checkpointer(path.parent / "new", {"net": nn.Linear(2, 2), "part": Counter(error=ValueError("no"))})
    ckpt.resume(quiet=True)
    with pytest.raises(RestoreError) as caught:
        ckpt.warm_start(path, also_restore=["part"], quiet=True)
    assert caught.value.component == "part"
    assert caught.value.changed == ("net", "part")
    with pytest.raises(RestoreError) as caught:
        warm_start(path, with_hook(), source="net", quiet=True)
    assert caught.value.path == str(path)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_file_of_the_documented_pytorch_loop_names_what_raised(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    file = tmp_path.resolve() / "epoch_1.pth"
    torch.save({"epoch": 1, "net": net.state_dict(), "part": {"count": 3}}, file)
    with pytest.raises(RestoreError) as caught:
        Checkpointer(tmp_path, {"net": net, "part": Counter(error=ValueError("no"))}).resume(
            quiet=True, allow_mismatch=["rng", "progress"]
        )
    assert caught.value.component == "part"
    assert caught.value.path == str(file)
    assert caught.value.changed == ("net", "part")


def test_what_ends_the_program_is_not_held_up(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        restore(path, {"part": Counter(error=KeyboardInterrupt())})


def resume_with_an_error_on_rank_1(rank: int, directory: Path) -> None:
    error = ValueError("no") if rank else None
    Checkpointer(directory, {"net": nn.Linear(2, 2), "part": Counter(error=error)}, signals=()).resume(quiet=True)


def save_all(rank: int, directory: Path) -> None:
    ckpt = Checkpointer(directory, {"net": nn.Linear(2, 2), "part": Counter()}, signals=())
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.wait()
    ckpt.close()


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_a_component_that_raises_on_one_rank_ends_all_of_them(tmp_path: Path, context: ForkServerContext) -> None:
    ended = run_job(context, tmp_path / "job", save_all, tmp_path / "runs")
    assert [it.error for it in ended] == ["", ""]
    ended = run_job(context, tmp_path / "job", resume_with_an_error_on_rank_1, tmp_path / "runs")
    assert [it.error for it in ended] == ["RankError", "RestoreError"]
