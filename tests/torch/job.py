"""Data-parallel jobs of real processes for the tests: gloo, one function per rank."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

RANKS = 2
# A rank that waits in vain gets an error after this long: a test that finds it does not pass, and does not hang.
EXCHANGE_SECONDS = 20


class Ended(NamedTuple):
    """How a rank ended.

    Attributes:
        code: Exit code of the process.
        value: What its function returned.
        error: Name of the class of what it raised; empty if it raised nothing.
        said: Text of what it raised.
    """

    code: int | None
    value: Any
    error: str
    said: str


def run_job(
    context: ForkServerContext,
    directory: Path,
    function: Callable[..., object],
    *arguments: Any,
    size: int = RANKS,
    exchange_seconds: float = EXCHANGE_SECONDS,
) -> list[Ended]:
    """Call `function(rank, *arguments)` in each process of a job, and return how each of them ended."""
    directory.mkdir(parents=True, exist_ok=True)
    meeting = directory / f"meeting-{len(list(directory.glob('meeting-*')))}"
    pipes = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        context.Process(
            target=_be_rank, args=(rank, size, meeting, exchange_seconds, pipes[rank][1], function, arguments)
        )
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    told = []
    for here, there in pipes:  # all of them before any process is waited for: they wait for each other
        there.close()
        try:
            told.append(here.recv())
        except EOFError:
            told.append((None, "", ""))
    for process in processes:
        process.join()
    return [Ended(process.exitcode, *those) for process, those in zip(processes, told, strict=True)]


def _be_rank(
    rank: int,
    size: int,
    meeting: Path,
    exchange_seconds: float,
    result: Connection,
    function: Callable[..., object],
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=exchange_seconds),
    )
    try:
        value = function(rank, *arguments)
    except BaseException as error:
        traceback.print_exc()
        result.send((None, type(error).__name__, str(error)))
        raise
    result.send((value, "", ""))
    dist.barrier()
    dist.destroy_process_group()
