"""Which mutants the vectors notice: each mutant reads the vectors that run its line until one gets a wrong answer."""

from __future__ import annotations

import gc
import multiprocessing
import re
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import FrameType, ModuleType
from typing import Any

import blake3

from tests.mutants.program import Mutant, Program
from tests.spec.answers import Decoder, is_right
from tests.spec.vectors import INVALID, LARGE, ROOT, VALID, Vector

READER = ROOT / "spec" / "minimal_reader.py"
# Vectors that take seconds are put only to mutants that have to do with limits.
SLOW = ("limit-", "13.1-keys", "13.1-4097-members", "13.1-header", "13.1-msgpack-257-mib")
LIMITS = re.compile(r"MAX_|limit-|\bself\.(values|keys)\b|_enter\(|^Decoder\._enter")
SECONDS = 2.0  # of the processor, beyond what the reader itself takes, after which a mutant hangs
MEMORY = 6 << 30
HASHING = {"_join", "_compress", "_nodes", "_hash_pieces", "blake3", "IV", "PERMUTATION", "MIXED", "MIXED_PLACES"}
HASHING |= {"LANES", "(PIECE_START, PIECE_END, PARENT, ROOT)"}


class _TooLong(BaseException):
    """Raised by the alarm; no code of the reader catches it."""


@dataclass(frozen=True, eq=False)
class Case:
    """A vector as it is put to mutants.

    Attributes:
        vector: The vector.
        data: Its file.
        seconds: What the reader itself takes for it.
        lines: The lines of the reader that it runs; None if that is not known.
        slow: Whether it is put only to mutants that have to do with limits.
    """

    vector: Vector
    data: bytes
    seconds: float
    lines: frozenset[int] | None
    slow: bool


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: the vector that noticed it, or None."""

    mutant: str
    noticed_by: str | None


def cases(program: Program, *, slow: bool = True) -> list[Case]:
    """Return the vectors, those that take least time first.

    Args:
        program: The reader.
        slow: Whether to take all of them, and to trace which lines they run: that is worth it for many mutants.

    Raises:
        AssertionError: The reader as it is answers one of them wrongly.
    """
    reader = _prepared(program.module(), fast=True)
    at_import = _lines(program.module)  # functions that make the checks of the tables
    found = []
    for vector in [*VALID, *INVALID, *(LARGE if slow else [])]:
        takes_long = vector.name.startswith(SLOW)
        if takes_long and not slow:
            continue
        data = vector.data()
        start = time.process_time()
        assert is_right(vector, data, reader), vector.name
        seconds = time.process_time() - start
        lines = None
        if slow and not takes_long:
            lines = at_import | _lines(partial(is_right, vector, data, reader))
        found.append(Case(vector, data, seconds, lines, takes_long))
    return sorted(found, key=lambda case: case.seconds)


def _lines(work: Callable[[], object]) -> frozenset[int]:
    """Return the lines of the reader that something runs."""
    lines: set[int] = set()

    def local(frame: FrameType, event: str, _: Any) -> Any:
        lines.add(frame.f_lineno)
        return local

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        return local(frame, event, _) if frame.f_code.co_filename == str(READER) else None

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return frozenset(lines)


def _prepared(module: ModuleType, *, fast: bool) -> ModuleType:
    """Give a reader a Zstandard decoder, and a fast hash where its own is not what is tested."""
    module.__dict__["zstd"] = Decoder
    if fast:
        module.__dict__["blake3"] = lambda data: blake3.blake3(data).digest()
    return module


def is_about_limits(mutant: Mutant) -> bool:
    """Whether a mutant is one for the vectors that take long."""
    return LIMITS.search(mutant.name) is not None


def judge(program: Program, mutant: Mutant, vectors: Iterable[Case]) -> Verdict:
    """Return which vector notices a mutant first."""
    hashes = mutant.function in HASHING  # then its own hash is used, which the lines of the vectors do not show
    try:
        module = _prepared(program.module(mutant), fast=not hashes)
    except Exception:  # it cannot even be imported
        return Verdict(mutant.name, "import")
    about_limits = is_about_limits(mutant)
    for case in vectors:
        if case.slow and not about_limits:
            continue
        known = mutant.lines is not None and case.lines is not None and not hashes
        if known and not set(mutant.lines or ()) & (case.lines or set()):
            continue
        if not _survives(module, case):
            return Verdict(mutant.name, case.vector.name)
    return Verdict(mutant.name, None)


def _survives(module: ModuleType, case: Case) -> bool:
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS + 10 * case.seconds)
        try:
            return is_right(case.vector, case.data, module)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except (Exception, _TooLong):  # anything but an answer
        return False


def _alarm(*_: object) -> None:
    raise _TooLong


@contextmanager
def alarm() -> Iterator[None]:
    """Let `judge` stop mutants that hang, and the compiler be silent about nonsense."""
    old = signal.signal(signal.SIGPROF, _alarm)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.signal(signal.SIGPROF, old)


class Hunt:
    """All mutants of the reader, put to all vectors."""

    def __init__(self) -> None:
        self.program = Program(READER)
        self.cases = cases(self.program)
        self._numbers = {id(mutant): number for number, mutant in enumerate(self.program.mutants)}

    def verdicts(self, mutants: Sequence[Mutant], processes: int) -> Iterator[Verdict]:
        """Yield what became of each mutant, in order."""
        gc.collect()
        gc.freeze()
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(processes, context, _start, (self,)) as pool:  # it raises if a process dies
            yield from pool.map(_judge, [self._numbers[id(mutant)] for mutant in mutants], chunksize=8)


_hunt: Hunt
_likely: dict[str, list[Case]] = {}  # the vectors that noticed mutants of a function, those that did so lately first


def _start(hunt: Hunt) -> None:
    global _hunt  # what a process of the pool works on
    _hunt = hunt
    signal.signal(signal.SIGPROF, _alarm)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _judge(number: int) -> Verdict:
    mutant = _hunt.program.mutants[number]
    likely = _likely.setdefault(mutant.function, [])
    verdict = judge(_hunt.program, mutant, chain(likely, (case for case in _hunt.cases if case not in likely)))
    noticed = [case for case in _hunt.cases if case.vector.name == verdict.noticed_by]
    _likely[mutant.function] = [*noticed, *(case for case in likely if case not in noticed)][:20]
    return verdict
