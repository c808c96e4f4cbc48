"""The files that the README and the guides are about, and the names that their Python blocks use."""

from __future__ import annotations

import argparse
import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ckptfmt
import ckptfmt.torch

__all__ = ["make_files", "names"]

RUN = "20261124-020233-28aad2b8"
LOSSES = {20: 0.61, 40: 0.34, 60: 0.22, 80: 0.17, 100: 0.19, 120: 0.2}


def make_files(directory: Path) -> None:
    """Write the files that a page names below `directory`: a run of six checkpoints, and some from other programs."""
    runs = directory / "runs" / "digits"
    runs.mkdir(parents=True)
    now = datetime.now(UTC).replace(microsecond=123456)  # so that its length is always the same
    for number, (step, loss) in enumerate(LOSSES.items()):
        created = now - timedelta(hours=len(LOSSES) - number)
        facts: dict[str, Any] = {"epoch": step // 40, "metrics": {"val_loss": loss, "accuracy": 1 - loss / 2}}
        ckptfmt.save(state(step), runs / f"ckpt-{step:08d}.ckptfmt", run_id=RUN, step=step, created=created, **facts)
    damage(runs / "ckpt-00000060.ckptfmt", weights(60, (64, 64)).tobytes())
    buffer = io.BytesIO()
    np.savez(buffer, **{"conv.weight": weights(1, (16, 1, 3, 3))})
    (directory / "other.npz").write_bytes(buffer.getvalue())
    make_pth_files(directory)


class RunsACommand:
    """What a `.pth` file of a stranger may contain."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo",)


def make_pth_files(directory: Path) -> None:
    """Write what the documented loop of PyTorch writes, a hostile file, and a directory with one sound file of two."""
    net = network()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.zeros(1, 4)).sum().backward()
    optimizer.step()
    saved = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(saved | {"epoch": 12}, directory / "ckpt_best_12.pth")
    torch.save({"net": net.state_dict(), "hook": RunsACommand()}, directory / "strange.pth")
    (directory / "old").mkdir()
    torch.save(saved | {"epoch": 12}, directory / "old" / "ckpt_best_12.pth")
    (directory / "old" / "bad.pth").write_bytes(b"x\n")
    (directory / "runs" / "old").mkdir()
    ckptfmt.torch.save(saved, directory / "runs" / "old" / "ckpt-00090000-e0012.ckptfmt", step=90000, epoch=12)


def network(classes: int = 3) -> nn.Module:
    """Return the small network of the Python blocks."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, classes))


def names(number: int) -> dict[str, Any]:
    """Return the names that a Python block may use without having defined them.

    Args:
        number: Number of the block. Each has a run directory of its own.
    """
    net = network()
    optimizer = torch.optim.AdamW(net.parameters())
    return {
        "args": argparse.Namespace(train_url=Path(f"run-{number}"), epochs=2, max_steps=5),
        "nn": nn,
        "get_batch": lambda: (torch.rand(2, 4), torch.randint(3, (2,))),
        "net": net,
        "backbone": nn.Linear(2, 2),
        "wider_net": network(classes=5),
        "ema": torch.optim.swa_utils.AveragedModel(net),
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 10),
        "train_loader": DataLoader(TensorDataset(torch.zeros(8, 4), torch.zeros(8)), batch_size=4),
        "loss": torch.tensor(0.5),
        "val_loss": 0.25,
        "weights": {"wte.weight": np.zeros((4, 2), np.float32)},
    }


def weights(step: int, shape: tuple[int, ...]) -> Any:
    """Return weights that go some way from step to step."""
    first = np.random.default_rng(0).standard_normal(shape)
    return (first + step / 2000 * np.random.default_rng(step).standard_normal(shape)).astype(np.float32)


def state(step: int) -> dict[str, Any]:
    """Return the state of a training after so many steps."""
    net: dict[str, Any] = {"conv.weight": weights(step, (16, 1, 3, 3)), "conv.bias": weights(step + 1, (16,))}
    for layer in range(4):
        net[f"blocks.{layer}.weight"] = weights(step + layer, (64, 64))
        net[f"blocks.{layer}.bias"] = weights(step + layer, (64,))
    net["head.weight"] = weights(step, (10, 64))
    moments = {
        number: {"step": np.array(step, np.float32), "exp_avg": value * 0.1, "exp_avg_sq": np.square(value) * 0.01}
        for number, value in enumerate(net.values())
    }
    group = {
        "lr": 0.001 if step < 100 else 0.0005,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.01,
        "amsgrad": False,
        "decoupled_weight_decay": True,
        "params": list(moments),
    }
    return {
        "net": net,
        "optimizer": {"state": moments, "param_groups": [group]},
        "scheduler": {"step_size": 100, "gamma": 0.5, "last_epoch": step, "_last_lr": [group["lr"]]},
        "rng": {"python": [3, step], "torch": np.full(5056, step % 256, np.uint8)},
        "progress": {"step": step, "epoch": step // 40, "pass": {"consumed": step % 40, "batches": 40}},
    }


def damage(path: Path, content: bytes) -> None:
    """Change a byte in the only place in the file that holds `content`."""
    data = bytearray(path.read_bytes())
    assert data.count(content) == 1
    data[data.index(content)] ^= 1
    path.write_bytes(data)
