"""What ranks do together at a save and at a resume, when one of them fails, has more, or has something else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import ckptfmt.torch
from ckptfmt._core.torch.state import collect as collecting
from ckptfmt._core.torch.state import rank_digests as fingerprints
from ckptfmt.torch import Checkpointer
from tests.torch.job import Ended, run_job
from tests.torch.same import bits

pytestmark = pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo")

Fault = Callable[[], object]


def does_not_give_it() -> object:
    raise AttributeError("there is no state")


def cannot_be_expressed() -> object:
    return {"file": sys.stderr}


def is_of_a_rank_already() -> object:
    return {"nested": ckptfmt.PerRank((1, 2))}


class Part:
    """A component with a state of one's choice."""

    def __init__(self, state: Callable[[], object]) -> None:
        self.state = state

    def state_dict(self) -> object:
        return self.state()

    def load_state_dict(self, state: Any) -> None:
        self.state = lambda: state


def values(ended: list[Ended]) -> list[Any]:
    assert [rank.code for rank in ended] == [0] * len(ended), ended
    return [rank.value for rank in ended]


def raised(act: Callable[[], object]) -> tuple[str, str]:
    try:
        act()
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def fail(rank: int, train_url: Path, failing: list[int]) -> list[tuple[str, str]]:
    """Save with each fault on some of the ranks, and without one in between and in the end."""
    part = Part(lambda: {"own": rank})
    told = []
    for fault in (does_not_give_it, cannot_be_expressed, is_of_a_rank_already):
        ckpt = Checkpointer(train_url / fault.__name__, {"part": part}, on_failed_save="raise", background=False)
        ckpt.resume(quiet=True)
        ckpt.save()
        before = part.state
        if rank in failing:
            part.state = fault
        told.append(raised(ckpt.save))
        part.state = before
        assert raised(partial(ckpt.save, again=1)) == ("", "")
        ckpt.close()
    return told


@pytest.mark.parametrize("failing", [[0], [1], [0, 1]])
def test_a_rank_without_a_state_fails_the_save_of_all(
    tmp_path: Path, context: ForkServerContext, failing: list[int]
) -> None:
    told = values(run_job(context, tmp_path, fail, tmp_path / "run", failing))
    for rank, of_rank in enumerate(told):
        kinds = ["SaveError", "StateError", "StateError"] if rank in failing else ["RankError"] * 3
        assert [kind for kind, _ in of_rank] == kinds
        said = [text for _, text in of_rank]
        assert "there is no state" in said[0]
        assert "part.file: " in said[1]
        assert "part.nested: " in said[2]
        assert rank in failing or all(text.startswith(f"rank {failing[0]}: ") for text in said)
    for run in (tmp_path / "run").iterdir():
        assert len(list(run.glob("*.ckptfmt"))) == 2
        for path in run.glob("*.ckptfmt"):
            assert ckptfmt.torch.load(path)["part"] == {"own": ckptfmt.PerRank((0, 1))}


def differ_by_too_much(rank: int, train_url: Path) -> list[tuple[str, str]]:
    state: dict[str, Any] = {"a": torch.full((100,), rank), "b": [torch.ones(9)], "c": {"small": rank}}
    torch.manual_seed(rank)
    net = nn.Linear(2, 2)
    ckpt = Checkpointer(train_url, {"part": Part(lambda: state), "net": net}, on_failed_save="raise")
    ckpt.resume(quiet=True)
    with mock.patch.object(collecting, "MOST_PER_RANK_BYTES", 500):
        told = [raised(ckpt.save)]
        del state["a"]  # only parameters and a number are left, and parameters are sampled from now on
    assert not list(train_url.glob("*.ckptfmt"))
    with mock.patch.object(collecting, "MOST_PER_RANK_BYTES", 50), mock.patch.object(fingerprints, "_WINDOWS", 0):
        told.append(raised(ckpt.save))
    assert not list(train_url.glob("*.ckptfmt"))
    told.append(raised(ckpt.save))
    ckpt.close()
    return told


def test_more_than_the_limit_is_refused_by_name_before_anything_is_written(
    tmp_path: Path, context: ForkServerContext
) -> None:
    told = values(run_job(context, tmp_path, differ_by_too_much, tmp_path / "run"))
    assert [[kind for kind, _ in rank] for rank in told] == [["StateError"] * 2 + [""], ["RankError"] * 2 + [""]]
    for rank in told:
        assert "part.a, net.weight, net.bias, part.c.small: " in rank[0][1]
        assert "500" in rank[0][1]
        assert "net.weight, net.bias, part.c.small: " in rank[1][1]
    (path,) = (tmp_path / "run").glob("*.ckptfmt")
    weights = [ckptfmt.torch.load(path, rank=rank)["net"]["weight"] for rank in range(2)]
    assert bits(weights[0]) != bits(weights[1])


def train_apart(
    rank: int, train_url: Path, steps: list[int], together: int, windows: int
) -> tuple[dict[str, bytes], list[Any]]:
    """Train a model on each rank that is the same in the first steps and another one later."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    ckpt = Checkpointer(train_url, {"net": net, "optimizer": optimizer}, background=False)
    ckpt.resume(quiet=True)
    saved = []
    for step in steps:
        torch.manual_seed(step + (0 if step < together else 100 * rank))
        optimizer.zero_grad()
        net(torch.randn(4, 300)).pow(2).mean().backward()
        optimizer.step()
        with mock.patch.object(fingerprints, "_WINDOWS", windows):
            ckpt.save()
        saved.append(ckpt.last_saved.per_rank if ckpt.last_saved is not None else None)
    ckpt.close()
    return {name: bits(tensor) for name, tensor in net.state_dict().items()}, saved


NAMES = ["0.weight", "0.bias", "1.weight", "1.bias"]
APART = (
    *(f"net.{name}" for name in NAMES),
    *(f"optimizer.state[{number}].momentum_buffer" for number in range(4)),
)


@pytest.mark.parametrize(("together", "windows"), [(0, 0), (0, 64), (2, 3)])
def test_parameters_that_differ_or_begin_to_are_each_ranks_own(
    tmp_path: Path, context: ForkServerContext, together: int, windows: int
) -> None:
    """Those that differed once are compared in full; those that were equal, by so many samples."""
    whole = values(run_job(context, tmp_path, train_apart, tmp_path / "whole", list(range(6)), together, windows))
    assert whole[0][0] != whole[1][0]
    for _, saved in whole:
        assert saved == [()] * together + [APART] * (6 - together)
    run_job(context, tmp_path, train_apart, tmp_path / "cut", list(range(4)), together, windows)
    resumed = values(run_job(context, tmp_path, train_apart, tmp_path / "cut", [4, 5], together, windows))
    assert [net for net, _ in resumed] == [net for net, _ in whole]


class Records(logging.Handler):
    """The notices of a process, as its log has them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logging.getLogger("ckptfmt").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def save_what_not_all_have(rank: int, train_url: Path) -> list[tuple[str, str, int]]:
    records = Records()
    parts: dict[str, dict[str, Any]] = {
        "only on rank 0": {"a": Part(lambda: [1]), **({"b": Part(lambda: [2])} if rank == 0 else {})},
        "only on rank 1": {"a": Part(lambda: [1]), **({"b": Part(lambda: [2])} if rank == 1 else {})},
        "differs": {"a": Part(lambda: [1]), **({"b": Part(lambda: [rank])} if rank < 2 else {})},
        "same": {"a": Part(lambda: [1]), **({"b": Part(lambda: [2])} if rank < 2 else {})},
    }
    told = []
    for name, components in parts.items():
        ckpt = Checkpointer(train_url / name, components, on_failed_save="raise", background=False)
        records.lines.clear()
        failed = raised(partial(ckpt.resume, quiet=True))
        named = sum("'b'" in line for line in records.lines)
        told.append((*(failed if failed[0] else raised(ckpt.save)), named))
        ckpt.close()
    return told


def test_components_that_not_all_ranks_have(tmp_path: Path, context: ForkServerContext) -> None:
    told = values(run_job(context, tmp_path, save_what_not_all_have, tmp_path, size=3))
    kinds = [[kind for kind, *_ in rank] for rank in told]
    assert kinds == [["", "UsageError", "StateError", ""], *[["", "RankError", "RankError", ""]] * 2]
    for rank in told:
        assert "'b'" in rank[1][1]
        assert "b: " in rank[2][1]
        assert "rank 2" in rank[2][1]
    assert [[named for *_, named in rank] for rank in told] == [[1, 0, 1, 1], [0] * 4, [0] * 4]
    for name in ("only on rank 0", "same"):
        (path,) = (tmp_path / name).glob("*.ckptfmt")
        assert ckptfmt.torch.load(path)["b"] == [2]


def resume_another_model(rank: int, train_url: Path, other: int) -> tuple[tuple[str, str], list[float]]:
    net = nn.Linear(2, 3 if rank == other else 2)
    nn.init.constant_(net.weight, 7.0)
    ckpt = Checkpointer(train_url, {"net": net})
    return raised(lambda: ckpt.resume(quiet=True)), net.weight.flatten().tolist()


@pytest.mark.parametrize("other", [0, 1])
def test_a_rank_that_cannot_resume_keeps_all_from_it(tmp_path: Path, context: ForkServerContext, other: int) -> None:
    run_job(context, tmp_path, resume_another_model, tmp_path / "none", 2)
    values(run_job(context, tmp_path, save_a_model, tmp_path / "run"))
    told = values(run_job(context, tmp_path, resume_another_model, tmp_path / "run", other))
    for rank, ((kind, text), weights) in enumerate(told):
        assert kind == ("MismatchError" if rank == other else "RankError")
        assert "net.weight" in text
        assert set(weights) == {7.0}


def save_a_model(_rank: int, train_url: Path) -> None:
    torch.manual_seed(0)
    ckpt = Checkpointer(train_url, {"net": nn.Linear(2, 2)}, background=False)
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.close()


def make_sharded(_rank: int, train_url: Path) -> list[tuple[str, str]]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.distributed.tensor import distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    sharded = nn.Sequential(nn.Linear(4, 4))
    fully_shard(sharded, mesh=mesh)
    inner = FullyShardedDataParallel(nn.Linear(4, 4), device_id=torch.device("cpu"))
    replicated = DistributedDataParallel(nn.Linear(4, 4))
    zero = ZeroRedundancyOptimizer(replicated.parameters(), optimizer_class=torch.optim.SGD, lr=0.1)
    told = [
        raised(partial(Checkpointer, train_url, {"part": part}))
        for part in (sharded, nn.Sequential(inner), zero, replicated)
    ]
    tensor = distribute_tensor(torch.ones(4), mesh)
    ckpt = Checkpointer(train_url, {"part": Part(lambda: {"x": tensor})}, on_failed_save="raise")
    ckpt.resume(quiet=True)
    return [*told, raised(ckpt.save)]


def test_sharded_state_is_refused_at_once(tmp_path: Path, context: ForkServerContext) -> None:
    told = values(run_job(context, tmp_path, make_sharded, tmp_path / "run"))
    for rank in told:
        assert [kind for kind, _ in rank] == ["UsageError", "UsageError", "UsageError", "", "StateError"]
        names = ("DTensor", "FullyShardedDataParallel", "ZeroRedundancyOptimizer")
        said = [text for _, text in rank[:3]]
        assert all(name in text for name, text in zip(names, said, strict=True))
        assert all(word in rank[4][1] for word in ("part.x: ", "DTensor"))
