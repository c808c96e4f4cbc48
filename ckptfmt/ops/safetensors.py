"""Plain `.safetensors` files as files of tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NoReturn

from ckptfmt.format.digest import CHUNK_BYTES
from ckptfmt.format.index import ROOT, Metadata
from ckptfmt.format.layout import MAX_HEADER_BYTES
from ckptfmt.format.tensors import DTYPES, LENGTH_BYTES, MAX_DIMENSIONS, METADATA_KEY, tensor_nbytes
from ckptfmt.ops.failures import ForeignFileError
from ckptfmt.ops.sources import Chunk, Part, TensorFile, TensorInfo
from ckptfmt.storage import LocalSource

__all__ = ["SafetensorsFile", "open_file"]


class SafetensorsFile(TensorFile):
    """A plain `.safetensors` file: one part, and no digests to check it against.

    Its header need not have the one form that ours have (spec 9), only be what the format's own reader takes.
    """

    form = "safetensors"

    def __init__(self, source: LocalSource) -> None:
        super().__init__(source)
        self.metadata = Metadata()
        self.parts = {ROOT: _SafetensorsPart(source)}


class _SafetensorsPart(Part):
    name = ROOT
    codec = "none"

    def __init__(self, source: LocalSource) -> None:
        self._source = source
        self.stored_bytes = self.logical_bytes = source.size
        self.tensors, self._offsets, self.text_metadata = _parse_header(source)

    def chunks(self, name: str) -> Iterator[Chunk]:
        """See `Part.chunks`."""
        begin, nbytes = self._offsets[name], self.tensors[name].nbytes
        for start in range(0, nbytes, CHUNK_BYTES):
            yield partial(self._source.read, begin + start, min(CHUNK_BYTES, nbytes - start))


def open_file(source: LocalSource) -> SafetensorsFile:
    """Return the tensors of the `.safetensors` file in `source`.

    Raises:
        ForeignFileError: It is not valid.
        StorageError: It cannot be read.
    """
    return SafetensorsFile(source)


_Header = tuple[dict[str, TensorInfo], dict[str, int], Mapping[str, str]]


def _parse_header(source: LocalSource) -> _Header:
    """Return the tensors, their absolute offsets, and `__metadata__`."""

    def fail(found: str) -> NoReturn:
        raise ForeignFileError(source.path, ".safetensors", f"{found}; get the file again")

    if source.size < LENGTH_BYTES:
        fail(f"it has {source.size:,} bytes")
    header_bytes = int.from_bytes(source.read(0, LENGTH_BYTES), "little")
    data_start = LENGTH_BYTES + header_bytes
    if header_bytes > MAX_HEADER_BYTES or data_start > source.size:
        fail(f"a header of {header_bytes:,} bytes in a file of {source.size:,}")
    try:
        document = json.loads(source.read(LENGTH_BYTES, header_bytes), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        fail(f"the header is not JSON without repeated names: {error}")
    text_metadata = document.pop(METADATA_KEY, {}) if isinstance(document, dict) else None
    if not isinstance(text_metadata, dict) or not all(isinstance(text, str) for text in text_metadata.values()):
        fail(f"the header or its {METADATA_KEY} is not an object of the right form")
    tensors: dict[str, TensorInfo] = {}
    places: list[tuple[int, int, str]] = []
    for name, entry in document.items():
        fault = _fault(entry)
        if fault is not None:
            fail(f"tensor {name!r}: {fault}")
        begin, end = entry["data_offsets"]
        tensors[name] = TensorInfo(ROOT, name, entry["dtype"], tuple(entry["shape"]), end - begin)
        places.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(places):
        if begin != position:
            fail(f"tensor {name!r} begins at byte {begin:,} of the data, the one before ends at {position:,}")
        position = end
    if data_start + position != source.size:
        fail(f"its tensors make {data_start + position:,} bytes, the file has {source.size:,}")
    return tensors, {name: data_start + begin for begin, _, name in places}, text_metadata


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    return result


def _fault(entry: object) -> str | None:
    """Return what is wrong with the entry of a tensor."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "its entry is not an object of dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        return f"its dtype is {dtype!r:.40}, which is not known; upgrade ckptfmt"
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS or not _are_sizes(offsets) or len(offsets) != 2:
        return "its shape or data_offsets are not arrays of sizes"
    if tensor_nbytes(dtype, tuple(shape)) != offsets[1] - offsets[0]:
        return f"{dtype} data of shape {shape!s:.80} do not fill bytes {offsets[0]:,} to {offsets[1]:,}"
    return None


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)
