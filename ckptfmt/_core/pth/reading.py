"""Files of PyTorch as the state that is in them: opened, judged, and only then built."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NoReturn

from ckptfmt._core.format.magic import HEAD_BYTES, FileKind, kind_of
from ckptfmt._core.pth.audit import Audit, audit, check
from ckptfmt._core.pth.data.storages import FORM
from ckptfmt._core.pth.forms.container import Container, Form
from ckptfmt._core.pth.forms.stream_form import read_stream
from ckptfmt._core.pth.forms.tar_form import read_tar
from ckptfmt._core.pth.forms.torchscript import recover_scripted
from ckptfmt._core.pth.forms.zip_form import read_zip
from ckptfmt._core.pth.nodes import Record
from ckptfmt._core.pth.values.builder import Builder
from ckptfmt._core.pth.values.inert_constructors import INERT_CONSTRUCTORS
from ckptfmt._core.pth.values.modules import recover
from ckptfmt._core.pth.values.notes import Notes
from ckptfmt._core.pth.values.numpy_constructors import NUMPY_CONSTRUCTORS
from ckptfmt._core.pth.values.python_constructors import PYTHON_CONSTRUCTORS
from ckptfmt._core.pth.values.torch_constructors import TORCH_CONSTRUCTORS
from ckptfmt._core.storage import Source
from ckptfmt.errors import ForeignFileError, UnsupportedFileError

__all__ = ["CONSTRUCTORS", "PthState", "read_state", "refuse_code", "scan"]

CONSTRUCTORS = {**PYTHON_CONSTRUCTORS, **INERT_CONSTRUCTORS, **NUMPY_CONSTRUCTORS, **TORCH_CONSTRUCTORS}
"""The constructor of each name that may be called."""

# Every other kind of file may begin as a pickle does, or a stream of them.
_OTHERS = frozenset(FileKind) - {
    *(FileKind.ZIP, FileKind.TAR, FileKind.PICKLE, FileKind.CKPTFMT, FileKind.SAFETENSORS, FileKind.UNKNOWN)
}


@dataclass(frozen=True)
class PthState:
    """What a file of PyTorch holds.

    Attributes:
        form: In which form it is.
        state: Its content: plain values, `PthTensor` and `Typed`.
        producer: What it says of the program that wrote it.
        audit: The audit of its pickles.
        notes: What became of the parts that are no plain values.
        whole_module: Whether its content is a whole module or optimizer whose state was recovered.
        finish: Checks what has not been checked by reading the tensors. Raises ForeignFileError.
    """

    form: Form
    state: object
    producer: str | None
    audit: Audit
    notes: Notes
    whole_module: bool
    finish: Callable[[], None]


def scan(source: Source, *, inert: Collection[str] = ()) -> tuple[Container, Audit]:
    """Return what a file consists of, and what it would have run; this refuses nothing.

    Args:
        source: The file.
        inert: See `read_state`.

    Raises:
        ForeignFileError: It is known to be something else.
        StorageError: It cannot be read.
    """
    kind = kind_of(source.read(0, min(source.size, HEAD_BYTES)))
    if kind in _OTHERS:
        raise ForeignFileError(f"it is {kind.value}").at(source.path, FORM)
    reader = {FileKind.ZIP: read_zip, FileKind.TAR: read_tar}.get(kind, read_stream)
    container = reader(source)
    return container, audit(container.pickles, inert)


def refuse_code(source: Source, *, inert: Collection[str] = ()) -> str | None:
    """Refuse a file that would have run code, whatever else it is.

    Args:
        source: The file.
        inert: See `read_state`.

    Returns:
        What it is known to be, in words that go on after the name of the file; None if it is not known.

    Raises:
        UnsafeInputError: It asks for code to be run.
        StorageError: It cannot be read.
    """
    try:
        _, found = scan(source, inert=inert)
    except ForeignFileError as error:
        return error.detail
    check(found, source.path)
    return None


def read_state(source: Source, *, strict: bool = False, inert: Collection[str] = ()) -> PthState:
    """Return the state in a file.

    Nothing in it is run, imported or looked up. Tensors are read when they are asked for.

    Args:
        source: The file. It has to stay open for the tensors.
        strict: Refuse objects of classes of other packages, instead of keeping them as inert data.
        inert: Names, dotted as an error shows them, that are no reason to refuse the file: they and the objects made
            of them are kept as inert data. Nothing is run for them either.

    Raises:
        UnsafeInputError: It asks for code to be run.
        UnsupportedFileError: It is beyond a limit, or holds something that cannot be expressed.
        ForeignFileError: It is broken, cut, or something else.
        StorageError: It cannot be read.
    """
    container, found = scan(source, inert=inert)
    check(found, source.path, strict=strict)
    try:
        if container.fault is not None:
            raise container.fault
        return _build(container, found, source)
    except ForeignFileError as error:
        raise error.at(source.path, FORM) from error


def _build(container: Container, found: Audit, source: Source) -> PthState:
    notes = Notes()
    for part, why in container.dropped.items():
        notes.drop(part, why)
    scripted = container.read_code if container.form is Form.TORCHSCRIPT else None
    hooks = [recover] if scripted is None else [recover_scripted(scripted), recover]

    whole = False

    def recovered(builder: Builder, record: Record) -> object:
        nonlocal whole
        for hook in hooks:
            made = hook(builder, record)
            if made is not NotImplemented:
                whole = whole or record is container.root
                return made
        return NotImplemented

    resolve = container.resolve or _nothing_outside
    builder = Builder(CONSTRUCTORS, resolve, notes, source.size, recovered)
    try:
        state = builder.value(container.root)
    except ForeignFileError as error:
        # The pickles are whole: that their content cannot be expressed says nothing about the bytes of the file.
        raise UnsupportedFileError(error.detail) from error
    return PthState(container.form, state, container.producer, found, notes, whole, container.finish)


def _nothing_outside(_: object) -> NoReturn:
    raise ForeignFileError("the pickle refers to something outside that is not there")
