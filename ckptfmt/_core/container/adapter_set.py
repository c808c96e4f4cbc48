"""Which adapter takes a value, and which one makes a tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from ckptfmt._core.container.adapters import Adapter, Encoder
from ckptfmt._core.format.packing import Typed

__all__ = ["AdapterSet", "EncoderSet"]

_TYPES_REMEMBERED = 256


class EncoderSet:
    """The encoders of states, each for the types of one package.

    Args:
        fallback: Takes the values of all other packages.
        packages: For the name of a package, such as `torch`, what returns the encoder of its types. It is called when
            such a value is met, and then the program has imported that package: nothing is imported that it does not
            use.
        always_mark: Mark each tensor whose encoder has a marker. Otherwise that is done only in a component that holds
            tensors of several frameworks; alone, they are the tensors of the component.
    """

    def __init__(
        self,
        fallback: Encoder,
        packages: Mapping[str, Callable[[], Encoder]] | None = None,
        *,
        always_mark: bool = False,
    ) -> None:
        self._fallback = fallback
        self._packages = dict(packages or {})
        self.always_mark = always_mark
        self.encoder_of: Callable[[type], Encoder] = lru_cache(_TYPES_REMEMBERED)(self._encoder_of)
        """Returns the encoder of the values of a type."""

    def encode(self, value: object, path: str) -> object:
        """Return what represents a value in a tree; see `Encoder.encode`."""
        return self.encoder_of(type(value)).encode(value, path)

    def _encoder_of(self, kind: type) -> Encoder:
        for base in kind.__mro__:  # of a subclass, too, whoever wrote it
            load = self._packages.get(base.__module__.partition(".")[0])
            if load is not None:
                return load()
        return self._fallback


class AdapterSet(EncoderSet):
    """The adapters of one door to checkpoints, such as `ckptfmt.torch`.

    Args:
        primary: Makes the tensors that have no marker.
        fallback: Takes the values of packages that are not named, and makes the tensors of its marker; the primary
            adapter if None.
        packages: See `EncoderSet`.
        always_mark: See `EncoderSet`.
    """

    def __init__(
        self,
        primary: Adapter,
        fallback: Adapter | None = None,
        packages: Mapping[str, Callable[[], Encoder]] | None = None,
        *,
        always_mark: bool = False,
    ) -> None:
        self.primary = primary
        self._other = primary if fallback is None else fallback
        super().__init__(self._other, packages, always_mark=always_mark)

    def maker(self, typed_name: str, default: Adapter) -> Adapter:
        """Return the adapter that makes the tensors inside a typed value of this name; `default` if it is no marker."""
        for adapter in (self.primary, self._other):
            if adapter.marker == typed_name:
                return adapter
        return default

    def is_marker(self, typed_name: str) -> bool:
        """Say whether typed values of this name do nothing but mark the tensors of an adapter."""
        return typed_name in (self.primary.marker, self._other.marker)

    def decode(self, typed: Typed, adapter: Adapter) -> object:
        """Return the value that a typed value represents, or the typed value itself if no adapter knows its name.

        Args:
            typed: Its tensors are tensors of `adapter`.
            adapter: The adapter that is asked first.

        Raises:
            FormatError: `typed-value`: a framework refuses the value.
        """
        value = adapter.decode(typed)
        return self._other.decode(typed) if value is typed and adapter is not self._other else value
