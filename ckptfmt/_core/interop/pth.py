"""Files of PyTorch as files of tensors: of `torch.save` in each of its forms, TorchScript archives, plain pickles."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property, partial

from ckptfmt._core.container.adapter_set import EncoderSet
from ckptfmt._core.container.adapters import TensorLeaf
from ckptfmt._core.container.module_versions import text_metadata
from ckptfmt._core.container.state import FlatComponent, flatten_state
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.index import MSGPACK, is_component_name
from ckptfmt._core.format.layout import MAX_MEMBERS
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.format.tensors import tensor_nbytes
from ckptfmt._core.format.trees import NUMPY_ARRAY
from ckptfmt._core.format.unpacking import decode
from ckptfmt._core.interop.base import Chunk, Part, TensorFile, TensorInfo
from ckptfmt._core.interop.located import located
from ckptfmt._core.interop.pth_checkpoints import metadata_of
from ckptfmt._core.interop.training_facts import facts_of
from ckptfmt._core.pth.audit import Survey
from ckptfmt._core.pth.reading import LegacyState, read_state
from ckptfmt._core.storage import LocalSource
from ckptfmt.errors import StateError

__all__ = ["LeafEncoder", "LeafPart", "PthFile", "open_file", "parts_of"]

_FORM = "PyTorch"
_WRAPPED = "net"


class LeafEncoder:
    """Takes trees whose tensors are leaves already."""

    @property
    def marker(self) -> str:
        """See `container.adapters.Encoder.marker`."""
        return NUMPY_ARRAY

    def encode(self, value: object, path: str) -> object:  # noqa: ARG002 - the interface's
        """See `container.adapters.Encoder.encode`."""
        return value if isinstance(value, TensorLeaf | Typed) else NotImplemented


_LEAVES = EncoderSet(LeafEncoder(), always_mark=True)


class PthFile(TensorFile):
    """A file of PyTorch. Nothing in it is run, imported or looked up.

    Attributes:
        legacy: What it holds, and what is to be told of it.
        notes: What is to be known of how its content was taken, in sentences.
    """

    def __init__(self, source: LocalSource, inert: Collection[str] = ()) -> None:
        super().__init__(source)
        self.legacy: LegacyState = read_state(source, inert=inert)
        self.form = f"pth {self.legacy.form.value}"
        self.notes = facts_of(self.legacy.state).notes
        self.metadata = metadata_of(self.legacy)
        self.parts = parts_of(_fitting(self.legacy.state), source.path)

    @property
    def survey(self) -> Survey:
        """What its pickles would have done."""
        return self.legacy.survey

    def finish(self) -> None:
        """See `TensorFile.finish`."""
        with located(self.path, _FORM):
            self.legacy.finish()


class LeafPart(Part):
    """A component whose tensors are leaves."""

    codec = "none"

    def __init__(self, component: FlatComponent, text: Mapping[str, str], path: str) -> None:
        self._path = path
        self.name = component.name
        self.text_metadata = text
        self._structure = component.structure
        self._leaves = component.tensors
        self.tensors = {
            name: TensorInfo(self.name, name, leaf.dtype, leaf.shape, tensor_nbytes(leaf.dtype, leaf.shape) or 0)
            for name, leaf in component.tensors.items()
        }
        self.logical_bytes = sum(tensor.nbytes for tensor in self.tensors.values()) + len(self._structure or b"")
        self.stored_bytes = self.logical_bytes

    @property
    def flat(self) -> bool:
        """See `Part.flat`."""
        return self._structure is None

    def tree(self) -> object:
        """See `Part.tree`."""
        return self._tree

    @cached_property
    def _tree(self) -> object:
        return None if self._structure is None else decode(self._structure, member=self.name + MSGPACK)

    def chunks(self, name: str) -> Iterator[Chunk]:
        """See `Part.chunks`."""
        with located(self._path, _FORM):
            for chunk in self._leaves[name].chunks():
                yield partial(_given, chunk)


def _given(chunk: BytesLike) -> BytesLike:
    return chunk


def parts_of(state: object, path: str, text: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, Part]:
    """Return the components of a state whose tensors are leaves that give their chunks.

    Args:
        state: A mapping of component names to trees, or any other tree.
        path: The file or directory, for the messages.
        text: `__metadata__` of safetensors by component, beside what the state notes itself.

    Raises:
        StateError: It holds something that cannot be expressed; the message names the path to it.
    """
    noted = {**text_metadata(state), **(text or {})}
    components = flatten_state(state, _LEAVES)
    return {component.name: LeafPart(component, noted.get(component.name, {}), path) for component in components}


def _fitting(state: object) -> object:
    """Return a state whose components fit into one file: one of thousands of small values becomes one component."""
    if not isinstance(state, Mapping) or not all(map(is_component_name, state)):
        return state
    members = 2 * len(state)
    if members <= MAX_MEMBERS or all(isinstance(tree, TensorLeaf) for tree in state.values()):
        return state
    return {_WRAPPED: state}


def open_file(source: LocalSource, *, inert: Collection[str] = ()) -> PthFile:
    """Return the state of the file of PyTorch in `source`.

    Args:
        source: The file.
        inert: See `pth.reading.read_state`.

    Raises:
        UnsafeInputError: It asks for code to be run.
        ForeignFileError: It is broken, cut, beyond a limit, or something else.
        StateError: It holds something that cannot be expressed.
        StorageError: It cannot be read.
    """
    try:
        with located(source.path, _FORM):
            return PthFile(source, inert)
    except StateError as error:
        raise StateError(f"{source.path}: {error}", "it cannot be converted whole") from error
