"""Kill a training run again and again, and show that it ends as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ckptfmt

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "demo-output"
TRAIN = ROOT / "examples" / "train.py"
CKPTFMT = Path(sys.executable).with_name("ckptfmt")
POLL_SECONDS = 0.0003
TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Kill:
    """When to kill: at the first step from `step` on, or in the first save from there on."""

    step: int
    in_save: bool


KILLS = [Kill(5, True), Kill(17, False), Kill(35, True), Kill(64, False), Kill(85, True), Kill(127, False)]


def main(output: Path = OUTPUT, kills: Sequence[Kill] = KILLS, epochs: int = 6) -> int:
    """Run the demo; return its exit code."""
    shutil.rmtree(output, ignore_errors=True)
    calm, stormy = output / "uninterrupted", output / "killed"
    calm_run = start(calm, epochs)
    print(f"$ {command_line(calm, epochs)}    (in the background, left alone)\n")
    landed = [run_and_kill(stormy, epochs, kill) for kill in kills]
    for run, train_url in ((start(stormy, epochs), stormy), (calm_run, calm)):
        print(f"$ {command_line(train_url, epochs)}")
        finish(run)
        if run.returncode != 0:
            return 1
        print(f"  trained to the end: {steps_done(train_url)} steps")
    print(f"\n{len(landed)} kills with SIGKILL, {sum(landed)} of them in the middle of a save.")
    return show_comparison(calm, stormy) or show_checkpoints(stormy)


def show_comparison(calm: Path, stormy: Path) -> int:
    """Print how the two runs ended; return 1 if they differ."""
    differences = compare(calm, stormy)
    if differences:
        print("The killed run did NOT end as the uninterrupted one. Different:", *differences, sep="\n  ")
        return 1
    print("Compared with the uninterrupted run, bit for bit:")
    print("  identical  weights, optimizer, scheduler, random generators, place in the data")
    print(f"  identical  the loss of each of the {steps_done(stormy)} steps")
    return 0


def show_checkpoints(train_url: Path) -> int:
    """Let the command-line tool tell of the checkpoints; return 1 if it finds a fault."""
    last = last_checkpoint(train_url)
    return int(
        any([ckptfmt_command("ls", train_url), ckptfmt_command("inspect", last), ckptfmt_command("verify", train_url)])
    )


def command_line(train_url: Path, epochs: int) -> str:
    """Return the training command as one would type it."""
    return f"python examples/train.py --train_url {shown(train_url)} --epochs {epochs}"


def shown(path: Path) -> str:
    """Return a path relative to the repository."""
    return os.path.relpath(path, ROOT)


def start(train_url: Path, epochs: int) -> subprocess.Popen[str]:
    """Start the training: the same command each time."""
    train_url.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(TRAIN), "--train_url", shown(train_url), "--epochs", str(epochs)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def run_and_kill(train_url: Path, epochs: int, kill: Kill) -> bool:
    """Start the training, kill it, and say whether that was in the middle of a save."""
    print(f"$ {command_line(train_url, epochs)}", flush=True)
    leftovers = temporary_files(train_url)
    run = start(train_url, epochs)
    hit = False
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while run.poll() is None and time.monotonic() < deadline:
        if steps_done(train_url) >= kill.step and kill.in_save == bool(temporary_files(train_url) - leftovers):
            # A save lasts some milliseconds: stop the clock, and look again.
            run.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, run.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            hit = bool(temporary_files(train_url) - leftovers)
            if hit == kill.in_save:
                break
            run.send_signal(signal.SIGCONT)
        time.sleep(POLL_SECONDS)
    run.kill()
    finish(run)
    print(f"  killed at step {steps_done(train_url)}{', in the middle of a save' if hit else ''}\n")
    return hit


def finish(run: subprocess.Popen[str]) -> None:
    """Wait for the end of a run and print what it reported."""
    _, report = run.communicate(timeout=TIMEOUT_SECONDS)
    print(report, end="", flush=True)


def temporary_files(train_url: Path) -> set[str]:
    """Return the names of checkpoints that are being written, or were when their writer was killed."""
    return {path.name for path in train_url.glob(".*.tmp")}


def steps_done(train_url: Path) -> int:
    """Return the number of steps in the loss log."""
    log = train_url / "loss.log"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def last_checkpoint(train_url: Path) -> Path:
    """Return the checkpoint with the most steps, as it says itself."""

    def step(path: Path) -> int:
        with ckptfmt.open(path) as checkpoint:
            return checkpoint.metadata.step or 0

    return max(train_url.glob("*.ckptfmt"), key=step)


def compare(calm: Path, stormy: Path) -> list[str]:
    """Return every difference between the ends of two runs."""
    with ckptfmt.open(last_checkpoint(calm)) as one, ckptfmt.open(last_checkpoint(stormy)) as other:
        for checkpoint in (one, other):
            checkpoint.load()  # verifies every byte, so that identities speak for the content
        identities = [{name: part.identity for name, part in checkpoint.items()} for checkpoint in (one, other)]
    names = [*identities[0], *(name for name in identities[1] if name not in identities[0])]
    differences = [name for name in names if identities[0].get(name) != identities[1].get(name)]
    if (calm / "loss.log").read_bytes() != (stormy / "loss.log").read_bytes():
        differences.append("loss.log")
    return differences


def ckptfmt_command(verb: str, path: Path) -> int:
    """Run the command-line tool and return its exit code."""
    print(f"\n$ ckptfmt {verb} {shown(path)}", flush=True)
    return subprocess.run([CKPTFMT, verb, shown(path)], check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
