"""A job of two ranks, killed at random and started again until it is done: `python -m tests.breaking.killed_ranks`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from ckptfmt.torch import Checkpointer

RANKS = 2
EPOCHS = 3
SAMPLES = 96
MAX_LIVES = 40


class Net(nn.Module):
    """Normalizes over the batch of its rank, so that ranks differ in their buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 1))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.body(batch)
        return output


def train(rank: int, meeting: Path, train_url: Path, result: Path) -> None:
    """Train on one rank to the end, and write what the rank has then."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=RANKS, timeout=timedelta(seconds=60)
    )
    torch.manual_seed(rank)
    net = Net()
    model = DistributedDataParallel(net, broadcast_buffers=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = TensorDataset(torch.randn(SAMPLES, 8, generator=torch.Generator().manual_seed(0)))
    sampler: DistributedSampler[Any] = DistributedSampler(data)
    loader = DataLoader(data, 4, sampler=sampler)
    checkpointer = Checkpointer(
        train_url, {"model": model, "optimizer": optimizer}, save_interval_steps=3, keep_last=2, when_busy="skip"
    )
    checkpointer.resume(quiet=True)
    for epoch in checkpointer.epochs(EPOCHS):
        sampler.set_epoch(epoch)
        for (batch,) in checkpointer.batches(loader):
            loss = (model(batch + torch.randn(batch.shape) / 8) - batch.sum(1, keepdim=True)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            checkpointer.step(loss=loss)
    state = {name: value.tolist() for name, value in net.state_dict().items()}
    moments = [value["exp_avg"].sum().item() for value in optimizer.state.values()]
    result.write_text(json.dumps([state, moments, torch.rand(()).item(), checkpointer.global_step]))
    dist.barrier()
    dist.destroy_process_group()


def live(context: ForkServerContext, directory: Path, number: int, dice: random.Random | None, longest: float) -> bool:
    """Run the job once, and kill a rank at some time, then the other; return whether it was killed."""
    meeting = directory / f"meeting-{number}"
    arguments = [(rank, meeting, directory / "run", directory / f"result-{rank}") for rank in range(RANKS)]
    processes = [context.Process(target=train, args=those) for those in arguments]
    for process in processes:
        process.start()
    killed = False
    if dice is not None:
        first = dice.choice(processes)
        if not wait([first.sentinel], dice.uniform(0, longest)):
            killed = True
            first.kill()
            time.sleep(dice.choice([0, 0.05]))  # as a launcher that notices the death soon, or at once
            for process in processes:
                process.kill()
    for process in processes:
        process.join()
    if not killed and any(process.exitcode for process in processes):
        raise RuntimeError(f"a rank ended with {[process.exitcode for process in processes]}")
    return killed


def kill_runs(context: ForkServerContext, directory: Path, kills: int, seed: int = 0) -> dict[str, Any]:
    """Kill jobs so many times in all, and compare what they end with."""
    dice = random.Random(seed)
    whole = directory / "whole"
    whole.mkdir()
    begun = time.perf_counter()
    live(context, whole, 0, None, 0)
    longest = 1.2 * (time.perf_counter() - begun)
    expected = [(whole / f"result-{rank}").read_text() for rank in range(RANKS)]
    done, runs, broken = 0, 0, []
    while done < kills:
        run = directory / f"run-{runs}"
        run.mkdir()
        runs += 1
        try:
            for number in range(MAX_LIVES):
                killed = live(context, run, number, dice if number < MAX_LIVES - 1 else None, longest)
                done += killed
                if not killed:
                    break
            found = [(run / f"result-{rank}").read_text() for rank in range(RANKS)]
            if found != expected:
                broken.append(f"run {runs}: another end")
        except (RuntimeError, OSError) as error:
            broken.append(f"run {runs}: {error}")
    return {"cases": done, "broken": broken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.breaking.killed_ranks"])
    with tempfile.TemporaryDirectory(prefix="ckptfmt-ranks-") as name:
        print(json.dumps(kill_runs(context, Path(name), options.kills, options.seed)))


if __name__ == "__main__":
    main()
