"""`load`: the state in a checkpoint of any format, in place of `torch.load`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from ckptfmt._core.container.per_rank import PerRank, of_rank
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.format.index import ROOT
from ckptfmt._core.interop.base import TensorFile
from ckptfmt._core.interop.detect import Reader, detect
from ckptfmt._core.interop.files import open_source_tensors
from ckptfmt._core.interop.huggingface.directory import CheckpointDirectory
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.storage import Source, open_source
from ckptfmt._core.storage.open_files import OpenedSource, is_open_file
from ckptfmt._core.storage.resolve import is_directory
from ckptfmt._core.torch.live_objects.components import name_list
from ckptfmt._core.torch.restore.file_states import FileStates
from ckptfmt._core.torch.save_load import read_state
from ckptfmt._core.torch.state.inert import inert_objects
from ckptfmt._core.torch.tensors.adapter import TORCH_ADAPTERS
from ckptfmt._core.torch.tensors.map_location import MapLocation, relocate
from ckptfmt.errors import UnsupportedFileError, UsageError

__all__ = ["load"]


def load(
    path: str | os.PathLike[str] | BinaryIO,
    map_location: MapLocation = None,
    *,
    weights_only: bool | None = True,
    mmap: bool | None = None,
    rank: int | None = None,
    inert: Collection[str] = (),
) -> Any:
    """Return the saved object; a drop-in for `torch.load`. No code from the file is executed, whatever its format.

    Every byte is verified as far as the format allows. Mappings become dicts, parameters become tensors, and a module's
    state dict an OrderedDict with the versions of its modules. Of a whole module that was pickled, its state dict is
    returned. A Hugging Face directory is a dict: `net` with the weights of all shards, and what else it holds, such as
    `config`, `optimizer` and `trainer_state`.

    Args:
        path: A `.ckptfmt` file, a file of `torch.save` in any of its forms, a `.safetensors` or `.npz` file, or a
            Hugging Face directory; the content decides, not the name. Or a seekable file opened with `"rb"`, such as
            `io.BytesIO`, which is read from its position to its end.
        map_location: Where tensors go, as in `torch.load`. Devices in the file do not count: every tensor comes from
            the CPU, and None leaves it there. A device or its name moves it; a mapping is looked up with `"cpu"`; a
            callable takes each tensor's storage and `"cpu"`, and returns a storage or None.
        weights_only: For compatibility. True and None do the same; False is refused.
        mmap: True: large tensors of `.safetensors` and uncompressed `.pth` files stay in the file, in a private memory
            map; the file must then stay as it is. Needs a path. Native checkpoints are read in any case.
        rank: Rank of which to return values that differ between the ranks of a data-parallel job. None: a
            `ckptfmt.PerRank` of all their values.
        inert: Names in pickles, spelled as in the error, whose objects are returned as `ckptfmt.Typed`: plain data.
            Nothing is executed.

    Raises:
        UsageError: `weights_only` is False, or `path` is neither a path nor a seekable file opened for reading bytes.
        UnsafeInputError: The file asks for code to be run.
        UnsupportedFileError: The file holds an object that only code could rebuild, and `inert` does not name it.
        MismatchError: Some values differ between ranks, and that rank has none.
        FormatError: The file is not valid; IntegrityError if a byte has changed. ForeignFileError for other formats.
        StorageError: The file cannot be read.
    """
    if weights_only is not None and not weights_only:
        raise UsageError(
            "weights_only=False runs code from the file, which ckptfmt never does; leave it out; to get objects as "
            "plain data, name their classes with inert="
        )
    names = name_list("inert", inert)
    if is_open_file(path):
        if mmap:
            raise UsageError("mmap=True needs a path; an open file cannot be mapped")
        return relocate(_load_source(OpenedSource(path), mmap, rank, names), map_location)
    if is_directory(path):
        with open_tensors(path, inert=names) as file:
            return relocate(_foreign_state(file, mmap, rank, names), map_location)
    return relocate(_load_source(open_source(path), mmap, rank, names), map_location)


def _load_source(source: Source, mmap: bool | None, rank: int | None, inert: Collection[str]) -> Any:
    with _closed_on_error(source):
        native = detect(source) is Reader.NATIVE
        opened = Checkpoint(source, TORCH_ADAPTERS) if native else open_source_tensors(source, inert=inert)
    if isinstance(opened, Checkpoint):
        with opened:
            return read_state(opened, rank)
    with opened:
        return _foreign_state(opened, mmap, rank, inert)


@contextmanager
def _closed_on_error(source: Source) -> Iterator[None]:
    try:
        yield
    except BaseException:
        source.close()
        raise


def _foreign_state(file: TensorFile, mmap: bool | None, rank: int | None, inert: Collection[str]) -> Any:
    state = FileStates(file, mmap=mmap is True, whole_inert=True).whole()
    file.finish()
    lines = inert_objects(ROOT, state, besides=inert)
    if lines:
        advice = "to get them as ckptfmt.Typed, name their classes with inert="
        raise UnsupportedFileError(f"{'; '.join(lines)}; {advice}", file.path, file.form)
    if rank is None or not isinstance(file, CheckpointDirectory):
        return state
    pick = of_rank(rank)
    return {name: pick(name, part.values) if isinstance(part, PerRank) else part for name, part in state.items()}
