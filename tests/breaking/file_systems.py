"""File systems that fill up or turn read-only under a run: `python -m tests.breaking.file_systems`.

They are real ones, in memory or in a file, so this needs the right to mount.
"""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ckptfmt.torch import Checkpointer

STEPS = 6
_FAILS, _RECOVERS = 3, 5
_TRIGGER = "/sys/fs/ext4/{}/trigger_fs_error"
Change = Callable[[], object]


class Run(NamedTuple):
    """What came of one process of a run.

    Attributes:
        resumed: The step that it resumed from.
        failed: Steps after which the last save had failed.
        weight: What was trained.
    """

    resumed: int
    failed: list[int]
    weight: float


def may_mount() -> bool:
    """Return whether file systems can be mounted here."""
    try:
        with in_memory("size=64k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def in_memory(options: str) -> Iterator[Path]:
    """Yield a new file system in memory."""
    with tempfile.TemporaryDirectory(prefix="ckptfmt-mount-") as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", name], check=True, capture_output=True)
        try:
            yield Path(name)
        finally:
            gc.collect()
            subprocess.run(["umount", name], check=True)


@contextmanager
def in_a_file() -> Iterator[tuple[Path, Change, Change]]:
    """Yield a new ext4 file system, with what makes it turn read-only for an error, and what repairs it."""
    with tempfile.TemporaryDirectory(prefix="ckptfmt-mount-") as name:
        image, place = Path(name, "image"), Path(name, "mounted")
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
        mount = ["mount", "-o", "loop,errors=remount-ro", str(image), str(place)]

        def fail() -> None:
            mounted = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
            (device,) = [Path(words[0]).name for words in mounted if words[1] == str(place)]
            Path(_TRIGGER.format(device)).write_text("1")

        def repair() -> None:
            gc.collect()
            subprocess.run(["umount", place], check=True)
            subprocess.run(["fsck.ext4", "-fy", image], check=False, capture_output=True)
            subprocess.run(mount, check=True)

        subprocess.run(mount, check=True, capture_output=True)
        try:
            yield place, fail, repair
        finally:
            gc.collect()
            subprocess.run(["umount", place], check=True)


def train(directory: Path, changes: Mapping[int, Change], **options: Any) -> Run:
    """Train to the end; before some steps, change something."""
    torch.manual_seed(0)
    net = torch.nn.Linear(256, 1024, bias=False)  # 1 MiB
    checkpointer = Checkpointer(directory, {"net": net}, save_interval_steps=1, signals=(), **options)
    resumed, failed = checkpointer.resume(quiet=True).step, []
    for _ in checkpointer.epochs(1):
        for batch in checkpointer.batches(range(STEPS)):
            with torch.no_grad():
                net.weight += batch
            changes.get(batch, int)()
            checkpointer.step()
            checkpointer.wait()
            if checkpointer.last_error is not None:
                failed.append(checkpointer.global_step)
    return Run(resumed, failed, net.weight.detach().sum().item())


def fill(directory: Path) -> None:
    """Take all space."""
    try:
        with Path(directory, "of somebody").open("wb", buffering=0) as file:
            while file.write(bytes(1 << 12)):
                pass
    except OSError:
        pass


def cases() -> Iterator[tuple[str, list[str]]]:
    """Yield what was done, and what promises it broke."""
    with tempfile.TemporaryDirectory() as name:
        right = train(Path(name), {}).weight
    for background, keep_last in product((False, True), (None, 1)):
        options: dict[str, Any] = {"background": background, "keep_last": keep_last}
        with in_memory("size=2600k") as place:
            yield "too small", _judge(place, train(place, {}, **options), right, keep_last is None)
        with in_memory("size=64m,nr_inodes=7") as place:
            yield "few inodes", _judge(place, train(place, {}, **options), right, keep_last is None)
        with in_memory("size=16m") as place:
            there = place / "of somebody"
            changes = {_FAILS: lambda place=place: fill(place), _RECOVERS: there.unlink}
            yield "full for a while", _judge(place, train(place, changes, **options), right, True)
        if shutil.which("mkfs.ext4") and Path("/sys/fs/ext4").exists():
            with in_a_file() as (place, fail, repair):
                run = place / "run"
                found = train(run, {_FAILS: fail}, **options)
                broken = [] if found.failed == list(range(_FAILS + 1, STEPS + 1)) else [f"failed at {found.failed}"]
                repair()
                again = train(run, {}, **options)
                broken += [] if again.resumed >= _FAILS - 1 else [f"resumed at {again.resumed}"]
                yield "read-only for an error", broken + _judge(run, again, right, False)


def _judge(directory: Path, run: Run, right: float, fails: bool) -> list[str]:
    """Return the promises that a run to the end broke."""
    broken = [] if run.weight == right else [f"trained {run.weight}"]
    if bool(run.failed) != fails:
        broken.append(f"saves failed at {run.failed}")
    known = (".ckptfmt", ".lease", ".lock")
    names = (path.name for path in directory.iterdir())
    return broken + [f"left {name}" for name in names if not name.endswith(known)]


def main() -> None:
    count, broken = 0, []
    for what, found in cases() if may_mount() else ():
        count += 1
        broken += [f"{what}: {line}" for line in found]
    print(json.dumps({"cases": count, "broken": broken}))


if __name__ == "__main__":
    main()
