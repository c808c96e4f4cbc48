"""A data-parallel job of two processes: killed, told to leave, and started again."""

from __future__ import annotations

import os
import random
import signal
import sys
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

import ckptfmt
import ckptfmt.torch
from ckptfmt.errors import MismatchError
from ckptfmt.torch import Checkpointer
from tests.torch.tiny import final_state

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo and SIGKILL"
)

RANKS = 2
EPOCHS = 3
STEPS = 5  # in an epoch
Data = list[torch.Tensor]


class Seen:
    """What this rank has seen. Only rank 0's is saved, so it goes to a file of the rank, cut to the step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, step: int, values: object) -> None:
        lines = self.path.read_text().splitlines()[: step - 1] if self.path.exists() else []
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in [*lines, repr(values)]))
        new.replace(self.path)  # at once: the process may be killed here, too


def train(train_url: Path, meeting: Path, rank: int, told: Connection | None = None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=RANKS)
    torch.manual_seed(rank)  # each rank draws numbers of its own
    random.seed(rank)
    torch.manual_seed(7)
    net = DistributedDataParallel(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1)))
    torch.manual_seed(rank)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    data: Data = [torch.full((3,), float(number)) for number in range(RANKS * STEPS * 2)]
    sampler: DistributedSampler[torch.Tensor] = DistributedSampler(data, seed=3)  # type: ignore[arg-type]  # a list will do
    loader: DataLoader[torch.Tensor] = DataLoader(data, 2, sampler=sampler)  # type: ignore[arg-type]  # a list will do
    seen = Seen(train_url.with_name(f"{train_url.name}-{rank}"))
    ckpt = Checkpointer(train_url, {"net": net, "optimizer": optimizer}, save_interval_steps=2)
    ckpt.resume(quiet=True)
    for epoch in ckpt.epochs(EPOCHS):
        sampler.set_epoch(epoch)
        for batch in ckpt.batches(loader):
            if told is not None:
                told.send(ckpt.global_step + 1)
            optimizer.zero_grad()
            loss = net(batch).mean() + random.random()
            loss.backward()
            optimizer.step()
            seen.write(ckpt.global_step + 1, (batch.tolist(), loss.item()))
            ckpt.step(loss=loss)
        ckpt.end_epoch()
    dist.destroy_process_group()


def start(
    context: ForkServerContext,
    train_url: Path,
    *,
    number: int = 0,
    step: int | None = None,
    what: int = 0,
    whom: int = 1,
) -> list[int | None]:
    """Run the job; in a step of one rank, send that rank a signal. As by torchrun, if one rank dies, all do.

    Returns:
        The exit code of each rank.
    """
    train_url.parent.mkdir(exist_ok=True)
    meeting = train_url.with_name(f"{train_url.name}-meeting-{number}")
    here, there = context.Pipe(duplex=False)
    ranks: list[BaseProcess] = [
        context.Process(target=train, args=(train_url, meeting, rank, there if rank == whom else None))
        for rank in range(RANKS)
    ]
    for process in ranks:
        process.start()
    there.close()
    try:
        while True:
            if here.recv() == step:
                assert ranks[whom].pid is not None
                os.kill(ranks[whom].pid or 0, what)
    except EOFError:
        pass
    alive = {process.sentinel: process for process in ranks}
    while alive:
        for sentinel in wait(list(alive)):
            ended = alive.pop(int(sentinel))  # type: ignore[arg-type]  # what was waited for are these numbers
            ended.join()
            if ended.exitcode:
                for other in alive.values():
                    other.join(10 if what == signal.SIGTERM else 0)
                    other.kill()
    return [process.exitcode for process in ranks]


def seen(train_url: Path) -> list[str]:
    return [train_url.with_name(f"{train_url.name}-{rank}").read_text() for rank in range(RANKS)]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, context: ForkServerContext) -> Path:
    """A job that was left alone."""
    train_url = tmp_path_factory.mktemp("calm") / "run"
    assert start(context, train_url) == [0] * RANKS
    return train_url


@pytest.mark.parametrize("whom", range(RANKS))
def test_a_killed_rank_changes_nothing(tmp_path: Path, context: ForkServerContext, calm: Path, whom: int) -> None:
    train_url = tmp_path / "run"
    for number, step in enumerate([1, 4, 10, 13]):
        codes = start(context, train_url, number=number, step=step, what=signal.SIGKILL, whom=whom)
        assert codes[whom] == -signal.SIGKILL
    assert start(context, train_url, number=99) == [0] * RANKS
    assert final_state(train_url) == final_state(calm)
    assert seen(train_url) == seen(calm)


@pytest.mark.parametrize("whom", range(RANKS))
def test_a_signal_to_one_rank_makes_all_of_them_leave_after_one_step(
    tmp_path: Path, context: ForkServerContext, calm: Path, whom: int
) -> None:
    train_url = tmp_path / "run"
    assert start(context, train_url, step=3, what=signal.SIGTERM, whom=whom) == [75] * RANKS
    with ckptfmt.open(max(train_url.glob("*.ckptfmt"))) as checkpoint:
        assert checkpoint.metadata.step == 3
    assert start(context, train_url, number=1) == [0] * RANKS
    assert final_state(train_url) == final_state(calm)
    assert seen(train_url) == seen(calm)


def test_another_number_of_ranks_is_told(calm: Path) -> None:
    """One process cannot have the random states and places of two."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    with pytest.raises(MismatchError) as caught:
        Checkpointer(calm, {"net": net, "optimizer": optimizer}).resume()
    assert sorted(difference.partition(":")[0] for difference in caught.value.differences) == ["progress", "rng"]
    ckpt = Checkpointer(calm, {"net": net, "optimizer": optimizer})
    report = ckpt.resume(allow_mismatch=["rng", "progress"], quiet=True)
    assert (report.step, report.epoch, report.batch) == (EPOCHS * STEPS, EPOCHS, 0)
    ckpt.close()
