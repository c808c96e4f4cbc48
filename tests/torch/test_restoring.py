"""What is restored into live objects, what is refused before anything changes, and what is reported."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ckptfmt.torch
from ckptfmt import MismatchError, RestoreError
from ckptfmt._core.training.report import render_report
from ckptfmt.torch import Checkpointer, ResumeReport, SkippedFile
from tests.torch.same import same
from tests.torch.training import dense_net, train


def saved(directory: Path, **components: Any) -> None:
    ckpt = Checkpointer(directory, components)
    ckpt.resume(quiet=True)
    ckpt.save(loss=torch.tensor(0.5))
    ckpt.close()


def saved_by(ckpt: Checkpointer, **metrics: Any) -> str:
    """Save, and return the path."""
    ckpt.save(**metrics)
    report = ckpt.wait()
    assert report is not None
    return report.path


class Counter:
    """A component that can do nothing but count."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


def test_the_report_names_what_was_restored_missing_and_ignored(tmp_path: Path) -> None:
    saved(tmp_path, net=dense_net(0), gone=Counter(1), kept=Counter(2))
    new, kept = Counter(5), Counter()
    ckpt = Checkpointer(tmp_path, {"net": dense_net(1), "kept": kept, "new": new})
    with pytest.raises(MismatchError, match="new: "):
        ckpt.resume(quiet=True)
    assert kept.count == 0
    report = ckpt.resume(quiet=True, allow_mismatch=["new"])
    assert report.restored == ("net", "kept", "rng", "progress")
    assert report.missing == ("new",)
    assert report.unexpected == ("gone",)
    assert (kept.count, new.count) == (2, 5)


def test_a_module_is_compared_name_by_name_before_anything_changes(tmp_path: Path) -> None:
    def net(extra: str, middle: int, dtype: torch.dtype) -> nn.Module:
        modules = {"a": nn.Linear(2, 3), "b": nn.Linear(3, middle), extra: nn.Linear(1, 1), "c": nn.Linear(1, 1)}
        modules["c"].to(dtype)
        return nn.ModuleDict(modules)

    saved(tmp_path, first=Counter(3), net=net("old", 4, torch.float32))
    live, first = net("new", 5, torch.bfloat16), Counter()
    optimizer = torch.optim.SGD(live.parameters())
    before = {name: value.clone() for name, value in live.state_dict().items()}
    states = random.getstate(), torch.get_rng_state()
    with pytest.raises(MismatchError) as caught:
        Checkpointer(tmp_path, {"first": first, "net": live, "optimizer": optimizer}).resume(quiet=True)
    assert caught.value.differences == (
        "net.new.weight: in the model, not in the checkpoint",
        "net.new.bias: in the model, not in the checkpoint",
        "net.b.weight: float32 [5, 3] in the model, float32 [4, 3] in the checkpoint",
        "net.b.bias: float32 [5] in the model, float32 [4] in the checkpoint",
        "net.old.weight: in the checkpoint, not in the model",
        "net.old.bias: in the checkpoint, not in the model",
        "net.c.weight: bfloat16 [1, 1] in the model, float32 [1, 1] in the checkpoint",
        "net.c.bias: bfloat16 [1] in the model, float32 [1] in the checkpoint",
        "optimizer: not in the checkpoint",
    )
    assert same(live.state_dict(), before)
    assert first.count == 0
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_an_optimizer_is_compared_by_its_groups(tmp_path: Path) -> None:
    saved(tmp_path, optimizer=torch.optim.SGD(dense_net(0).parameters()))
    fewer = torch.optim.SGD(list(dense_net(0).parameters())[:3])
    with pytest.raises(MismatchError, match=r"optimizer\.param_groups: .*\[3\].*\[4\]"):
        Checkpointer(tmp_path, {"optimizer": fewer}).resume(quiet=True)


@pytest.mark.parametrize("live", [dense_net(0), torch.optim.SGD(dense_net(0).parameters())], ids=["net", "optimizer"])
def test_a_component_of_another_kind_is_a_mismatch(tmp_path: Path, live: object) -> None:
    saved(tmp_path, part=Counter())
    with pytest.raises(MismatchError, match=r"^[^\n]*:\n  part"):
        Checkpointer(tmp_path, {"part": live}).resume(quiet=True)


def test_random_states_that_are_none_are_a_mismatch_and_nothing_changes(tmp_path: Path) -> None:
    state = {"count": {"count": 4}, "rng": {"python": (3, (1, 2), None), "numpy": {}, "torch": torch.ones(3)}}
    ckptfmt.torch.save(state, tmp_path / "a.ckptfmt", run_id="a")
    count = Counter()
    with pytest.raises(MismatchError) as caught:
        Checkpointer(tmp_path, {"count": count}).resume(quiet=True)
    assert [text.partition(":")[0] for text in caught.value.differences] == ["rng.python", "rng.numpy", "rng.torch"]
    assert count.count == 0


@pytest.mark.parametrize("progress", [[], {"step": 1}, {"step": 1, "epoch": 0, "loader": 3, "pass": None}], ids=str)
def test_a_place_that_is_none_is_a_mismatch_and_nothing_changes(tmp_path: Path, progress: Any) -> None:
    ckptfmt.torch.save({"count": {"count": 4}, "progress": progress}, tmp_path / "a.ckptfmt", run_id="a")
    count = Counter()
    with pytest.raises(MismatchError, match="progress"):
        Checkpointer(tmp_path, {"count": count}).resume(quiet=True)
    assert count.count == 0


def test_a_checkpoint_without_place_and_random_states_goes_on_from_its_facts(tmp_path: Path) -> None:
    ckptfmt.torch.save({"count": {"count": 4}}, tmp_path / "a.ckptfmt", run_id="a", step=20, epoch=2)
    ckpt = Checkpointer(tmp_path, {"count": Counter()})
    with pytest.raises(MismatchError, match="rng"):  # the run would draw other numbers from here on
        ckpt.resume(quiet=True)
    report = ckpt.resume(quiet=True, allow_mismatch=["rng"])
    assert report.missing == ("rng", "progress")
    assert (ckpt.global_step, list(ckpt.epochs(4))) == (20, [2, 3])


def test_moments_keep_their_dtype_where_the_optimizer_would_cast_them(tmp_path: Path) -> None:
    class Float32Moments(torch.optim.SGD):
        """Keeps its moments in more bits than its parameters have."""

        def step(self, closure: Any = None) -> Any:
            loss = closure()
            for parameter in self.param_groups[0]["params"]:
                moment = self.state[parameter].setdefault("moment", torch.zeros_like(parameter, dtype=torch.float32))
                moment.mul_(0.9).add_(parameter.grad, alpha=0.1)
            super().step()
            return loss

    def make(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        net = dense_net(seed).to(torch.bfloat16)
        return net, Float32Moments(net.parameters(), lr=0.1)

    def loss(net: nn.Module, step: int) -> torch.Tensor:
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step)).to(torch.bfloat16)
        mean: torch.Tensor = net(inputs).square().mean()
        return mean

    net, optimizer = make(0)
    train(net, optimizer, range(3), loss)
    saved(tmp_path, net=net, optimizer=optimizer)
    other_net, other = make(1)
    Checkpointer(tmp_path, {"net": other_net, "optimizer": other}).resume(quiet=True)
    assert same(other.state_dict(), optimizer.state_dict())
    train(net, optimizer, range(3, 5), loss)
    train(other_net, other, range(3, 5), loss)
    assert same(other_net.state_dict(), net.state_dict())
    assert same(other.state_dict(), optimizer.state_dict())


def test_lazy_modules_take_their_shapes_from_the_checkpoint(tmp_path: Path) -> None:
    net = nn.Sequential(nn.LazyLinear(2))
    net(torch.ones(1, 3))
    saved(tmp_path, net=net)
    other = nn.Sequential(nn.LazyLinear(2))
    Checkpointer(tmp_path, {"net": other}).resume(quiet=True)
    assert same(other.state_dict(), net.state_dict())


def test_an_error_in_a_component_says_which_one(tmp_path: Path) -> None:
    class Failing(Counter):
        def load_state_dict(self, state: dict[str, int]) -> None:
            raise ZeroDivisionError

    saved(tmp_path, part=Counter())
    with pytest.raises(RestoreError) as caught:
        Checkpointer(tmp_path, {"part": Failing()}).resume(quiet=True)
    assert caught.value.component == "part"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_metrics_are_noted_as_numbers(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {})
    ckpt.resume(quiet=True)
    loss = torch.tensor(0.25, requires_grad=True)
    with ckptfmt.torch.open(saved_by(ckpt, loss=loss, best=np.float32(0.5), count=3)) as checkpoint:
        assert checkpoint.metadata.metrics == {"loss": 0.25, "best": 0.5, "count": 3.0}
        assert (checkpoint.metadata.step, checkpoint.metadata.epoch) == (0, 0)
        assert checkpoint.metadata.run_id == ckpt.run_id


def test_the_codec_is_used(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {"net": dense_net(0)}, codec={"net": "zstd"})
    ckpt.resume(quiet=True)
    with ckptfmt.torch.open(saved_by(ckpt)) as checkpoint:
        assert (checkpoint["net"].codec, checkpoint["rng"].codec) == ("zstd", "none")


RESUMED = ResumeReport(
    directory="runs/1",
    path="runs/1/ckpt-00000120.ckptfmt",
    run_id="r1",
    step=120,
    epoch=5,
    batch=5,
    restored=("net", "rng", "progress"),
    missing=("scaler",),
    unexpected=("ema", "log"),
    skipped=(SkippedFile("runs/1/ckpt-00000130.ckptfmt", "tensor 'w' is damaged"),),
    other_runs=("r0",),
)


def test_the_report_as_text() -> None:
    assert render_report(RESUMED) == (
        "ckptfmt: run r1 resumes from ckpt-00000120.ckptfmt in runs/1\n"
        "  place       step 120; epochs finished: 5; batches of the next: 5\n"
        "  restored    net, rng, progress\n"
        "  missing     scaler: not in the checkpoint, left as it is\n"
        "  unexpected  ema, log: in the checkpoint, not given to the Checkpointer\n"
        "  skipped     ckpt-00000130.ckptfmt: tensor 'w' is damaged\n"
        "  left        checkpoints of other runs: r0\n"
    )
    assert render_report(ResumeReport("runs/1", None, "r1")) == "ckptfmt: no checkpoint in runs/1: run r1 starts\n"


@pytest.mark.parametrize(("quiet", "lines"), [(False, 1), (True, 0)])
def test_the_report_goes_to_stderr_unless_quiet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], quiet: bool, lines: int
) -> None:
    Checkpointer(tmp_path, {}).resume(quiet=quiet)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == lines


Draw = Callable[[], float]


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(1).item()])
def test_the_generators_go_on_where_they_were(tmp_path: Path, draw: Draw) -> None:
    draw()
    np.random.normal()  # its pair is kept for the next call
    saved(tmp_path)
    expected = [draw(), draw(), float(np.random.normal())]
    Checkpointer(tmp_path, {}).resume(quiet=True)
    assert [draw(), draw(), float(np.random.normal())] == expected
