"""State that differs between the ranks of a job: each rank has its own again after a resume, bit for bit."""

from __future__ import annotations

import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import ckptfmt
import ckptfmt.torch
from ckptfmt import PerRank
from ckptfmt._core.training.report import render_report
from ckptfmt.errors import MismatchError
from ckptfmt.torch import Checkpointer
from tests.torch.job import Ended, run_job
from tests.torch.same import bits

pytestmark = pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo")

STEPS = 6


class Net(nn.Module):
    """A model whose output goes by what it has seen on its rank."""

    average: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 1)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("average", torch.zeros(3))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.average.mul_(0.5).add_(batch.mean(0))
            self.count += len(batch)
        output: torch.Tensor = self.linear(self.norm(batch) - self.average)
        return output


class History:
    """What happened on one rank, in plain values and tensors."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.losses: list[float] = []
        self.by_rank: dict[str, Any] = {"everywhere": 1}
        self.tied = torch.zeros(2)
        self.other = self.tied

    def note(self, loss: torch.Tensor) -> None:
        self.losses.append(loss.item())
        self.by_rank[f"rank {self.rank}"] = torch.full((self.rank + 1,), loss.item())
        self.tied += loss.item()

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses), "by_rank": dict(self.by_rank), "tied": self.tied, "other": self.other}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.by_rank = list(state["losses"]), dict(state["by_rank"])
        self.tied, self.other = state["tied"], state["other"]
        assert self.tied is self.other


def train(
    rank: int, train_url: Path, stop: int | None = None, broadcast: bool = False, allow_mismatch: Any = ()
) -> Any:
    """Train one epoch, or some steps of it; return all that this rank has in the end, and what it was told."""
    net = Net()
    size = dist.get_world_size() if dist.is_initialized() else 1
    model = DistributedDataParallel(net, broadcast_buffers=broadcast) if size > 1 else net
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    optimizer.param_groups[0]["samples"] = 0
    history = History(rank)
    noise = torch.Generator().manual_seed(rank)
    components: dict[str, Any] = {"net": model, "optimizer": optimizer, "history": history, "noise": noise}
    ckpt = Checkpointer(train_url, components, save_interval_steps=1)
    report = ckpt.resume(quiet=True, allow_mismatch=allow_mismatch)
    for _ in ckpt.epochs(1):
        for number in ckpt.batches(range(STEPS)):
            batch = torch.rand(4, 3, generator=noise) + rank
            loss = (model(batch) - batch.sum(1, keepdim=True)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            optimizer.param_groups[0]["samples"] += 4 + rank
            history.note(loss)
            if broadcast and number == STEPS // 2 - 1:
                with torch.no_grad():  # an evaluation that changes buffers, after which nothing is broadcast
                    model(torch.rand(4, 3, generator=noise) * (rank + 1))
            ckpt.step(loss=loss)
            if ckpt.global_step == stop:
                ckpt.wait()
                return None
    ckpt.close()
    assert ckpt.last_error is None
    saved = None if ckpt.last_saved is None else (Path(ckpt.last_saved.path).name, ckpt.last_saved.per_rank)
    return {
        "net": {name: bits(tensor) for name, tensor in net.state_dict().items()},
        "moments": [bits(state["exp_avg"]) for state in optimizer.state.values()],
        "samples": optimizer.param_groups[0]["samples"],
        "losses": history.losses,
        "by_rank": {name: repr(value) for name, value in history.by_rank.items()},
        "tied": bits(history.tied),
        "noise": bits(noise.get_state()),
        "report": render_report(report),
        "step": report.step,
        "saved": saved,
    }


def results(ended: list[Ended]) -> list[Any]:
    assert [rank.code for rank in ended] == [0] * len(ended), ended
    return [rank.value for rank in ended]


def without_report(values: list[Any]) -> list[Any]:
    return [{name: value for name, value in rank.items() if name not in ("report", "step", "saved")} for rank in values]


OWN = (
    "net.average",
    "net.norm.running_mean",
    "net.norm.running_var",
    "optimizer.param_groups[0].samples",
    "history.losses",
    "history.by_rank",
    "history.tied",
    "history.other",
    "noise.state",
)


@pytest.mark.parametrize("size", [2, 3])
def test_each_rank_goes_on_with_its_own(tmp_path: Path, context: ForkServerContext, size: int) -> None:
    whole = results(run_job(context, tmp_path / "a", train, tmp_path / "whole", size=size))
    assert len({rank["net"]["average"] for rank in whole}) == len({str(rank["losses"]) for rank in whole}) == size
    assert len({str(rank["net"]["linear.weight"]) for rank in whole}) == 1
    for stop in (1, 4):
        run_job(context, tmp_path / "b", train, tmp_path / f"cut-{stop}", stop, size=size)
        resumed = results(run_job(context, tmp_path / "b", train, tmp_path / f"cut-{stop}", size=size))
        assert without_report(resumed) == without_report(whole)
        for rank in resumed:
            assert rank["step"] == stop
            assert rank["saved"] == (f"ckpt-{STEPS:08d}-e0001.ckptfmt", OWN)
            assert f"  per rank    {', '.join(OWN[:8])} and 1 more: " in rank["report"]


def test_only_what_differs_is_stored_for_each_rank(tmp_path: Path, context: ForkServerContext) -> None:
    results(run_job(context, tmp_path, train, tmp_path / "run"))
    state = ckptfmt.torch.load(max((tmp_path / "run").glob("*.ckptfmt")))
    assert {name for name, value in state["net"].items() if isinstance(value, PerRank)} == {
        "norm.running_mean",
        "norm.running_var",
        "average",
    }
    assert [list(values) for values in state["history"]["by_rank"].values] == [
        ["everywhere", "rank 0"],
        ["everywhere", "rank 1"],
    ]
    assert isinstance(state["rng"], PerRank)
    assert isinstance(state["progress"], PerRank)


def test_buffers_that_ddp_broadcasts_are_rank_0s(tmp_path: Path, context: ForkServerContext) -> None:
    """But for those that it does not: after an evaluation. A new model would broadcast them all the same."""
    whole = results(run_job(context, tmp_path, train, tmp_path / "whole", None, True))
    places = [place for place in OWN if not place.startswith("net.")]
    assert whole[0]["saved"][1] == tuple(places)
    for stop in (2, 3, 4):
        run_job(context, tmp_path, train, tmp_path / f"cut-{stop}", stop, True)
        resumed = results(run_job(context, tmp_path, train, tmp_path / f"cut-{stop}", None, True))
        assert resumed[0]["step"] == stop
        assert without_report(resumed)[0] == without_report(whole)[0]
        losses = [rank["losses"] for rank in whole]
        assert [rank["losses"] for rank in resumed] == losses


def refused(train_url: Path, **options: Any) -> MismatchError:
    with pytest.raises(MismatchError) as caught:
        train(0, train_url, **options)
    return caught.value


def places_of(error: MismatchError) -> list[str]:
    return [line.partition(": ")[0] for line in error.differences]


COMPONENTS = ("net", "optimizer", "history", "noise", "rng", "progress")


def test_another_number_of_ranks_is_refused_by_every_place_and_can_be_waived(
    tmp_path: Path, context: ForkServerContext
) -> None:
    train_url = tmp_path / "run"
    run_job(context, tmp_path, train, train_url, 2)
    saved = ckptfmt.torch.load(max(train_url.glob("*.ckptfmt")), rank=0)
    assert places_of(refused(train_url)) == [*OWN, "rng", "progress"]
    assert places_of(refused(train_url, allow_mismatch=["net", "rng"])) == [*OWN[3:], "progress"]
    path = max(train_url.glob("*.ckptfmt"))
    resumed = train(0, train_url, allow_mismatch=COMPONENTS)
    assert resumed["step"] == 2
    assert resumed["losses"][:2] == saved["history"]["losses"]
    assert all(f"mismatched  {place}: saved per rank by 2 ranks" in resumed["report"] for place in OWN)
    assert "  per rank  " not in resumed["report"]
    assert resumed["saved"][1] == ()
    net, history = Net(), History(0)
    with pytest.raises(MismatchError) as caught:
        ckptfmt.torch.restore(path, {"net": net, "history": history})
    assert places_of(caught.value) == [place for place in OWN if place.startswith(("net.", "history."))]
    assert (history.losses, bits(net.average)) == ([], bytes(12))
    report = ckptfmt.torch.restore(path, {"net": net, "history": history}, allow_mismatch=["net", "history"])
    assert [line for detail in report.components for line in detail.differences] == list(caught.value.differences)
    assert all("rank 0's value" in line for line in caught.value.differences)
    assert history.losses == saved["history"]["losses"]
    assert bits(net.average) == bits(saved["net"]["average"])


def test_more_ranks_than_before(tmp_path: Path, context: ForkServerContext) -> None:
    train_url = tmp_path / "run"
    train(0, train_url, 2)  # one process: nothing is per rank
    ended = run_job(context, tmp_path, train, train_url)
    assert {(rank.error, rank.said.splitlines()[1:][0].partition(": ")[0].strip()) for rank in ended} == {
        ("MismatchError", "rng")
    }
    values = results(run_job(context, tmp_path, train, train_url, None, False, ("rng", "progress")))
    assert [rank["step"] for rank in values] == [2, 2]
    two = tmp_path / "two"
    run_job(context, tmp_path, train, two, 2)
    ended = run_job(context, tmp_path, train, two, size=3)
    assert {rank.error for rank in ended} == {"MismatchError"}
    assert all(f"{place}: saved per rank by 2 ranks" in rank.said for rank in ended for place in OWN)
    values = results(run_job(context, tmp_path, train, two, None, False, COMPONENTS, size=3))
    assert all("mismatched  net.average: " in rank["report"] for rank in values)
    assert len({str(rank["losses"][:2]) for rank in values}) == 1


def test_a_new_run_starts_with_the_weights_of_rank_0_and_says_so(tmp_path: Path, context: ForkServerContext) -> None:
    train_url = tmp_path / "run"
    run_job(context, tmp_path, train, train_url, 2)
    path = max(train_url.glob("*.ckptfmt"))
    net, history = Net(), History(0)
    ckpt = Checkpointer(tmp_path / "new", {"net": net, "history": history})
    ckpt.resume(quiet=True)
    report = ckpt.warm_start(path, also_restore=["history"], quiet=True)
    assert [line.partition(": ")[0] for line in report.per_rank] == [*OWN[:3], *OWN[4:8]]
    assert all("rank 0's" in line for line in report.per_rank)
    saved = ckptfmt.torch.load(path, rank=0)
    assert bits(net.average) == bits(saved["net"]["average"])
    assert history.losses == saved["history"]["losses"]
    other = Net()
    assert len(ckptfmt.torch.warm_start(path, other, source="net", quiet=True).per_rank) == 3
    assert bits(other.average) == bits(net.average)
    ckpt = Checkpointer(tmp_path / "random", {"net": Net()})
    ckpt.resume(quiet=True)
    with pytest.raises(MismatchError, match="rng"):
        ckpt.warm_start(path, also_restore=["rng"])
