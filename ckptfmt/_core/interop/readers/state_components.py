"""States whose tensors are `TensorSource` already, as components."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from ckptfmt._core.container.adapter_set import EncoderSet
from ckptfmt._core.container.module_versions import text_metadata
from ckptfmt._core.container.state.flattening import FlatComponent, flatten_state
from ckptfmt._core.container.tensor_source import TensorSource
from ckptfmt._core.format.index import MSGPACK
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.format.trees import NUMPY_ARRAY
from ckptfmt._core.format.unpacking import decode
from ckptfmt._core.interop.base import ComponentSource

__all__ = ["components_of"]


class _SourceEncoder:
    """Takes trees whose tensors are `TensorSource` already."""

    @property
    def marker(self) -> str:
        """See `container.adapters.Encoder.marker`."""
        return NUMPY_ARRAY

    def encode(self, value: object, path: str) -> object:  # noqa: ARG002 - the interface's
        """See `container.adapters.Encoder.encode`."""
        return value if isinstance(value, TensorSource | Typed) else NotImplemented


_ENCODERS = EncoderSet(_SourceEncoder(), always_mark=True)


class _FlattenedComponent(ComponentSource):
    """A component of a state."""

    def __init__(self, component: FlatComponent, text: Mapping[str, str]) -> None:
        self._structure = component.structure
        nbytes = sum(tensor.nbytes for tensor in component.tensors.values()) + len(component.structure or b"")
        super().__init__(
            component.name, component.tensors, stored_bytes=nbytes, logical_bytes=nbytes, text_metadata=text
        )

    @property
    def flat(self) -> bool:
        """See `ComponentSource.flat`."""
        return self._structure is None

    def tree(self) -> object:
        """See `ComponentSource.tree`."""
        return self._tree

    @cached_property
    def _tree(self) -> object:
        return None if self._structure is None else decode(self._structure, member=self.name + MSGPACK)


def components_of(state: object, text: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, ComponentSource]:
    """Return the components of a state whose tensors are `TensorSource`.

    Args:
        state: A mapping of component names to trees, or any other tree.
        text: `__metadata__` of safetensors by component, beside what the state notes itself.

    Raises:
        StateError: It holds something that cannot be expressed; the message names the path to it.
    """
    noted = {**text_metadata(state), **(text or {})}
    components = flatten_state(state, _ENCODERS)
    return {component.name: _FlattenedComponent(component, noted.get(component.name, {})) for component in components}
