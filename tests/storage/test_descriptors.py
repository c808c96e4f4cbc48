"""Whichever call of the system fails: no descriptor stays open."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

import ckptfmt
from ckptfmt._core.ops.conversion.convert import convert
from ckptfmt._core.ops.conversion.export import export
from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt._core.ops.directory.pins import pin, unpin
from ckptfmt._core.ops.inspection.inspect import inspect_file
from ckptfmt._core.ops.members.extract import extract
from ckptfmt._core.ops.members.pack import pack
from ckptfmt._core.ops.members.strip import strip_file
from ckptfmt._core.pruning import prune_run
from ckptfmt._core.runs.retention import RetentionPolicy
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt._core.storage.local.publication.leftovers import clean_leftovers, temporary_files
from ckptfmt._core.storage.local.quarantine import forget_cached, is_being_written, quarantine
from ckptfmt._core.storage.local.source import open_source
from tests.storage.disturbed_writer import NEVER_FAIL, operation_name

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")


class Failure:
    """Lets the n-th file operation from now on fail, on this thread, as long as it is entered."""

    def __init__(self, when: int) -> None:
        self.left = when

    def __enter__(self) -> Failure:
        sys.setprofile(self.on_call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def on_call(self, _: FrameType, event: str, function: Any) -> None:
        if event != "c_call":
            return
        name = operation_name(function)
        if name is None or name in NEVER_FAIL:
            return
        self.left -= 1
        if self.left == 0:
            sys.setprofile(None)
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    net: dict[str, Any] = {"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 3))}
    for step in (1, 2):
        ckptfmt.save({"net": net, "opt": {"lr": 0.1}}, tmp_path / f"{step}.ckptfmt", run_id="r", step=step)
    np.savez(tmp_path / "a.npz", **net)
    torch.save({"net": {"w": torch.ones(3)}, "epoch": 1}, tmp_path / "a.pth")
    export(tmp_path / "1.ckptfmt", tmp_path / "a.safetensors", component="net")
    export(tmp_path / "1.ckptfmt", tmp_path / "hf", component="net", shard_bytes=30)
    (tmp_path / "hf" / "config.json").write_text("{}")
    extract(tmp_path / "1.ckptfmt", tmp_path / "members")
    (tmp_path / ".1.ckptfmt.01234567-0123456789abcdef.tmp").write_bytes(b"half")
    return tmp_path


def publish(path: Path) -> None:
    with AtomicFile(path, expected_bytes=3) as file:
        file.write(b"new")
        file.commit()


def read(path: Path) -> None:
    with open_source(path) as source:
        source.read(0, 5)
        source.view(0, 5)


def damage(directory: Path) -> None:
    for old in directory.glob("*.damaged*"):
        old.unlink()
    (directory / "damaged").touch()
    quarantine(str(directory / "damaged"))


ACTIONS: dict[str, Callable[[Path], object]] = {
    "read": lambda directory: read(directory / "1.ckptfmt"),
    "open": lambda directory: ckptfmt.open(directory / "1.ckptfmt").close(),
    "load": lambda directory: ckptfmt.load(directory / "1.ckptfmt"),
    "save": lambda directory: ckptfmt.save({"a": {"b": 1}}, directory / "3.ckptfmt"),
    "publish": lambda directory: publish(directory / "3"),
    "clean": clean_leftovers,
    "list": temporary_files,
    "latest": lambda directory: find_latest(directory, verify=True),
    "prune": lambda directory: prune_run(
        directory, "r", RetentionPolicy(keep_last=1), just_written=directory / "2.ckptfmt"
    ),
    "pin": lambda directory: pin(directory / "1.ckptfmt"),
    "unpin": lambda directory: unpin(directory / "1.ckptfmt"),
    "set aside": damage,
    "forget": lambda directory: forget_cached(str(directory / "1.ckptfmt")),
    "is being written": lambda directory: is_being_written(str(directory / "1.ckptfmt")),
    "inspect .npz": lambda directory: inspect_file(directory / "a.npz"),
    "inspect .pth": lambda directory: inspect_file(directory / "a.pth"),
    "inspect .safetensors": lambda directory: inspect_file(directory / "a.safetensors"),
    "inspect a directory": lambda directory: inspect_file(directory / "hf"),
    "convert": lambda directory: convert(directory / "hf", directory / "4.ckptfmt", check=True),
    "extract": lambda directory: extract(directory / "1.ckptfmt", directory / "out"),
    "pack": lambda directory: pack(directory / "members", directory / "5.ckptfmt"),
    "strip": lambda directory: strip_file(directory / "1.ckptfmt", directory / "6.ckptfmt", drop=["opt"]),
    "export": lambda directory: export(directory / "1.ckptfmt", directory / "hf2", component="net", shard_bytes=30),
}


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("name", ACTIONS)
def test_none_is_left_open(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)
    ACTIONS[name](Path())  # everything is imported now
    gc.collect()
    failed = 0
    for when in range(1, 10_000):
        before = descriptors()
        with Failure(when) as failure:
            try:
                ACTIONS[name](Path())
                error = None
            except Exception as caught:
                error = caught  # it holds every frame that it went through, and what they forgot
        assert descriptors() == before, f"after operation {when}: {error!r}"
        failed += error is not None
        if failure.left > 0:
            break
    assert when > 2
