"""Fingerprints of batches and other values: from a bounded sample of their contents, the same in every process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import torch

from ckptfmt._core.format.digest import digest_stream
from ckptfmt._core.torch.live_objects.attributes import attributes

__all__ = ["Sample", "fingerprint", "take"]

_ELEMENTS = 256
_PARTS = 256
_DEPTH = 8
_WHOLE_BYTES = 1 << 12
_DIGITS = 32  # 128 bits
_GOLDEN = (math.sqrt(5) - 1) / 2
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Sample:
    """A sample of a value's contents, copied.

    Attributes:
        parts: Bytes, and small tensors on the devices that the value is on.
    """

    parts: tuple[bytes | torch.Tensor, ...]

    def digest(self) -> str:
        """Return the fingerprint, 32 hex digits. Waits for the devices."""
        return digest_stream(_framed(self.parts)).hex()[:_DIGITS]


def take(value: object, elements: int = _ELEMENTS) -> Sample:
    """Return a sample of a batch, without waiting for any device.

    Of a tensor or array it holds dtype, shape and evenly spread elements, of text evenly spread characters, of
    mappings, sequences and other objects the same of what is in them, at most 256 values in all. What none of this
    is, such as a picture of another library, counts with its type alone.

    Args:
        value: The batch.
        elements: How many elements at most of each tensor, array or sequence.
    """
    return Sample(tuple(islice(_Sampler(elements).parts(value, 0), 4 * max(elements, _PARTS))))


def fingerprint(value: object, elements: int = _ELEMENTS) -> str:
    """Return the fingerprint of a value, as of a batch."""
    return take(value, elements).digest()


@dataclass(frozen=True)
class _Sampler:
    elements: int

    def parts(self, value: object, depth: int) -> Iterator[bytes | torch.Tensor]:
        yield type(value).__qualname__.encode()
        match value:
            case torch.Tensor():
                yield str(value.dtype).encode()
                yield from self._tensor_parts(value)
            case np.ndarray():
                yield f"{value.dtype} {value.shape}".encode()
                if not value.dtype.hasobject:
                    yield self._array_part(value)
            case str():
                yield from self._bytes_parts(value.encode(errors="surrogatepass"))
            case bytes() | bytearray() | memoryview():
                yield from self._bytes_parts(bytes(value))
            case bool() | int() | float() | complex() | None | np.generic():
                yield repr(value).encode()
            case Mapping() | Sequence() | Set():
                yield str(len(value)).encode()
                if depth < _DEPTH:
                    yield from self._items(value, depth)
            case _ if depth < _DEPTH:
                # Plain values of unknown objects may be those of one process: a time, an address.
                for name, part in islice(attributes(value).items(), _PARTS):
                    if isinstance(part, torch.Tensor | np.ndarray | Mapping | list | tuple):
                        yield name.encode()
                        yield from self.parts(part, depth + 1)

    def _items(self, value: object, depth: int) -> Iterator[bytes | torch.Tensor]:
        if isinstance(value, Mapping):
            for key in islice(value, _PARTS):
                yield repr(key).encode() if isinstance(key, str | int) else type(key).__qualname__.encode()
                yield from self.parts(value[key], depth + 1)
        elif isinstance(value, Sequence):
            for index in self._positions(len(value)):
                yield from self.parts(value[index], depth + 1)

    def _tensor_parts(self, tensor: torch.Tensor) -> Iterator[bytes | torch.Tensor]:
        if tensor.is_nested:
            return  # its shape has names that are made up anew in each process
        yield str(tuple(tensor.shape)).encode()
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            return
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():  # how a subclass would index does not matter
            plain = tensor.detach().resolve_conj().resolve_neg()
            plain = plain.view(_BITS.get(plain.itemsize, plain.dtype))  # not all dtypes can be indexed
            count = plain.numel()
            if count <= self.elements:
                yield plain.clone()
            else:
                # `take` counts as in a contiguous tensor, and does not make one: a batch may be large.
                yield plain.take(_numbers(self.elements, plain.device).mul(_stride(count)).remainder(count))

    def _array_part(self, array: np.ndarray[Any, Any]) -> bytes:
        if array.size <= self.elements:
            return array.tobytes()
        return array[np.unravel_index(self._positions(array.size), array.shape)].tobytes()

    def _bytes_parts(self, data: bytes) -> Iterator[bytes]:
        yield str(len(data)).encode()
        yield data if len(data) <= _WHOLE_BYTES else bytes(data[index] for index in self._positions(len(data)))

    def _positions(self, count: int) -> Sequence[int]:
        """Return positions spread all over, in no step with rows, pictures or channels."""
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
