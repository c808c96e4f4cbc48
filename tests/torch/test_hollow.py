"""A component that saves nothing although it has a state is told; one that has none is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.aggregation import MeanMetric

from ckptfmt.torch import Checkpointer


class Tally:
    """Counts, and forgets to say so."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


class Cache(nn.Module):
    """Fills a cache at its first use."""

    mask: torch.Tensor | None = None

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        if self.mask is None:
            self.mask = torch.ones(3)
        return value * self.mask


def test_a_metric_without_persistent_states_is_told_once_and_is_not_restored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def metrics() -> dict[str, Any]:
        return {"net": nn.Linear(1, 1), "mean": MeanMetric(), "all": MetricCollection([MeanMetric()])}

    with Checkpointer(tmp_path, metrics()) as ckpt:
        ckpt.resume(quiet=True)
        ckpt.save()
        ckpt.save()
    told = sorted(capsys.readouterr().err.splitlines())
    assert len(told) == 2
    assert all(re.search(rf"\b{name}\b", line) for name, line in zip(("all", "mean"), told, strict=True))
    assert "persistent(True)" in told[0]
    report = Checkpointer(tmp_path, metrics()).resume()
    assert (report.empty, report.missing, report.unexpected) == (("mean", "all"), (), ())
    assert report.restored == ("net", "rng", "progress")
    error = capsys.readouterr().err
    assert "mean, all" in error


def test_an_object_that_changes_and_saves_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally()
    with Checkpointer(tmp_path, {"tally": tally}) as ckpt:
        ckpt.resume(quiet=True)
        ckpt.save()
        assert capsys.readouterr().err == ""
        tally.count += 1
        ckpt.save()
    assert "tally" in capsys.readouterr().err


def test_what_has_no_state_is_not_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts: dict[str, Any] = {
        "net": nn.Linear(3, 3),
        "chain": nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)),
        "loss": nn.CrossEntropyLoss(),
        "cache": Cache(),
        "scaler": torch.amp.GradScaler("cpu", enabled=False),
        "metric": MeanMetric(),
    }
    parts["metric"].persistent(True)
    with Checkpointer(tmp_path, parts) as ckpt:
        ckpt.resume(quiet=True)
        for _ in range(3):
            parts["chain"].train()
            parts["chain"](torch.ones(2, 3))
            parts["cache"](torch.ones(3))
            parts["scaler"].scale(parts["net"](torch.ones(3)).sum()).backward()
            parts["scaler"].update()
            parts["metric"].update(1.0)
            ckpt.save()
            parts["chain"].eval()
            ckpt.save()
    assert capsys.readouterr().err == ""
    report = Checkpointer(tmp_path, parts).resume(quiet=True)
    assert report.empty == ("chain", "loss", "cache", "scaler")
