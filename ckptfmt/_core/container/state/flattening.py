"""Trees of a training state to structure and tensors; knows no framework (spec 11).

A framework comes in through an `Adapter`: it says what its tensors and values are in the terms of the
specification, and makes them again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any

from ckptfmt._core.container.adapter_set import EncoderSet
from ckptfmt._core.container.per_rank import PerRank, place_of
from ckptfmt._core.container.state.cures import cure_for
from ckptfmt._core.container.tensor_source import TensorSource
from ckptfmt._core.format.dtypes import COMPLEX_PARTS
from ckptfmt._core.format.index import ROOT, are_component_names, shown_name
from ckptfmt._core.format.packing import (
    MAX_DEPTH,
    MAX_LOOSE_KEYS,
    MAX_MSGPACK_BYTES,
    MAX_VALUES,
    TensorRef,
    Timestamp,
    Typed,
    encode,
    timestamp_of,
)
from ckptfmt._core.format.sparse import SPARSE, sparse_fault
from ckptfmt._core.format.tensors import METADATA_KEY
from ckptfmt._core.format.trees import PER_RANK
from ckptfmt.errors import StateError


@dataclass(frozen=True)
class FlatComponent:
    """A component as it is written.

    Attributes:
        name: The component's name.
        structure: The bytes of its msgpack member, None if it is flat (11.1).
        tensors: Its tensors by name, in the order of the header.
        turned_to_dicts: Types of mappings in it that are read back as `dict` (11.6 g), each with a place where it is.
    """

    name: str
    structure: bytes | None
    tensors: Mapping[str, TensorSource]
    turned_to_dicts: Mapping[type, str] = field(default_factory=dict)


def flatten_state(state: object, encoders: EncoderSet) -> Iterator[FlatComponent]:
    """Yield the components of a state (11.5).

    Args:
        state: A mapping of component names to trees, or any other tree.
        encoders: Know the tensors of frameworks.

    Raises:
        StateError: Something cannot be expressed; the message names the path to it.
    """
    components = _as_components(state, encoders)
    if components is None:
        yield flatten_component(ROOT, state, encoders)
        return
    for name, tree in components.items():
        yield flatten_component(name, tree, encoders)


def _as_components(state: object, encoders: EncoderSet) -> Mapping[str, object] | None:
    """Return the state if it is a mapping of component names to trees, else None."""
    if not isinstance(state, Mapping) or not are_component_names(state):
        return None
    if state and all(_is_tensor(tree, str(name), encoders) for name, tree in state.items()):
        return None
    return state


def _is_tensor(value: object, path: str, encoders: EncoderSet) -> bool:
    encoder = encoders.encoder_of(type(value))
    encoded = encoder.encode(value, path)
    while isinstance(encoded, Typed) and (encoded.name == encoder.marker or encoded.name in COMPLEX_PARTS):
        encoded = encoded.value
    return isinstance(encoded, TensorSource)


def flatten_component(name: str, tree: object, encoders: EncoderSet, *, per_rank: bool = True) -> FlatComponent:
    """Return a component in the form in which it is stored.

    Args:
        name: Its name.
        tree: Its state.
        encoders: Know the tensors of frameworks.
        per_rank: Whether it may hold a `PerRank`.

    Raises:
        StateError: Something cannot be expressed; the message names the path to it.
    """
    flat = _as_flat(name, tree, encoders)
    if flat is not None:
        return FlatComponent(name, None, flat)
    flattener = _Flattener(name, encoders, mark=encoders.always_mark, per_rank=per_rank)
    structure = flattener.encode(tree, (), 0)
    if not flattener.mark and len(flattener.markers) > 1:
        flattener = _Flattener(name, encoders, mark=True, per_rank=per_rank)
        structure = flattener.encode(tree, (), 0)
    packed = encode(structure)
    if len(packed) > MAX_MSGPACK_BYTES:
        advice = "put long lists into arrays"
        raise StateError(
            shown_name(name), f"its structure takes {len(packed)} bytes, the limit is {MAX_MSGPACK_BYTES}", advice
        )
    return FlatComponent(name, packed, flattener.tensors, flattener.turned_to_dicts)


def _as_flat(component: str, tree: object, encoders: EncoderSet) -> dict[str, TensorSource] | None:
    """Return the tensors of a tree that can be stored as a safetensors member alone, else None (11.3)."""
    if not isinstance(tree, Mapping) or not tree or METADATA_KEY in tree:
        return None
    leaves: dict[str, TensorSource] = {}
    markers = set()
    shown = shown_name(component)
    kind, encoder = type(None), encoders.encoder_of(type(None))
    for key, value in tree.items():
        if type(key) is not str or not _is_unicode(key):
            return None
        if type(value) is not kind:  # most values are of the kind of the one before
            kind = type(value)
            if issubclass(kind, Mapping | list | tuple):
                return None
            encoder = encoders.encoder_of(kind)
        leaf = encoder.encode(value, f"{shown}.{key}")
        marker = None
        if isinstance(leaf, Typed) and leaf.name == encoder.marker and not encoders.always_mark:
            marker, leaf = leaf.name, leaf.value
        if not isinstance(leaf, TensorSource):
            return None
        leaves[key] = leaf
        markers.add(marker)
    distinct = len({leaf.alias for leaf in leaves.values()}) == len(leaves)
    return leaves if distinct and len(markers) == 1 else None


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


_Path = tuple[str | int, ...]
_PLAIN = frozenset({type(None), bool, int, float, complex, bytes, Timestamp})
_LOOSE_KEYS = frozenset({type(None), bool, int, float})
_AS_DICTS = frozenset({dict, OrderedDict})  # a dict is ordered, too
_TIMES = frozenset({datetime, date, time, timedelta})


@dataclass
class _Flattener:
    """Turns one tree into what `packing.encode` takes, and collects its tensors."""

    component: str
    encoders: EncoderSet
    mark: bool
    per_rank: bool
    tensors: dict[str, TensorSource] = field(default_factory=dict)
    markers: set[str | None] = field(default_factory=set)
    """Those of the tensors that were found; None for tensors that need none."""
    turned_to_dicts: dict[type, str] = field(default_factory=dict)
    _refs: dict[Hashable, TensorRef] = field(default_factory=dict)
    _foreign_kinds: set[type] = field(default_factory=set)
    _values: int = 1
    _loose_keys: int = 0
    _in_per_rank: bool = False

    def place(self, path: _Path) -> str:
        """Return a path as a person writes it: `optimizer.param_groups[0].lr`."""
        return place_of(self.component, path)

    def encode(self, value: object, path: _Path, level: int) -> object:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind in self._foreign_kinds:
            return self.foreign(value, path, level)
        if isinstance(value, TensorSource):
            return self.tensor(value, path)
        if kind is dict or isinstance(value, Mapping):
            if kind not in _AS_DICTS:
                self.turned_to_dicts.setdefault(kind, self.place(path))
            return self.mapping(value, path, level)  # type: ignore[arg-type]  # it is one
        if isinstance(value, str) and kind is str:
            if not _is_unicode(value):
                raise StateError(self.place(path), "a str with a lone surrogate, which UTF-8 cannot express")
            return value
        if kind is list or kind is tuple:
            assert isinstance(value, list | tuple)
            self.enter(len(value), path, level)
            items = [self.encode(item, (*path, number), level + 1) for number, item in enumerate(value)]
            return items if kind is list else tuple(items)
        if isinstance(value, PerRank):
            return self.typed(Typed(PER_RANK, list(value.values)), path, level)
        if isinstance(value, Typed):
            return self.typed(value, path, level)
        if isinstance(value, set | frozenset) and kind in (set, frozenset):
            self.enter(len(value), path, level)
            elements = {self.key(element, path) for element in value}
            return elements if kind is set else Typed("frozenset", elements)
        if isinstance(value, datetime | date | time | timedelta) and kind in _TIMES:
            return self.moment(value, path)
        self._foreign_kinds.add(kind)  # all of the above depends on nothing but the type
        return self.foreign(value, path, level)

    def typed(self, value: Typed, path: _Path, level: int) -> Typed:
        self.enter(2, path, level)
        if value.name != PER_RANK:
            encoded = Typed(value.name, self.encode(value.value, path, level + 1))
            fault = sparse_fault(encoded, self.tensors) if value.name in SPARSE else None
            if fault is not None:
                raise StateError(self.place(path), f"a {value.name} {fault}", "store its parts as tensors of their own")
            return encoded
        if self._in_per_rank or not self.per_rank:
            where = " inside another" if self._in_per_rank else ""
            raise StateError(self.place(path), f"a PerRank{where}", "give the value of one rank")
        self._in_per_rank = True
        encoded = Typed(PER_RANK, self.encode(value.value, path, level + 1))
        self._in_per_rank = False
        return encoded

    def moment(self, value: datetime | date | time | timedelta, path: _Path) -> object:
        """Encode what is written as text; the zone of an aware one becomes its offset at that moment (11.6)."""
        if isinstance(value, timedelta):
            return Typed("timedelta", [value.days, value.seconds, value.microseconds])
        if isinstance(value, datetime | time):
            offset = value.utcoffset()
            if value.tzinfo is not None and (offset is None or offset.microseconds):
                found = f"{value!r:.200}, whose offset from UTC is not known, or not in whole seconds"
                raise StateError(self.place(path), found, "store it without its tzinfo, and the zone's name beside it")
            if isinstance(value, datetime) and offset == timedelta(0):
                return timestamp_of(value)
        return Typed(type(value).__name__, value.isoformat())

    def foreign(self, value: object, path: _Path, level: int) -> object:
        """Encode what only the adapter can know."""
        encoder = self.encoders.encoder_of(type(value))
        try:
            encoded = encoder.encode(value, self.component)
        except StateError:
            encoder.encode(value, self.place(path))  # only a message needs the path, which takes a while to write
            raise
        if isinstance(encoded, TensorSource):
            self.markers.add(None)
            return self.tensor(encoded, path)
        if encoded is NotImplemented:
            key = (None if self.component == ROOT else self.component, *path)[-1]
            raise StateError(self.place(path), f"{type(value)} cannot be expressed", cure_for(value, key))
        if isinstance(encoded, Typed) and encoded.name == encoder.marker:
            self.markers.add(encoder.marker)
            return self.encode(encoded if self.mark else encoded.value, path, level)
        if isinstance(encoded, Typed) and encoded.name in COMPLEX_PARTS:
            self.markers.add(None)
        return self.encode(encoded, path, level)

    def tensor(self, leaf: TensorSource, path: _Path) -> TensorRef:
        """Return the reference to a tensor; the same one for the same tensor (11.2)."""
        alias = leaf.alias
        ref = self._refs.get(alias)
        if ref is None:
            ref = self._refs[alias] = TensorRef(self.free_name(path))
            self.tensors[ref.name] = leaf
        return ref

    def free_name(self, path: _Path) -> str:
        """Return the name of the tensor at `path` (11.4)."""
        wanted = ".".join([part if type(part) is str else str(part) for part in path])
        if wanted and wanted != METADATA_KEY and wanted not in self.tensors:
            return wanted
        number = 2
        while f"{wanted}#{number}" in self.tensors:
            number += 1
        return f"{wanted}#{number}"

    def mapping(self, value: Mapping[Any, object], path: _Path, level: int) -> dict[object, object]:
        self.enter(2 * len(value), path, level)
        result = {}
        for number, (key, item) in enumerate(value.items()):
            part = key if type(key) is str or type(key) is int else f"#{number}"
            inside = (*path, part)
            result[self.key(key, inside)] = self.encode(item, inside, level + 1)
        return result

    def key(self, key: object, path: _Path) -> object:
        """Return a key or set element after checking that it may be one (10.3)."""
        kind = type(key)
        if kind is str and key.isascii():  # type: ignore[attr-defined]  # it is a str
            return key
        if kind is bytes or (isinstance(key, str) and kind is str and _is_unicode(key)):
            return key
        fits_64_bits = not isinstance(key, int) or -(2**63) <= key < 2**64
        if kind not in _LOOSE_KEYS or key != key or not fits_64_bits:
            advice = "a key or set element is a str, bytes, int of 64 bits, float, bool or None"
            raise StateError(self.place(path), f"the key {key!r:.100} of {kind} cannot be expressed", advice)
        self._loose_keys += 1
        if self._loose_keys > MAX_LOOSE_KEYS:
            found = f"more than {MAX_LOOSE_KEYS} keys that are neither str nor bytes"
            raise StateError(self.place(path), found, "use arrays of keys and values")
        return key

    def enter(self, elements: int, path: _Path, level: int) -> None:
        """Check the limits of which a reader will hold us to (13.1)."""
        if elements and level >= MAX_DEPTH:
            raise StateError(self.place(path), f"nested deeper than {MAX_DEPTH} levels", "does it contain itself?")
        self._values += elements
        if self._values > MAX_VALUES:
            raise StateError(self.place(path), f"more than {MAX_VALUES} values", "put long lists into arrays")
