"""Fingerprints of batches and other values: from a bounded sample of their contents, the same in every process."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import torch

from ckptfmt._core.format.digest import digest_stream
from ckptfmt._core.torch.live_objects.attributes import is_scalar
from ckptfmt._core.torch.live_objects.contents import attributes, is_a

__all__ = ["Sample", "fingerprint", "take"]

_ELEMENTS = 256
_PARTS = 256
_DEPTH = 8
_WHOLE_BYTES = 1 << 12
_DIGITS = 32  # 128 bits
_CONTAINERS: tuple[Any, ...] = (dict, list, tuple, deque)
_BYTES = (bytes, bytearray)
_NUMBERS = (int, float, complex, type(None), np.generic)
_GOLDEN = (math.sqrt(5) - 1) / 2
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Sample:
    """A sample of a value's contents, copied.

    Attributes:
        parts: Bytes, and small tensors on the devices of the value.
    """

    parts: tuple[bytes | torch.Tensor, ...]

    def digest(self) -> str:
        """Return the fingerprint, 32 hex digits. Waits for the devices."""
        return digest_stream(_framed(self.parts)).hex()[:_DIGITS]


def take(value: object, elements: int = _ELEMENTS, *, asks: bool = True) -> Sample:
    """Return a sample of a batch, without waiting for any device.

    The sample of a tensor or array is its dtype, shape and evenly spaced elements; of text, evenly spaced characters;
    of a mapping, sequence or other object, the samples of its items, at most 256 values in all. Of anything else, such
    as an image of another library, it is only the type.

    Args:
        value: The batch.
        elements: Maximum number of elements from each tensor, array or sequence.
        asks: Whether to call the code of mappings and sequences other than Python's own for their items; otherwise none
            of their code runs.
    """
    return Sample(tuple(islice(_Sampler(elements, asks).parts(value, 0), 4 * max(elements, _PARTS))))


def fingerprint(value: object, elements: int = _ELEMENTS, *, asks: bool = True) -> str:
    """Return the fingerprint of a value; the arguments are those of `take`."""
    return take(value, elements, asks=asks).digest()


@dataclass(frozen=True)
class _Sampler:
    elements: int
    asks: bool
    """Whether to call the code of mappings, sequences and sets other than Python's own for their items."""

    def parts(self, value: object, depth: int) -> Iterator[bytes | torch.Tensor]:
        yield type(value).__qualname__.encode()
        # A value that cannot be inspected counts with the parts seen so far.
        with suppress(Exception):
            yield from self._parts(value, depth)

    def _parts(self, value: Any, depth: int) -> Iterator[bytes | torch.Tensor]:
        if is_a(value, torch.Tensor):
            with torch._C.DisableTorchFunctionSubclass():  # overrides of a subclass do not matter
                parts = list(self._tensor_parts(value))
            yield from parts
        elif is_a(value, np.ndarray):
            value = np.ndarray.view(value, np.ndarray)
            yield f"{value.dtype} {value.shape}".encode()
            if not value.dtype.hasobject:
                yield self._array_part(value)
        elif is_a(value, str):
            yield from self._bytes_parts(str.encode(value, errors="surrogatepass"))
        elif is_a(value, (bytes, bytearray, memoryview)):
            yield from self._bytes_parts(bytes(value) if self.asks or type(value) in _BYTES else b"")
        elif type(value) is int:
            yield hex(value).encode()  # of any number of digits
        elif is_a(value, _NUMBERS):
            yield repr(value).encode() if self.asks or is_scalar(value) else b""
        elif (inside := self._inside(value)) is not None:
            count, pairs = inside
            yield str(count).encode()
            if depth < _DEPTH:
                for key, part in islice(pairs, _PARTS):
                    if key is not None:
                        yield repr(key).encode() if type(key) in (str, int) else type(key).__qualname__.encode()
                    yield from self.parts(part, depth + 1)
        elif depth < _DEPTH:
            # Plain values of unknown objects may be specific to the process: a time, an address.
            for name, part in islice(attributes(value).items(), _PARTS):
                if is_a(part, (torch.Tensor, np.ndarray, dict, list, tuple)):
                    yield name.encode()
                    yield from self.parts(part, depth + 1)

    def _inside(self, value: Any) -> tuple[int, Iterable[tuple[Any, object]]] | None:
        """Return the number of items of a value, and some of them with their keys; None if it has none."""
        kind = next((kind for kind in _CONTAINERS if is_a(value, kind)), None)
        if kind is not None and (type(value) is kind or not self.asks):
            count = kind.__len__(value)
            if kind is dict:
                return count, dict.items(value)
            return count, ((None, kind.__getitem__(value, index)) for index in self._positions(count))
        if self.asks:
            match value:
                case Mapping():
                    return len(value), ((key, value[key]) for key in value)
                case Sequence():
                    return len(value), ((None, value[index]) for index in self._positions(len(value)))
                case Set():
                    return len(value), ()
        return None

    def _tensor_parts(self, tensor: torch.Tensor) -> Iterator[bytes | torch.Tensor]:
        if tensor.is_nested:
            return  # its shape has names that differ between processes
        yield str(tuple(tensor.shape)).encode()
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            return
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():  # overrides of a subclass do not matter
            plain = tensor.detach().resolve_conj().resolve_neg()
            plain = plain.view(_BITS.get(plain.itemsize, plain.dtype))  # not all dtypes can be indexed
            count = plain.numel()
            if count <= self.elements:
                # A copy without the strides of the original, which have no bytes view.
                yield plain.clone(memory_format=torch.contiguous_format)
            else:
                # `take` indexes as in a contiguous tensor without making one: a batch may be large.
                yield plain.take(_numbers(self.elements, plain.device).mul(_stride(count)).remainder(count))

    def _array_part(self, array: np.ndarray[Any, Any]) -> bytes:
        if array.size <= self.elements:
            return array.tobytes()
        return array[np.unravel_index(self._positions(array.size), array.shape)].tobytes()

    def _bytes_parts(self, data: bytes) -> Iterator[bytes]:
        yield str(len(data)).encode()
        yield data if len(data) <= _WHOLE_BYTES else bytes(data[index] for index in self._positions(len(data)))

    def _positions(self, count: int) -> Sequence[int]:
        """Return positions spread over the whole value, not aligned with rows, images or channels."""
        if count <= self.elements:
            return range(count)
        stride = _stride(count)
        return [index * stride % count for index in range(self.elements)]


def _stride(count: int) -> int:
    return int(count * _GOLDEN) | 1


@lru_cache(maxsize=16)
def _numbers(elements: int, device: torch.device) -> torch.Tensor:
    return torch.arange(elements, dtype=torch.int64, device=device)


def _framed(parts: Sequence[bytes | torch.Tensor]) -> Iterator[bytes]:
    for part in parts:
        data = part if isinstance(part, bytes) else part.cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        yield len(data).to_bytes(8, "little")
        yield data
