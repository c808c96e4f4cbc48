"""The files that the transcripts in the README are about: two runs of the small network, saved an hour apart."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import ckptfmt

__all__ = ["make_files"]

RUN = "20261124-020233-28aad2b8"
LOSSES = {20: 0.61, 40: 0.34, 60: 0.22, 80: 0.17, 100: 0.19, 120: 0.2}


def make_files(directory: Path) -> None:
    """Write what the transcripts ask for below `directory`."""
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
