"""Files to start a new run from: checkpoints of ours, files of `torch.save`, and plain `.safetensors`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors
from safetensors.torch import load_file

from ckptfmt import versions
from ckptfmt.errors import MismatchError, Problem, StorageError, error_for
from ckptfmt.format.digest import CHUNK_BYTES, digest_stream
from ckptfmt.format.index import ROOT, Metadata
from ckptfmt.per_rank import choose
from ckptfmt.storage import open_source
from ckptfmt.storage.paths import name_as_text
from ckptfmt.torch import io
from ckptfmt.torch.documented import is_documented
from ckptfmt.torch.legacy import read_pth
from ckptfmt.torch.modules import is_state_dict
from ckptfmt.torch.ranks import World

__all__ = ["Ancestor", "Origin", "lineage_of", "open_origin"]

_PICKLED = (".bin", ".ckpt")  # beside those of the documented loop
_SAFETENSORS = ".safetensors"
_LARGEST_GENERATION = 64


@dataclass(frozen=True)
class Ancestor:
    """A file that a run started from, directly or by way of other runs.

    Attributes:
        identity: Its identity, 64 hex digits (spec 12.1); of another format, the BLAKE3 digest of its bytes.
        name: The file's name, if it is known.
        run_id: The run that it belongs to, if it says.
        step: Its step, if it says.
        epoch: Its epoch, if it says.
    """

    identity: str
    name: str | None = None
    run_id: str | None = None
    step: int | None = None
    epoch: int | None = None


class Origin:
    """A file that a run is to start from.

    Attributes:
        path: The file.
        metadata: The facts written inside; empty for other formats.
        lineage: The file itself, then what its run started from, and so on.
        components: The names of its components; `ROOT` for a file that is one bare state dict.
        per_rank: For each component that was read, the places of the values that differ between ranks, and how many
            ranks have one there. Those of rank 0 were taken.
    """

    def __init__(
        self, path: str, metadata: Metadata, lineage: tuple[Ancestor, ...], states: Mapping[str, Any] | Collection[str]
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.lineage = lineage
        self.components = tuple(states)
        self.per_rank: dict[str, dict[str, int]] = {}
        self._states: dict[str, Any] = dict(states) if isinstance(states, Mapping) else {}

    def state(self, component: str) -> Any:
        """Return the state of a component, every byte of it verified as far as the format can tell.

        Raises:
            CkptfmtError: It cannot be read, or is damaged.
        """
        if component not in self._states:
            self._states[component] = self._read(component, rank=0)
        return self._states[component]

    def state_of_rank(self, component: str, world: World) -> Any:
        """Return the state of a component that belongs to a rank; None if the file has none for one of so many."""
        if component not in self.components:
            return None
        state = self._read(component, world.rank) if component not in self._states else self._states[component]
        counts = set(self.per_rank.get(component, {}).values()) or {1}
        return state if counts == {world.size} else None

    def _read(self, component: str, rank: int) -> Any:
        """Read a component, with the values of one rank where they differ, or else those of rank 0."""
        with io.open(self.path) as checkpoint:
            if checkpoint.identity != self.lineage[0].identity:
                raise StorageError(f"{self.path}: another file has taken its place meanwhile")
            part = checkpoint[component]
            counts = self.per_rank[component] = {}

            def pick(place: str, values: Sequence[Any]) -> object:
                counts[place] = len(values)
                return values[rank if rank < len(values) else 0]

            state = part.load() if part.flat else part.load(tree=choose(component, part.structure(), pick))
            return versions.attach(state, part.text_metadata)

    def weights(self, component: str | None) -> tuple[str, Mapping[str, Any]]:
        """Return the name and the state dict of a component; None: of the only one that is the state dict of a model.

        Raises:
            MismatchError: There is no such component, it is no state dict, or several are.
        """
        if component is not None:
            state: Any = self.state(component) if component in self.components else None
            if not is_state_dict(state):
                raise self._no(f"no weights under {component!r}")
            return component, state
        found = [name for name in self.components if is_state_dict(self.state(name))]
        if len(found) != 1:
            raise self._no("no weights" if not found else f"several weights: {', '.join(found)}; say which")
        return found[0], self.state(found[0])

    def _no(self, what: str) -> MismatchError:
        return MismatchError(f"{self.path}: cannot be started from", [f"{what}; it has: {', '.join(self.components)}"])


def open_origin(path: str | os.PathLike[str]) -> Origin:
    """Open a file to start from. Of a checkpoint of ours only the index is read; nothing in a file is ever run.

    Args:
        path: A checkpoint of ours, whatever its name; or a file named `*.pth`, `*.pt`, `*.bin`, `*.ckpt` or
            `*.safetensors`.

    Raises:
        CkptfmtError: It cannot be read, is damaged, or asks for code to be run.
    """
    name = os.fspath(path)
    if is_documented(name) or name.endswith(_PICKLED):
        return _from_pth(name)
    if name.endswith(_SAFETENSORS):
        return Origin(name, Metadata(), (_foreign(name),), {ROOT: _read_safetensors(name)})
    with io.open(name) as checkpoint:
        facts = checkpoint.metadata
        itself = Ancestor(checkpoint.identity, name_as_text(name), facts.run_id, facts.step, facts.epoch)
        return Origin(name, facts, (itself, *lineage_of(facts)), list(checkpoint))


def lineage_of(metadata: Metadata) -> tuple[Ancestor, ...]:
    """Return what a checkpoint says its run started from, the nearest first; nothing if it says it in another way."""
    noted = (metadata.user or {}).get("lineage")
    entries = noted if isinstance(noted, list) else []
    try:
        return tuple(Ancestor(**entry) for entry in entries[:_LARGEST_GENERATION])
    except TypeError:
        return ()


def _from_pth(path: str) -> Origin:
    content = read_pth(path)
    if is_state_dict(content):
        return Origin(path, Metadata(), (_foreign(path),), {ROOT: content})
    if not isinstance(content, Mapping):
        raise MismatchError(f"{path}: cannot be started from", [f"it holds a {type(content).__name__}, not states"])
    return Origin(path, Metadata(), (_foreign(path),), {str(name): state for name, state in content.items()})


def _read_safetensors(path: str) -> dict[str, Any]:
    try:
        return load_file(path)
    except safetensors.SafetensorError as error:
        raise error_for(Problem("header-json", f"not a sound safetensors file: {error}"), path) from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error


def _foreign(path: str) -> Ancestor:
    """Return a file that has no identity by the digest of its bytes."""
    with open_source(path) as source:
        starts = range(0, source.size, CHUNK_BYTES)
        identity = digest_stream(source.read(start, min(CHUNK_BYTES, source.size - start)) for start in starts)
    return Ancestor(identity.hex(), name_as_text(path))
