"""Files to start a new run from: native checkpoints, and all formats that `interop` reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ckptfmt._core.container import module_versions as versions
from ckptfmt._core.container.component import Component
from ckptfmt._core.container.per_rank import PerRank, choose
from ckptfmt._core.container.tensor_source import TensorSource
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.format.digest import digest, digest_stream
from ckptfmt._core.format.index import ROOT, Metadata, shown_name
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.interop.detect import Reader, detect_path
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.storage import open_source
from ckptfmt._core.storage.local.paths import name_as_text, path_text
from ckptfmt._core.storage.resolve import is_directory, look
from ckptfmt._core.torch import save_load as io
from ckptfmt._core.torch.restore.file_states import FileStates
from ckptfmt._core.torch.restore.modules import is_state_dict
from ckptfmt._core.torch.state.inert import inert_objects
from ckptfmt._core.training.lineage import Ancestor, lineage_from
from ckptfmt._core.training.ranks import World
from ckptfmt.errors import ChangedError, MismatchError

__all__ = ["Origin", "open_origin"]

PerRankCounts = dict[str, dict[str, int]]
"""For each component, path of each value that differs between ranks -> number of ranks that have one."""

LoadStates = Callable[[Collection[str], int, PerRankCounts], Mapping[str, Any]]
"""Returns the states of some components, with one rank's values where ranks differ, and records these paths."""


class Origin:
    """A file to start a run from.

    Args:
        path: The file.
        metadata: Metadata in the file; empty for other formats.
        lineage: The file itself, then the file that its run started from, and so on.
        components: The names of its components; `ROOT` for a file that is one bare state dict.
        per_rank: For each component that was read, path of each value that differs between ranks -> number of ranks
            that have one. The values are those of rank 0.
        load: Returns the states of some components.
        models: Names of the components that may be state dicts of models; None: any may be.
    """

    def __init__(
        self,
        path: str,
        metadata: Metadata,
        lineage: tuple[Ancestor, ...],
        components: Collection[str],
        load: LoadStates,
        models: Collection[str] | None = None,
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.lineage = lineage
        self.components = tuple(components)
        self.per_rank: PerRankCounts = {}
        self._load = load
        self._models = self.components if models is None else tuple(models)
        self._states: dict[str, Any] = {}

    def state(self, component: str) -> Any:
        """Return the state of a component, every byte verified as far as the format allows.

        Raises:
            CkptfmtError: The state cannot be read, or is damaged.
        """
        self._states |= self._load([name for name in (component,) if name not in self._states], 0, self.per_rank)
        return self._states[component]

    def state_of_rank(self, component: str, world: World) -> Any:
        """Return the state of a component for a rank; None if the file has none for this number of ranks."""
        if component not in self.components:
            return None
        if component in self._states:
            state = self._states[component]
        else:
            state = self._load([component], world.rank, self.per_rank)[component]
        counts = set(self.per_rank.get(component, {}).values()) or {1}
        return state if counts == {world.size} else None

    def weights(self, component: str | None) -> tuple[str, Mapping[str, Any]]:
        """Return the name and the state dict of a component; None: of the only one that is the state dict of a model.

        Raises:
            MismatchError: The component does not exist, it is not a state dict, or there are several state dicts.
        """
        if component is not None:
            state: Any = self.state(component) if component in self.components else None
            if not is_state_dict(state):
                raise self._no(f"no weights under {component!r}")
            return component, self._plain(component)
        self._states |= self._load([name for name in self._models if name not in self._states], 0, self.per_rank)
        found = [name for name in self._models if is_state_dict(self._states[name])]
        if len(found) != 1:
            raise self._no("no weights" if not found else f"several weights: {', '.join(found)}; pass source=")
        return found[0], self._plain(found[0])

    def refused(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Return why the states of some components cannot be loaded into an object, one line each."""
        # Native checkpoints contain what the components returned; files of other programs may contain anything.
        foreign = self.metadata.run_id is None
        return {name: inert_objects(name, self.state(name)) for name in names if foreign}

    def _plain(self, component: str) -> Any:
        lines = self.refused([component]).get(component)
        if lines:
            raise MismatchError(f"{self.path}: unusable for a warm start", lines)
        return self.state(component)

    def _no(self, what: str) -> MismatchError:
        return MismatchError(
            f"{self.path}: unusable for a warm start",
            [f"{what}; it has: {', '.join(map(shown_name, self.components))}"],
        )


def open_origin(path: str | os.PathLike[str], inert: Collection[str] = ()) -> Origin:
    """Open a file to start from. Later reads are on demand; nothing in a file is ever run.

    Args:
        path: A file or directory of any format that `interop.opening.open_tensors` reads, with any name.
        inert: Names in pickles to keep as inert data (see `pth.reading.read_state`).

    Raises:
        CkptfmtError: The file cannot be read, is damaged, or is refused because of what it would run.
    """
    name = path_text(path)
    if is_directory(name) or detect_path(name) is not Reader.NATIVE:
        return _from_foreign(name, inert)
    with io.open(name) as checkpoint:
        facts, identity = checkpoint.metadata, checkpoint.identity
        lineage = lineage_from(name, identity, facts)
        return Origin(name, facts, lineage, list(checkpoint), partial(_read_native, name, identity))


def _read_native(
    path: str, identity: str, names: Collection[str], rank: int, per_rank: PerRankCounts
) -> dict[str, Any]:
    """Read components; where values differ between ranks, take those of one rank, or else of rank 0."""
    if not names:
        return {}
    with io.open(path) as checkpoint:
        if checkpoint.identity != identity:
            raise ChangedError(f"{path}: another file has taken its place meanwhile")
        return {name: _read_component(name, checkpoint[name], rank, per_rank) for name in names}


def _read_component(name: str, part: Component, rank: int, per_rank: PerRankCounts) -> Any:
    counts = per_rank[name] = {}

    def pick(place: str, values: Sequence[Any]) -> object:
        counts[place] = len(values)
        return values[rank if rank < len(values) else 0]

    state = part.load() if part.flat else part.load(tree=choose(name, part.structure(), pick))
    return versions.attach(state, part.text_metadata)


def _from_foreign(path: str, inert: Collection[str]) -> Origin:
    entry = look(path)
    kinds = (TensorSource, Typed)  # no other node becomes a tensor

    def load(names: Collection[str], rank: int, per_rank: PerRankCounts) -> dict[str, Any]:
        if not names:
            return {}
        with open_tensors(path, inert=inert) as file:
            if look(path) != entry:
                raise ChangedError(f"{path}: another file has taken its place meanwhile")
            states = FileStates(file)
            found = {name: states.whole() if name == ROOT else states.component(name) for name in names}
        for name, state in found.items():
            if isinstance(state, PerRank):
                per_rank[name] = {name: len(state.values)}
                found[name] = state.values[rank if rank < len(state.values) else 0]
        return found

    with open_tensors(path, inert=inert) as file:
        content, names, itself = file.state, FileStates(file).names, _foreign(path, file.paths)
        if is_state_dict(content, kinds):
            return Origin(path, Metadata(), (itself,), [ROOT], load)
        if not isinstance(content, Mapping):
            raise MismatchError(f"{path}: unusable for a warm start", [f"a {type(content).__name__}, not states"])
        models = [name for name in names if is_state_dict(content[name], kinds)]
        return Origin(path, Metadata(), (itself,), names, load, models)


def _foreign(path: str, files: Sequence[str]) -> Ancestor:
    """Return a checkpoint without an identity, identified by the digest of its bytes.

    Several files are identified by the digest of their digests, one after the other.
    """
    digests = [*map(_digest_of, files)]
    identity = digests[0] if len(digests) == 1 else digest(b"".join(digests))
    return Ancestor(identity.hex(), name_as_text(path))


def _digest_of(path: str) -> bytes:
    with open_source(path) as source:
        starts = range(0, source.size, CHUNK_BYTES)
        return digest_stream(source.read(start, min(CHUNK_BYTES, source.size - start)) for start in starts)
