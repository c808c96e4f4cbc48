"""Files of PyTorch as checkpoints of a directory: what they say of their training, and whether all of them can be read.

Nothing in them is run, and no tensor is read to look into one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from ckptfmt._core.container.pytorch_epochs import epochs_finished
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.interop.detect import Reader, detect
from ckptfmt._core.interop.training_facts import facts_of
from ckptfmt._core.pth.data.storages import FORM
from ckptfmt._core.pth.data.tensors import PthTensor, Storage
from ckptfmt._core.pth.nodes import DictNode, Record
from ckptfmt._core.pth.reading import PthState, read_state, scan
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.scan import look_at_native, verified
from ckptfmt._core.storage.base import Source
from ckptfmt._core.storage.resolve import open_source
from ckptfmt.errors import CkptfmtError, ForeignFileError, StorageError

__all__ = ["look_at_pth", "metadata_of", "verified_pth"]


def look_at_pth(path: str, *, inert: Collection[str] = ()) -> CheckpointReference:
    """Return what a file named as PyTorch's tells as a checkpoint.

    One that is refused, or holds what is not supported, may be sound. Its metadata then have the epochs that it says
    are finished: 0 if it says nothing of the kind, none if that cannot be seen.

    Args:
        path: The file. One of our own format is known by its content.
        inert: See `pth.reading.read_state`.

    Raises:
        StorageError: It cannot be read.
    """
    with open_source(path) as source:
        if detect(source) is not Reader.NATIVE:
            return _look(source, inert)
    return look_at_native(path)


def metadata_of(legacy: PthState) -> Metadata:
    """Return the facts that a file of PyTorch tells of its training."""
    facts = facts_of(legacy.state)
    producer = facts.producer or legacy.producer
    return Metadata(step=facts.step, epoch=facts.epoch, metrics=facts.metrics, producer=producer)


def verified_pth(
    file: CheckpointReference, progress: Callable[[int], None] | None = None, *, inert: Collection[str] = ()
) -> CheckpointReference:
    """Return what is known of a usable file after all its tensors were read: `verified`, or with an error.

    Args:
        file: What `look_at_pth` returned.
        progress: Called with the number of bytes that were read.
        inert: See `pth.reading.read_state`.
    """
    if file.identity is not None:
        return verified(file, progress)
    try:
        with open_source(file.path, file.version) as source:
            legacy = read_state(source, inert=inert)
            _read_storages(legacy, progress)
            legacy.finish()
    except ForeignFileError as error:
        return replace(file, error=error.at(file.path, FORM))
    except CkptfmtError as error:
        return replace(file, error=error)
    return replace(file, verified=True)


def _look(source: Source, inert: Collection[str]) -> CheckpointReference:
    path = source.path
    try:
        return CheckpointReference(path, metadata_of(read_state(source, inert=inert)))
    except StorageError:
        raise
    except CkptfmtError as error:
        return CheckpointReference(path, Metadata(epoch=_noted_epochs(source)), error=error)


def _noted_epochs(source: Source) -> int | None:
    """Return how many epochs a file that is not read says are finished: a look at its nodes, of which none is built.

    0: it is no checkpoint of a loop that counts epochs; None: that cannot be seen.
    """
    try:
        container, _ = scan(source)
    except ForeignFileError:
        return None
    root = container.root
    if container.fault is not None:
        return None
    entries = root.entries if isinstance(root, DictNode | Record) else []
    nodes = {key: {} if isinstance(it, DictNode | Record) else it for key, it in entries if isinstance(key, str)}
    return epochs_finished(nodes) or 0


def _read_storages(legacy: PthState, progress: Callable[[int], None] | None) -> None:
    """Read each storage once, in order."""
    done = set()
    for storage in _storages(legacy.state):
        if id(storage.data) in done:
            continue
        done.add(id(storage.data))
        for start in range(0, storage.data.nbytes, CHUNK_BYTES):
            nbytes = len(storage.data.read(start, min(CHUNK_BYTES, storage.data.nbytes - start)))
            if progress is not None:
                progress(nbytes)


def _storages(tree: object) -> Iterator[Storage]:
    """Yield the storages of a state, some of them again and again."""
    seen: set[int] = set()
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, PthTensor):
            yield node.view.storage
        elif isinstance(node, Typed):
            pending.append(node.value)
        elif isinstance(node, dict | list | tuple) and id(node) not in seen:
            seen.add(id(node))  # nothing of the state is let go meanwhile, so no id is used twice
            pending += node.values() if isinstance(node, dict) else node
