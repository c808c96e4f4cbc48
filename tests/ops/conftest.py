from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt._core.container.numpy_adapter import NUMPY_ADAPTERS
from ckptfmt._core.container.planning import make_metadata, plan_save
from ckptfmt._core.container.writer import write_plan

CREATED = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
STATE: dict[str, Any] = {
    "net": {
        "conv.weight": np.arange(48, dtype=np.float32).reshape(3, 16),
        "conv.bias": np.full(3, 0.25, dtype=np.float32),
        "steps": np.array(7, dtype=np.int64),
    },
    "optimizer": {"state": {0: {"exp_avg": np.full((3, 16), 0.125, dtype=np.float32)}}, "lr": 0.001},
    "scheduler": {"last_epoch": 3},
}

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Return a function that saves a small training state under a name in `tmp_path`."""

    def save(name: str = "a.ckptfmt", state: Any = None, **facts: Any) -> Path:
        path = tmp_path / name
        ckptfmt.save(STATE if state is None else state, path, **{"created": CREATED, **facts})
        return path

    return save


def save_run(path: Path, *, state: Any = None, created: datetime = CREATED, **facts: Any) -> Path:
    """Save a small training state as a Checkpointer does, with the generation of the run."""
    state = STATE if state is None else state
    metadata = make_metadata(state, created=created, **facts)
    write_plan(path, plan_save(state, NUMPY_ADAPTERS, metadata=metadata))
    return path


def flip_byte(path: Path, content: bytes) -> None:
    """Change the first byte of the only place in the file that holds `content`."""
    data = bytearray(path.read_bytes())
    assert data.count(content) == 1
    data[data.index(content)] ^= 1
    path.write_bytes(data)
