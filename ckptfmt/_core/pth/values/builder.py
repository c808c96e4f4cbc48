"""From the nodes of a pickle to the values of a checkpoint: plain data, tensors, and inert records.

Each name that a pickle may call has a constructor, a function of this package, in one of the tables of `CONSTRUCTORS`.
An object of any other class becomes a `Typed` value of the class's name, with the arguments and states in the pickle.
Nothing is looked up anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timezone
from typing import Any

from ckptfmt._core.format.packing import MAX_LOOSE_KEYS, Typed
from ckptfmt._core.pth.data.dtypes import STORAGES, TYPES, ElementType
from ckptfmt._core.pth.data.tensors import PthTensor, Storage, TensorView, c_strides, tensor_leaf, view_of
from ckptfmt._core.pth.limits import FREE_EXPANSION_BYTES, MAX_COPIED_BYTES, MAX_DEPTH, MAX_EXPANSION, MAX_VALUES
from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.nodes import DictNode, Global, Persistent, Record, SetNode, describe
from ckptfmt._core.pth.values.hashing import require_hashable
from ckptfmt._core.pth.values.notes import Notes
from ckptfmt.errors import ForeignFileError

__all__ = [
    "ADDED",
    "ANYTHING",
    "ELEMENTS",
    "ENTRIES",
    "NAME",
    "PAIRS",
    "STATES",
    "Builder",
    "Constructor",
    "StateDict",
    "Storages",
    "Tensor",
]

NAME = "python.name"
"""Type name of a class or function that a file refers to: its dotted name."""
PAIRS = "python.dict"
"""Type name of a dict with keys that ours cannot have: its pairs."""

_MOST_OPEN = MAX_DEPTH + 18  # a tensor takes some levels that are none of the value's

Storages = Callable[[Persistent], "Storage | Tensor"]
"""Returns what lies outside the pickle. Raises ForeignFileError if there is no such thing."""


class StateDict(dict[Any, Any]):
    """A mapping with the versions of modules that `state_dict()` notes beside the tensors.

    Attributes:
        _metadata: Module path -> facts, where PyTorch has them.
    """

    _metadata: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor while values are built: its elements, and what is to be told of it.

    Attributes:
        view: The elements; None if `value` was built by other means.
        value: What it is expressed by.
    """

    view: TensorView | None
    value: object


STATES, ENTRIES = frozenset({"a state"}), frozenset({"items"})
ELEMENTS, ADDED = frozenset({"elements"}), frozenset({"elements of a set"})
ANYTHING = STATES | ENTRIES | ELEMENTS | ADDED


@dataclass(frozen=True)
class Constructor:
    """What makes a value in place of a name that a pickle calls.

    Attributes:
        make: Returns the value of a record. It may be an intermediate one (`Storage`, ...), for other constructors.
        takes: What a pickle may add to such an object after it was made. Anything else is malformed.
    """

    make: Callable[[Builder, Record], object]
    takes: frozenset[str] = frozenset()


@dataclass
class Builder:
    """Builds the values of one file.

    Args:
        constructors: The constructors by canonical name.
        storages: Finds what lies outside the pickle.
        notes: Collects what the report says of the values.
        file_bytes: Length of the file.
        recover: Returns the state of a whole module or optimizer, and NotImplemented for any other record.
    """

    constructors: Mapping[str, Constructor]
    storages: Storages
    notes: Notes
    file_bytes: int
    recover: Callable[[Builder, Record], object]
    _built: dict[int, tuple[object, int, int]] = field(default_factory=dict)  # by id of node: value, size, height
    _alive: list[object] = field(default_factory=list)  # nodes in `_built`, so that no id is used twice
    _open: set[int] = field(default_factory=set)
    _count: int = 0
    _height: int = 0
    _loose: int = 0
    _tensor_bytes: int = 0
    _copied_bytes: int = 0
    _looked: int = 0
    _views: dict[tuple[object, ...], PthTensor] = field(default_factory=dict)

    # -- values

    def value(self, node: object) -> object:
        """Return the value that a node stands for.

        Raises:
            ForeignFileError: It stands for none, or is beyond a limit.
        """
        return self._publish(self.raw(node))

    def raw(self, node: object) -> object:
        """Return the value of a node, which may be an intermediate one that only constructors use."""
        if node is None or isinstance(node, bool | int | float | str | bytes):
            self._enter(1, 0)
            return node
        known = self._built.get(id(node))
        if known is not None:
            made, size, height = known
            self._enter(size, height)
            return made
        if id(node) in self._open:
            return self._inside_itself(node)
        if len(self._open) > _MOST_OPEN:
            raise ForeignFileError(f"its values are nested deeper than {MAX_DEPTH} levels")
        before, above = self._count, self._height
        self._open.add(id(node))
        self._height = 0
        try:
            made = self._make(node)
        finally:
            self._open.discard(id(node))
        self._enter(1, 0)
        height = self._height + 1
        if height > _MOST_OPEN:
            raise ForeignFileError(f"its values are nested deeper than {MAX_DEPTH} levels")
        self._height = max(above, height)
        self._built[id(node)] = made, self._count - before, height
        self._alive.append(node)
        return made

    def _inside_itself(self, node: object) -> object:
        """Leave out an object that is part of itself, as are children that know their parent."""
        if not isinstance(node, Record) or canonical(node.callee) in self.constructors:
            raise ForeignFileError(f"{describe(node)} contains itself")
        self.notes.drop(describe(node), "it is part of itself")
        return None

    def _enter(self, size: int, height: int) -> None:
        self._count += size
        self._height = max(self._height, height)
        if self._count > MAX_VALUES:
            raise ForeignFileError(f"it has more than {MAX_VALUES} values, each counted as often as it is referred to")

    def looked_at(self, count: int) -> None:
        """Note that so many entries were looked at for what they are, which may be the same ones over and over.

        Raises:
            ForeignFileError: That is beyond what a checkpoint needs.
        """
        self._looked += count
        if self._looked > MAX_VALUES:
            raise ForeignFileError(f"it has more than {MAX_VALUES} attributes, each counted as often as it is shared")

    def _make(self, node: object) -> object:
        match node:
            case list():
                return [self.value(item) for item in node]
            case tuple():
                return tuple([self.value(item) for item in node])
            case DictNode(entries):
                return self.mapping(entries)
            case SetNode(elements, frozen):
                return self.set_of(elements, frozen=frozen)
            case Global():
                return self._name(node)
            case Persistent():
                return self.storages(node)
            case Record():
                return self._record(node)
        raise AssertionError(node)  # the pickle machine makes nothing else

    def _name(self, name: Global) -> object:
        full = canonical(name)
        module, _, word = full.rpartition(".")
        if module == "torch" and word in TYPES:
            return TYPES[word]
        if word in STORAGES and module in ("torch", "torch.cuda", "torch.storage"):
            return STORAGES[word]
        if module == "torch" and word.startswith(
            ("sparse_", "strided", "per_", "channels_", "contiguous_", "preserve_")
        ):
            return Typed(NAME, full)
        self.notes.inert[full] += 1
        return Typed(NAME, full)

    def _record(self, record: Record) -> object:
        constructor = self.constructors.get(canonical(record.callee))
        if constructor is not None:
            _refuse_misuse(record, constructor)
            return constructor.make(self, record)
        recovered = self.recover(self, record)
        if recovered is not NotImplemented:
            return recovered
        return self.inert(record)

    def inert(self, record: Record) -> Typed:
        """Return a record as data: what its object would have been made of."""
        name = canonical(record.callee)
        self.notes.inert[name] += 1
        return Typed(name, self.parts_of(record))

    def parts_of(self, record: Record) -> dict[Any, object]:
        """Return all that a file says of an object, as a mapping: its attributes, if it has nothing else."""
        parts: dict[Any, object] = {}
        args = record.args
        if canonical(record.callee) == "copyreg._reconstructor":
            args = args[2:] if len(args) > 2 and args[2] is not None else ()
        if args:
            parts["args"] = self.value(list(args))
        if record.kwargs is not None:
            parts["kwargs"] = self.value(record.kwargs)
        attributes = [self.value(state) for state in record.states]
        if record.entries:
            parts["items"] = self.mapping(record.entries)
        if record.elements or record.added:
            parts["elements"] = self.value([*record.elements, *record.added])
        if not parts and len(attributes) == 1 and isinstance(attributes[0], dict):
            return attributes[0]
        if attributes:
            parts["state"] = attributes[0] if len(attributes) == 1 else attributes
        return parts

    # -- containers

    def mapping(self, entries: list[tuple[object, object]]) -> object:
        """Return pairs as a dict; as a typed list of pairs, if a key is nothing that ours can have.

        Raises:
            ForeignFileError: A key is nothing that a dict can have.
        """
        for key, _ in entries:
            require_hashable(key)
        pairs = [(self.value(key), self.value(item)) for key, item in entries]
        if not all(map(self._is_key, [key for key, _ in pairs])):
            return Typed(PAIRS, [[key, item] for key, item in pairs])
        return dict(pairs)

    def set_of(self, elements: list[object], *, frozen: bool = False) -> object:
        """Return a set; as a typed list, if an element is nothing that ours can have.

        Raises:
            ForeignFileError: An element is nothing that a set can have.
        """
        for element in elements:
            require_hashable(element)
        values = [self.value(element) for element in elements]
        if not all(map(self._is_key, values)):
            return Typed("python.frozenset" if frozen else "python.set", values)
        return frozenset(values) if frozen else set(values)

    def _is_key(self, value: object) -> bool:
        if isinstance(value, str | bytes):
            return True
        if value is not None and not isinstance(value, bool | int | float):
            return False
        self._loose += 1
        if self._loose > MAX_LOOSE_KEYS:
            raise ForeignFileError(f"more than {MAX_LOOSE_KEYS} keys that are neither text nor bytes")
        return value == value and (not isinstance(value, int) or -(2**63) <= value < 2**64)

    def copied(self, nbytes: int) -> None:
        """Note that so many bytes were made of text."""
        self._copied_bytes += nbytes
        if self._copied_bytes > MAX_COPIED_BYTES:
            raise ForeignFileError(f"more than {MAX_COPIED_BYTES} bytes written as text")

    # -- tensors

    def storage(self, node: object) -> Storage:
        """Return the storage that a node stands for."""
        found = self.raw(node)
        if not isinstance(found, Storage):
            raise ForeignFileError(f"{describe(node)} stands in the place of a storage")
        return found

    def element_type(self, node: object) -> ElementType:
        """Return the element type that a node stands for."""
        found = self.raw(node)
        if not isinstance(found, ElementType):
            raise ForeignFileError(f"{describe(node)} stands in the place of a dtype")
        return found

    def tensor(self, view: TensorView) -> Tensor:
        """Return the tensor of a view, the same for the same elements."""
        if view.kind.quantized or view.kind.dtype is None:
            return Tensor(view, None)
        return Tensor(view, self.express(view))

    def express(self, view: TensorView) -> object:
        """Return what a view is expressed by (spec 11.6)."""
        leaf = self._views.get(view.identity)
        if leaf is None:
            leaf = self._views[view.identity] = tensor_leaf(view)
            self._tensor_bytes += view.nbytes
            if self._tensor_bytes > MAX_EXPANSION * self.file_bytes + FREE_EXPANSION_BYTES:
                raise ForeignFileError(f"its tensors expand to {self._tensor_bytes} bytes, and more")
        return Typed(view.kind.typed, leaf) if view.kind.typed else leaf

    def _publish(self, made: object) -> object:
        """Return what a checkpoint can hold in place of an intermediate value."""
        match made:
            case Tensor(view, None) if view is not None:
                return self.express(view)  # which says what is wrong with it
            case Tensor(_, value):
                return value
            case ElementType(name):
                return Typed("torch.dtype", name)
            case timezone():
                return Typed("datetime.timezone", str(made))
            case Storage(_, data, kind):
                elements = data.nbytes // kind.nbytes
                self.notes.drop("a bare storage", "it became a tensor of one dimension")
                return self.express(view_of(made, kind, 0, (elements,), c_strides((elements,))))
        published = getattr(made, "published", None)
        return published(self) if published is not None else made


def _refuse_misuse(record: Record, constructor: Constructor) -> None:
    given = (
        (STATES, record.states),
        (ENTRIES, record.entries),
        (ELEMENTS, record.elements),
        (ADDED, record.added),
    )
    for what, parts in given:
        if parts and not what <= constructor.takes:
            raise ForeignFileError(f"the pickle gives {' '.join(what)} to {describe(record)}, which takes none")
