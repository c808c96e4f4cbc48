"""Files of PyTorch as files of tensors: of `torch.save` in each of its forms, TorchScript archives, plain pickles."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property

from ckptfmt._core.container.tensor_source import TensorSource
from ckptfmt._core.format.index import are_component_names
from ckptfmt._core.format.layout import MAX_MEMBERS
from ckptfmt._core.interop.base import ComponentSource, TensorFile
from ckptfmt._core.interop.dropped import Dropped
from ckptfmt._core.interop.findings import Findings
from ckptfmt._core.interop.located import located
from ckptfmt._core.interop.readers.pth_checkpoints import metadata_of
from ckptfmt._core.interop.readers.state_components import components_of
from ckptfmt._core.interop.training_facts import facts_of
from ckptfmt._core.pth.audit import check
from ckptfmt._core.pth.data.storages import FORM
from ckptfmt._core.pth.reading import PthState, read_state
from ckptfmt._core.storage import Source
from ckptfmt.errors import StateError

__all__ = ["PthFile", "open_file"]

_WRAPPED, _OPTIMIZER = "net", "optimizer"
_OPTIMIZER_KEYS = {"state", "param_groups"}


class PthFile(TensorFile):
    """A file of PyTorch. Nothing in it is run, imported or looked up.

    Attributes:
        legacy: What it holds, and what is to be reported of it.
    """

    def __init__(self, source: Source, inert: Collection[str] = ()) -> None:
        super().__init__(source)
        self.legacy: PthState = read_state(source, inert=inert)
        self.form = f"pth {self.legacy.form.value}"
        self.metadata = metadata_of(self.legacy)

    @property
    def state(self) -> object:
        """See `TensorFile.state`: just what was saved."""
        return self.legacy.state

    @property
    def components(self) -> Mapping[str, ComponentSource]:
        """See `TensorFile.components`."""
        return self._components

    @cached_property
    def _components(self) -> Mapping[str, ComponentSource]:
        try:
            return components_of(_fitting(_named(self.legacy)))
        except StateError as error:
            raise StateError(f"{self.path}: {error}", "it cannot be converted whole") from error

    def findings(self) -> Findings:
        """See `TensorFile.findings`."""
        notes = self.legacy.notes
        return Findings(
            producer=self.metadata.producer,
            inert=dict(notes.inert),
            unknown=tuple(dict.fromkeys(self.legacy.audit.unknown)),
            modules=dict(notes.modules),
            dropped=tuple(Dropped(what, why, times) for (what, why), times in notes.dropped.items()),
            notes=facts_of(self.legacy.state).notes,
        )

    def refuse_unknown(self) -> None:
        """See `TensorFile.refuse_unknown`."""
        check(self.legacy.audit, self.path, strict=True)

    def finish(self) -> None:
        """See `TensorFile.finish`."""
        with located(self.path, FORM):
            self.legacy.finish()


def _named(legacy: PthState) -> object:
    """Return the state of a file; that of a whole module or optimizer becomes a component called after its role."""
    if not legacy.whole_module:
        return legacy.state
    is_optimizer = isinstance(legacy.state, Mapping) and legacy.state.keys() == _OPTIMIZER_KEYS
    return {_OPTIMIZER if is_optimizer else _WRAPPED: legacy.state}


def _fitting(state: object) -> object:
    """Return a state whose components fit into one file: one of thousands of small values becomes one component."""
    if not isinstance(state, Mapping) or not are_component_names(state):
        return state
    members = 2 * len(state)
    if members <= MAX_MEMBERS or all(isinstance(tree, TensorSource) for tree in state.values()):
        return state
    return {_WRAPPED: state}


def open_file(source: Source, *, inert: Collection[str] = ()) -> PthFile:
    """Return the state of the file of PyTorch in `source`.

    Args:
        source: The file.
        inert: See `pth.reading.read_state`.

    Raises:
        UnsafeInputError: It asks for code to be run.
        ForeignFileError: It is broken, cut, beyond a limit, or something else.
        StorageError: It cannot be read.
    """
    return PthFile(source, inert)
