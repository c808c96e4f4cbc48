"""A training program with everything that a resume has to restore; `--without NAME` leaves one thing out."""

from __future__ import annotations

import argparse
import copy
import random
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from ckptfmt.torch import Checkpointer

parser = argparse.ArgumentParser()
parser.add_argument("--train_url", default="never-made")
parser.add_argument("--without", default="", help="names, with commas between")
parser.add_argument("--loop", default="epochs", choices=["epochs", "steps"])
args = parser.parse_args()
without = args.without.split(",")


class Data(Dataset[torch.Tensor]):
    def __init__(self) -> None:
        self.values = torch.randn(48, 4)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.values[index] + 0.01 * random.random()


class Order(Sampler[int]):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(np.random.default_rng(self.epoch).permutation(self.length).tolist())


class Best:
    def __init__(self) -> None:
        self.loss = float("inf")

    def state_dict(self) -> dict[str, float]:
        return {"loss": self.loss}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.loss = state["loss"]


class Hidden:
    """What the loop carries from step to step."""

    def __init__(self) -> None:
        self.value = torch.zeros(4)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.value = state["value"].clone()


def main() -> None:
    if "seed" not in without:
        torch.manual_seed(1)
    random.seed(2)  # NumPy's generator is neither seeded nor used
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 4))
    ema = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
    noise = np.random.default_rng(4)
    best, carried = Best(), Hidden()
    components = {
        "net": net,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "scaler": scaler,
        "ema": ema,
        "noise": noise,
        "best": best,
        "carried": carried,
    }
    for name in without:
        components.pop(name, None)
    data = Data()
    order = Order(len(data))
    loader = DataLoader(data, batch_size=4, sampler=order)
    started = time.time()

    ckpt = Checkpointer(args.train_url, components)
    ckpt.resume(quiet=True)
    loss = None

    def work(batch: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        nonlocal loss
        wanted = batch + 0.1 * torch.from_numpy(noise.standard_normal(4)).float() + 0.1 * before
        loss = (net(batch) - wanted).square().mean()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        with torch.no_grad():
            for mean, now in zip(ema.parameters(), net.parameters(), strict=True):
                mean.lerp_(now, 0.1)
        best.loss = min(best.loss, loss.item())
        return wanted.mean(0).detach()

    if args.loop == "steps":
        batches = ckpt.cycle(loader, set_epoch=order.set_epoch)
        for _ in ckpt.steps(1000):
            carried.value = work(next(batches), carried.value)
            ckpt.step()
    elif "step" in without:
        for _ in ckpt.epochs(100):
            raise ZeroDivisionError("the program has a fault")
    elif "variable" in without:
        hidden, seen = torch.zeros(4), 0
        for epoch in ckpt.epochs(100):
            order.set_epoch(epoch)
            for batch in ckpt.batches(loader):
                seen += 1
                hidden = work(batch, hidden)
                ckpt.step()
            print(seen)
    else:
        for epoch in ckpt.epochs(100):
            order.set_epoch(epoch)
            for batch in ckpt.batches(loader):
                carried.value = work(batch, carried.value)
                ckpt.step()
            ckpt.end_epoch()
    print(time.time() - started)


main()
