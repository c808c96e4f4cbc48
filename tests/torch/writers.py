"""Processes that train one run and do as they are told, for the tests of several writers."""

from __future__ import annotations

import contextlib
import os
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from ckptfmt.torch import Checkpointer


def train(train_url: Path, said: Path, told: Connection, environment: dict[str, str], options: dict[str, Any]) -> None:
    """Resume, tell where from, then take a step with a save each time that it is asked for, and tell the path."""
    os.environ.update(environment)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    torch.set_num_threads(1)
    ckpt = Checkpointer(
        train_url, {"net": torch.nn.Linear(1, 1)}, save_interval_steps=1, **options.get("checkpointer", {})
    )
    report = ckpt.resume(**options.get("resume", {}))
    told.send((report.run_id, report.step))
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(1000)):
            if told.recv() != "step":
                return
            ckpt.step()
            saved = ckpt.wait()
            told.send(saved.path if saved is not None and ckpt.last_error is None else str(ckpt.last_error))


class Writer:
    """Such a process.

    Args:
        context: How to start it.
        train_url: Directory of the run.
        said: File of what it says on stderr.
        environment: What it has in its environment besides.
        options: Arguments of the Checkpointer and its `resume`, under `checkpointer` and `resume`.
    """

    def __init__(
        self,
        context: ForkServerContext,
        train_url: Path,
        said: Path,
        environment: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._said = said
        self._here, there = context.Pipe()
        arguments = (train_url, said, there, environment or {}, options)
        self.process: BaseProcess = context.Process(target=train, args=arguments)
        self.process.start()
        there.close()

    @property
    def said(self) -> str:
        """What it said on stderr."""
        return self._said.read_text() if self._said.exists() else ""

    def resumed(self) -> tuple[str, int] | None:
        """Return its run and the step that it resumed from; None if it did not."""
        answer = self._answer()
        return answer if isinstance(answer, tuple) else None

    def step(self) -> str | None:
        """Let it take a step; return the path of what it saved or what went wrong, None if it ended."""
        self._here.send("step")
        answer = self._answer()
        return answer if isinstance(answer, str) else None

    def end(self) -> int | None:
        """Let it end, or kill it if it does not; return how it ended."""
        with contextlib.suppress(OSError):  # it has ended
            self._here.send("end")
        self.process.join(60)
        self.process.kill()
        self.process.join()
        return self.process.exitcode

    def _answer(self) -> object:
        try:
            return self._here.recv()
        except (EOFError, ConnectionError):
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.join()
        self._here.close()
