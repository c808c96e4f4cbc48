"""Training loops of the shapes that people write, each short enough to be killed many times.

Each takes the directory of its run and tells, as `tests.torture` asks, where it resumed and which steps are done. What
such a loop computes does not matter; that it comes to the same bits, however often it is killed, does.
"""

# mypy: disable-error-code="no-untyped-call"
# PyTorch has no annotations for `backward` and others that every loop calls.

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ckptfmt.torch import Checkpointer
from tests.torture.training import step_of, talk_of

__all__ = ["LOOPS"]


class Teller:
    """Tells what the campaign wants to know."""

    def __init__(self, train_url: Path, told: Connection | None) -> None:
        self._told = told
        if told is not None:
            talk = os.open(talk_of(train_url), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(talk, 2)
        torch.set_num_threads(1)
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)

    def resumed(self, ckpt: Checkpointer) -> None:
        self._tell("resumed", ckpt.resume(quiet=True).step)

    def done(self, ckpt: Checkpointer) -> None:
        self._tell("done", ckpt.global_step)
        if ckpt.last_saved is not None:
            self._tell("saved", step_of(ckpt.last_saved.path))

    def _tell(self, what: str, step: int) -> None:
        if self._told is not None:
            self._told.send((what, step))


class Images(Dataset[tuple[torch.Tensor, int]]):
    """Pictures of 8 x 8 points in 4 classes, shifted at random each time they are asked for."""

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        point = torch.zeros(1, 8, 8)
        point[0, (index + random.randrange(2)) % 8, index // 8 % 8] = 1 + float(np.random.rand())
        return point, index % 4


class Meter:
    """An average over an epoch, with a state of its own."""

    def __init__(self) -> None:
        self.sum, self.count = 0.0, 0

    def add(self, value: float) -> None:
        self.sum, self.count = self.sum + value, self.count + 1

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self.sum, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sum, self.count = state["sum"], state["count"]


def classifier(train_url: Path, told: Connection | None = None) -> None:
    """Epochs over shuffled pictures, dropout, a schedule per epoch, validation at its end."""
    tell = Teller(train_url, told)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
    loader = DataLoader(Images(), 8, shuffle=True)
    ckpt = Checkpointer(
        train_url, {"net": net, "optimizer": optimizer, "scheduler": scheduler}, save_interval_steps=4, keep_last=2
    )
    tell.resumed(ckpt)
    for _ in ckpt.epochs(3):
        net.train()
        for pictures, labels in ckpt.batches(loader):
            optimizer.zero_grad()
            functional.cross_entropy(net(pictures), labels).backward()
            optimizer.step()
            ckpt.step()
            tell.done(ckpt)
        net.eval()
        with torch.no_grad():
            loss = sum(functional.cross_entropy(net(pictures), labels).item() for pictures, labels in loader)
        scheduler.step()
        ckpt.end_epoch(val_loss=loss)


def recipe(train_url: Path, told: Connection | None = None) -> None:
    """Worker processes that augment, momentum, warm-up by step, an average over the epoch, the best by accuracy."""
    tell = Teller(train_url, told)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 5))
    loader = DataLoader(Images(), 8, shuffle=True, num_workers=2, multiprocessing_context="fork")
    meter = Meter()
    ckpt = Checkpointer(
        train_url,
        {"net": net, "optimizer": optimizer, "scheduler": scheduler, "meter": meter},
        save_interval_steps=3,
        keep_last=2,
        keep_best=("acc1", "max"),
    )
    tell.resumed(ckpt)
    for _ in ckpt.epochs(2):
        for pictures, labels in ckpt.batches(loader):
            output = net(pictures)
            optimizer.zero_grad()
            functional.cross_entropy(output, labels).backward()
            optimizer.step()
            scheduler.step()
            meter.add((output.argmax(1) == labels).float().mean().item())
            ckpt.step()
            tell.done(ckpt)
        ckpt.end_epoch(acc1=meter.sum / meter.count)


def autoencoder(train_url: Path, told: Connection | None = None) -> None:
    """Random draws in the forward pass and after each epoch, codec zstd."""
    tell = Teller(train_url, told)
    encoder, decoder = nn.Linear(64, 6), nn.Linear(3, 64)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
    loader = DataLoader(TensorDataset(torch.rand(40, 64, generator=torch.Generator().manual_seed(1))), 8, shuffle=True)
    ckpt = Checkpointer(
        train_url, {"encoder": encoder, "decoder": decoder, "optimizer": optimizer}, save_interval_steps=3, codec="zstd"
    )
    tell.resumed(ckpt)
    for _ in ckpt.epochs(3):
        for (points,) in ckpt.batches(loader):
            mean, spread = encoder(points).chunk(2, 1)
            code = mean + torch.randn_like(mean) * spread.exp()
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(decoder(code), points).backward()
            optimizer.step()
            ckpt.step()
            tell.done(ckpt)
        torch.randn(4, 3)  # samples to look at
        ckpt.end_epoch()


def adversarial(train_url: Path, told: Connection | None = None) -> None:
    """Two models and two optimizers in turns, with a fixed noise that is drawn once."""
    tell = Teller(train_url, told)
    generator = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 64))
    judge = nn.Sequential(nn.Linear(64, 16), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(16, 1))
    first = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    second = torch.optim.Adam(judge.parameters(), lr=2e-3, betas=(0.5, 0.999))
    loader = DataLoader(TensorDataset(torch.rand(40, 64, generator=torch.Generator().manual_seed(2))), 8, shuffle=True)
    ckpt = Checkpointer(
        train_url,
        {"generator": generator, "judge": judge, "first": first, "second": second},
        save_interval_minutes=0.001,
    )
    tell.resumed(ckpt)
    for _ in ckpt.epochs(3):
        for (real,) in ckpt.batches(loader):
            made = generator(torch.randn(len(real), 4))
            second.zero_grad()
            (functional.softplus(-judge(real)) + functional.softplus(judge(made.detach()))).mean().backward()
            second.step()
            if random.random() < 0.7:  # not in every step
                first.zero_grad()
                functional.softplus(-judge(made)).mean().backward()
                first.step()
            ckpt.step()
            tell.done(ckpt)


class Text(Dataset[torch.Tensor]):
    """Pieces of a sequence."""

    def __init__(self) -> None:
        self.tokens = torch.randint(0, 20, (400,), generator=torch.Generator().manual_seed(3))

    def __len__(self) -> int:
        return 45

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.tokens[8 * index : 8 * index + 9]


class Transformer(nn.Module):
    """Two tied embeddings around one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.layer(self.embedding(tokens)))
        return output


def language_model(train_url: Path, told: Connection | None = None) -> None:
    """Groups of parameters, clipped gradients, a cosine schedule by step, mixed precision, tied weights."""
    tell = Teller(train_url, told)
    net = Transformer()
    decayed = [it for it in net.parameters() if it.dim() > 1]
    others = [it for it in net.parameters() if it.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": 0.1}, {"params": others}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    scaler = torch.amp.GradScaler("cpu")
    loader = DataLoader(Text(), 4, shuffle=True, generator=torch.Generator().manual_seed(4))
    ckpt = Checkpointer(
        train_url,
        {"net": net, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler},
        save_interval_steps=2,
        keep_last=1,
        keep_every_steps=10,
    )
    tell.resumed(ckpt)
    for _ in ckpt.epochs(2):
        for tokens in ckpt.batches(loader):
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(tokens[:, :-1])
            loss = functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            ckpt.step(loss=loss)
            tell.done(ckpt)


def diffusion(train_url: Path, told: Connection | None = None) -> None:
    """An average of the weights beside them, and noise drawn in each step."""
    tell = Teller(train_url, told)
    net = nn.Sequential(nn.Linear(17, 32), nn.SiLU(), nn.Linear(32, 16))
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.RAdam(net.parameters(), lr=1e-2)
    loader = DataLoader(TensorDataset(torch.rand(40, 16, generator=torch.Generator().manual_seed(5))), 8, shuffle=True)
    ckpt = Checkpointer(
        train_url, {"net": net, "average": average, "optimizer": optimizer}, save_interval_steps=3, keep_last=2
    )
    tell.resumed(ckpt)
    for _ in ckpt.epochs(3):
        for (points,) in ckpt.batches(loader):
            time, noise = torch.rand(len(points), 1), torch.randn_like(points)
            optimizer.zero_grad()
            functional.mse_loss(net(torch.cat([points + time * noise, time], 1)), noise).backward()
            optimizer.step()
            average.update_parameters(net)
            ckpt.step()
            tell.done(ckpt)


def second_order(train_url: Path, told: Connection | None = None) -> None:
    """An optimizer with a history that grows, and a closure."""
    tell = Teller(train_url, told)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=2, history_size=5)
    points = torch.randn(16, 6, generator=torch.Generator().manual_seed(6))
    ckpt = Checkpointer(train_url, {"net": net, "optimizer": optimizer}, save_interval_steps=1, keep_last=2)
    tell.resumed(ckpt)

    def closure() -> float:
        optimizer.zero_grad()
        loss = functional.mse_loss(net(points), points.sum(1, keepdim=True))
        loss.backward()
        return loss.item()

    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(25)):
            optimizer.step(closure)
            ckpt.step()
            tell.done(ckpt)


class Game:
    """An environment with a state and random draws of its own."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(7)
        self.place = np.zeros(3)

    def step(self, action: int) -> tuple[torch.Tensor, float]:
        self.place += self.random.normal(size=3)
        self.place[action] -= 0.5
        return torch.tensor(self.place, dtype=torch.float32), float(-abs(self.place).sum())

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place.tolist(), "random": self.random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = np.array(state["place"])
        self.random.bit_generator.state = state["random"]


def reinforcement(train_url: Path, told: Connection | None = None) -> None:
    """Updates from what the policy itself has seen: no loader, and the pass is over a range."""
    tell = Teller(train_url, told)
    policy = nn.Linear(3, 3)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2, eps=1e-5)
    game = Game()
    ckpt = Checkpointer(
        train_url, {"policy": policy, "optimizer": optimizer, "game": game}, save_interval_steps=2, keep_last=2
    )
    tell.resumed(ckpt)
    for _ in ckpt.epochs(1):
        for update in ckpt.batches(range(20)):
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 * (1 - update / 20)
            losses = []
            place = torch.tensor(game.place, dtype=torch.float32)
            for _ in range(8):
                choice = torch.distributions.Categorical(logits=policy(place))
                action = choice.sample()
                place, reward = game.step(int(action))
                losses.append(-choice.log_prob(action) * reward)
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
            ckpt.step()
            tell.done(ckpt)


def epochs_only(train_url: Path, told: Connection | None = None) -> None:
    """A loop that draws its own data: no batches, no steps, only epochs."""
    tell = Teller(train_url, told)
    net = nn.Linear(4, 1)
    optimizer = torch.optim.Adam(net.parameters())
    ckpt = Checkpointer(train_url, {"net": net, "optimizer": optimizer}, keep_last=2, keep_best=("loss", "min"))
    tell.resumed(ckpt)
    for _ in ckpt.epochs(20):
        points = torch.randn(8, 4)
        optimizer.zero_grad()
        loss = functional.mse_loss(net(points), points.sum(1, keepdim=True))
        loss.backward()
        optimizer.step()
        ckpt.end_epoch(loss=loss.item())
        tell.done(ckpt)


def _endless() -> Iterator[torch.Tensor]:
    chance = torch.Generator().manual_seed(8)
    while True:
        yield torch.randn(8, 4, generator=chance)


def streamed(train_url: Path, told: Connection | None = None) -> None:
    """Batches of an iterable without an end, left by `break`."""
    tell = Teller(train_url, told)
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
    optimizer = torch.optim.NAdam(net.parameters())
    ckpt = Checkpointer(train_url, {"net": net, "optimizer": optimizer}, save_interval_steps=3, keep_last=2)
    tell.resumed(ckpt)
    for _ in ckpt.epochs(1):
        if ckpt.global_step < 25:
            for points in ckpt.batches(_Stream()):
                optimizer.zero_grad()
                functional.mse_loss(net(points), points.sum(1, keepdim=True)).backward()
                optimizer.step()
                ckpt.step()
                tell.done(ckpt)
                if ckpt.global_step == 25:
                    break


class _Stream:
    def __iter__(self) -> Iterator[torch.Tensor]:
        return _endless()


LOOPS: tuple[Callable[..., None], ...] = (
    classifier,
    recipe,
    autoencoder,
    adversarial,
    language_model,
    diffusion,
    second_order,
    reinforcement,
    epochs_only,
    streamed,
)
