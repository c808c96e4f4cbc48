"""Saves, loads, resumes and verifies with room for few threads.

`python -m tests.torch.with_few_threads ROOM DIRECTORY TIMES` prints what was found as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.few_threads import become_nobody, leave_room_for, require_no_more_than

room, scratch = int(sys.argv[1]), Path(sys.argv[2])
become_nobody()

import torch  # noqa: E402 - imports start threads, and not all can be stopped

import ckptfmt.torch  # noqa: E402 - as above
from ckptfmt._core.ops.directory.verify import verify_paths  # noqa: E402 - as above
from ckptfmt._core.storage.local.publication import atomic_file as publishing  # noqa: E402 - as above
from ckptfmt._core.storage.local.publication import direct_io as placing  # noqa: E402 - as above
from ckptfmt._core.storage.local.publication.direct_io import Way  # noqa: E402 - as above
from ckptfmt.torch import Checkpointer  # noqa: E402 - as above

TIMES = int(sys.argv[3])
STEPS = 3


def tensors(seed: int) -> dict[str, torch.Tensor]:
    """Return tensors of several chunks and of less, some in layouts that are not copied as they lie."""
    generator = torch.Generator().manual_seed(seed)
    made = {f"p{number}": torch.randn(500_000 + number * 977, generator=generator) for number in range(3)}
    made["long"] = torch.randn(2_500_000, generator=generator)
    made["images"] = torch.randn(32, 64, 20, 20, generator=generator).to(memory_format=torch.channels_last)
    made["turned"] = torch.randn(900, 1000, generator=generator).T
    made["mask"] = torch.rand(1200, 1000, generator=generator) > 0.5
    return made


def net_of(values: dict[str, torch.Tensor]) -> torch.nn.Module:
    net = torch.nn.Module()
    for name, value in values.items():
        net.register_buffer(name, value.clone())
    return net


class Marked:
    """A component whose tensors all show the step."""

    def __init__(self) -> None:
        self.step = 0
        self.tensors = {name: torch.zeros_like(value) for name, value in tensors(0).items()}

    def set(self, step: int) -> None:
        self.step = step
        for value in self.tensors.values():
            value.fill_(step % 2 if value.dtype == torch.bool else step)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "tensors": self.tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.tensors = state["step"], state["tensors"]


def differs(values: dict[str, Any], expected: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(values[name], tensor) for name, tensor in expected.items())


def loads(path: Path, expected: dict[str, torch.Tensor]) -> int:
    """Return how many of some loads gave something wrong."""
    wrong = 0
    for _ in range(TIMES):
        wrong += differs(ckptfmt.torch.load(path)["net"], expected)
        arrays = ckptfmt.load(path)["net"]
        wrong += differs({name: torch.from_numpy(array) for name, array in arrays.items()}, expected)
        wrong += not verify_paths([path, path.parent]).sound
        with ckptfmt.open(path) as checkpoint:
            wrong += bool(checkpoint.verify())
    return wrong


def resumes(directory: Path, expected: dict[str, torch.Tensor]) -> int:
    """Return how many of some resumes put something wrong into a module."""
    wrong = 0
    for _ in range(TIMES):
        net = net_of(tensors(2))
        with Checkpointer(directory, {"net": net}, signals=()) as ckpt:
            ckpt.resume("must", quiet=True)
        wrong += differs(net.state_dict(), expected)
    return wrong


def trains(directory: Path, codec: str) -> dict[str, Any]:
    """Train with a save at each step, in the background; then read all that was saved."""
    state = Marked()
    ckpt = Checkpointer(
        directory, {"state": state}, save_interval_steps=1, keep_last=99, signals=(), codec=codec, hang_timeout=300.0
    )
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(STEPS)):
            state.set(state.step + 1)
            ckpt.step()
    ckpt.close()
    wrong, steps = [], set()
    for path in sorted(directory.glob("*.ckptfmt")):
        found = ckptfmt.torch.load(path)["state"]
        wanted = Marked()
        wanted.set(found["step"])
        steps.add(found["step"])
        if differs(found["tensors"], wanted.tensors):
            wrong.append(path.name)
    return {"steps": sorted(steps), "wrong": wrong, "error": str(ckpt.last_error or "")}


def ways_used() -> list[str]:
    """Note the ways of writing from now on."""
    used: list[str] = []
    finish = placing.PlacedWriter.finish

    def note(self: placing.PlacedWriter, written_bytes: int | None = None) -> None:
        if written_bytes is not None and written_bytes > 1 << 20:
            used.append(self.way.value)
        finish(self, written_bytes)

    placing.PlacedWriter.finish = note  # type: ignore[method-assign]  # there is one process for this
    return used


def main() -> None:
    torch.ones(1 << 22).add_(1)  # training has begun: the threads that PyTorch computes with are there
    expected = tensors(1)
    report: dict[str, Any] = {"loads": {}, "resumes": {}, "trained": {}}
    for codec in ("none", "zstd"):
        (scratch / codec / "run").mkdir(parents=True)
        ckptfmt.torch.save({"net": expected}, scratch / codec / "a.ckptfmt", codec=codec)
        with Checkpointer(scratch / codec / "run", {"net": net_of(expected)}, codec=codec, signals=()) as ckpt:
            ckpt.resume(quiet=True)
            ckpt.save()
    leave_room_for(room)
    for codec in ("none", "zstd"):
        report["loads"][codec] = loads(scratch / codec / "a.ckptfmt", expected)
        report["resumes"][codec] = resumes(scratch / codec / "run", expected)
    for way in (Way.DIRECT, Way.ORDINARY):
        publishing._PAST_THE_CACHE = (way,)  # type: ignore[assignment]  # two, as it stands
        used = ways_used()
        for codec in ("none", "zstd"):
            directory = scratch / way.value / codec
            directory.mkdir(parents=True)
            report["trained"][f"{way.value}, {codec}"] = trains(directory, codec)
            path = directory / "saved"
            for number in range(TIMES):
                ckptfmt.torch.save({"net": tensors(number)}, path, codec=codec)
                report["loads"][f"{way.value}, {codec}, {number}"] = differs(
                    ckptfmt.torch.load(path)["net"], tensors(number)
                )
        report.setdefault("ways", {})[way.value] = sorted(set(used))
    require_no_more_than(room)  # the limit is still in force
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
