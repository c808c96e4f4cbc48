"""What a file of PyTorch consists of, in whichever of its forms: pickles, and storages that they refer to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ckptfmt._core.pth.data.byte_reader import ByteReader
from ckptfmt._core.pth.data.tensors import Storage
from ckptfmt._core.pth.limits import MAX_SCAN_BYTES
from ckptfmt._core.pth.names.globals import Verdict, judge_call
from ckptfmt._core.pth.nodes import Global, Persistent
from ckptfmt._core.pth.pickle.machine import Budget
from ckptfmt._core.pth.pickle.pickle_vm import PickleRun, run_pickle
from ckptfmt._core.pth.values.builder import Tensor
from ckptfmt._core.storage import Source
from ckptfmt.errors import ForeignFileError

__all__ = ["Container", "Form", "Pickled", "hides_a_pickle", "read_pickles", "scan_bytes"]


class Form(StrEnum):
    """In which form a file is."""

    ZIP = "zip"
    """`torch.save` since 1.6."""
    TORCHSCRIPT = "torchscript"
    """`torch.jit.save`."""
    STREAM = "stream"
    """`torch.save` before 1.6, or with `_use_new_zipfile_serialization=False`."""
    TAR = "tar"
    """`torch.save` before 0.1.10."""
    PICKLE = "pickle"
    """A pickle without tensors of PyTorch, as `pickle.dump` writes it."""


@dataclass(frozen=True)
class Pickled:
    """One pickle of a file.

    Attributes:
        part: Where it is, such as `data.pkl`; empty if the file is nothing else.
        run: What it says.
    """

    part: str
    run: PickleRun

    def without_value(self) -> Pickled:
        """Return the same without its value, which may be large, where only the names in it are of use."""
        return Pickled(self.part, replace(self.run, value=None, outside=()))


@dataclass(frozen=True)
class Container:
    """A file as its form makes it, before anything of it is taken for a value.

    Attributes:
        form: Its form.
        pickles: Every pickle in it, wherever it stands.
        fault: What is wrong with its structure, None if nothing is.
        root: The node that is the content.
        resolve: Returns what the content refers to outside of its pickle.
        producer: What it says of the program that wrote it.
        dropped: Parts that hold none of the content: name and reason.
        read_code: Returns the text of a member, for TorchScript.
        finish: Checks what has not been checked by reading. Raises ForeignFileError.
    """

    form: Form
    pickles: tuple[Pickled, ...]
    fault: ForeignFileError | None = None
    root: object = None
    resolve: Callable[[Persistent], Storage | Tensor] | None = None
    producer: str | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)
    read_code: Callable[[str], str | None] | None = None
    finish: Callable[[], None] = lambda: None


def read_pickles(
    reader: ByteReader, part: str, budget: Budget, *, already: int = 0
) -> tuple[list[Pickled], ForeignFileError | None]:
    """Read pickles one after the other up to the end, or to what is none.

    Args:
        reader: The bytes.
        part: Where they are.
        budget: What the pickles of the file may cost.
        already: How many pickles of the part were read before.

    Returns:
        The pickles, and the fault that ends them: None if they end where the bytes do. No bytes at all are a fault.
    """
    found: list[Pickled] = []
    if not already and not reader.remaining:
        error = ForeignFileError("the pickle is empty; get the file again")
        return found, error if not part else error.inside(part)
    while reader.remaining:
        start = reader.position
        run = run_pickle(reader, budget)
        number = already + len(found)
        found.append(Pickled(part if not number else f"{part} (pickle {number + 1})".strip(), run))
        if run.error is not None:
            if number:
                # What follows a pickle need not be one. It matters only if it would act.
                error = ForeignFileError(f"bytes that do not belong to it follow the pickle, from byte {start} on")
                return found, error if not part else error.inside(part)
            return found, run.error if not part else run.error.inside(part)
    return found, None


def scan_bytes(source: Source, offset: int, nbytes: int, part: str, budget: Budget) -> list[Pickled]:
    """Look at bytes that are not known to be a pickle as if they were: return it if it is one that matters.

    One matters if it is whole, or names what is refused and is far enough along to have called it.
    """
    reader = ByteReader(source=source, start=offset, end=offset + min(nbytes, MAX_SCAN_BYTES))
    return scan_reader(reader, part, budget)


def scan_reader(reader: ByteReader, part: str, budget: Budget) -> list[Pickled]:
    """As `scan_bytes`, of what a reader gives.

    Raises:
        ForeignFileError: The budget is spent, so that it cannot be said.
    """
    run = run_pickle(reader, budget)
    if budget.spent and run.error is not None:
        raise run.error.inside(part)
    return [Pickled(part, run).without_value()] if _matters(run) else []


def hides_a_pickle(source: Source, offset: int, nbytes: int, budget: Budget) -> PickleRun | None:
    """Return the pickle that the bytes of a tensor are from the first to the last, if it calls what is refused.

    Raises:
        ForeignFileError: The budget is spent, so that it cannot be said.
    """
    if nbytes < 4 or nbytes > MAX_SCAN_BYTES or source.read(offset, 1) != b"\x80":
        return None
    run = run_pickle(ByteReader(source=source, start=offset, end=offset + nbytes), budget)
    if budget.spent and run.error is not None:
        raise run.error
    return run if run.error is None and run.end == nbytes and _refused(run.called) else None


def _matters(run: PickleRun) -> bool:
    if run.error is None:
        return bool(run.globals or run.violations)
    return _refused(run.called) or (run.protocol > 0 and bool(run.globals))


def _refused(called: Iterable[Global]) -> bool:
    named = [name for name in called if all(part.isidentifier() for part in str(name).split("."))]
    return any(judge_call(name).verdict is Verdict.REFUSED for name in named)
