"""Plain `.safetensors` files as files of tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import NoReturn

from ckptfmt._core.container.tensor_source import ReadChunk, TensorSource
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.format.dtypes import DTYPES
from ckptfmt._core.format.index import ROOT, Metadata
from ckptfmt._core.format.layout import MAX_HEADER_BYTES
from ckptfmt._core.format.tensors import LENGTH_BYTES, MAX_DIMENSIONS, METADATA_KEY, tensor_nbytes
from ckptfmt._core.interop.base import ComponentSource, TensorFile
from ckptfmt._core.storage import Source
from ckptfmt.errors import ForeignFileError

__all__ = ["SafetensorsFile", "open_file"]

_FORM = ".safetensors"


class SafetensorsFile(TensorFile):
    """A plain `.safetensors` file: one component, and no digests to check it against.

    Its header may have any form that the format's own reader takes, not only the canonical one (spec 9).
    """

    form = "safetensors"

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.metadata = Metadata()
        header = _Header(source)
        self.component = ComponentSource(
            ROOT,
            header.tensors,
            stored_bytes=source.size,
            logical_bytes=source.size,
            text_metadata=header.text_metadata or {},
        )

    @property
    def components(self) -> Mapping[str, ComponentSource]:
        """See `TensorFile.components`."""
        return {ROOT: self.component}

    @property
    def text_metadata(self) -> Mapping[str, str]:
        """See `TensorFile.text_metadata`."""
        return self.component.text_metadata


@dataclass(slots=True, eq=False)
class _StoredTensor(TensorSource):
    """A tensor that lies in the file as it is.

    Attributes:
        source: The file.
        offset: Absolute offset of its data.
        length: Their length in bytes.
    """

    source: Source
    offset: int
    length: int

    @property
    def nbytes(self) -> int:
        """See `TensorSource.nbytes`."""
        return self.length

    def chunks(self) -> Iterator[ReadChunk]:
        """See `TensorSource.chunks`."""
        for start in range(0, self.length, CHUNK_BYTES):
            yield partial(self.source.read, self.offset + start, min(CHUNK_BYTES, self.length - start))

    def private_map(self) -> memoryview | None:
        """See `TensorSource.private_map`."""
        return self.source.private_view(self.offset, self.length)

    def copy_into(self, buffer: memoryview) -> None:
        """See `TensorSource.copy_into`; nothing is copied twice."""
        self._require_length(self.length, len(buffer))
        self.source.read_into(self.offset, buffer)


def open_file(source: Source, *, inert: Collection[str] = ()) -> SafetensorsFile:
    """Return the tensors of the `.safetensors` file in `source`.

    Args:
        source: The file.
        inert: Of no use here: there are no pickles in it.

    Raises:
        ForeignFileError: It is not valid.
        StorageError: It cannot be read.
    """
    del inert
    return SafetensorsFile(source)


# The header is read entry by entry, and an entry is short, so that what a hostile one nests or repeats is never made.
_SPACE = rb"[ \t\n\r]*"
_STRING = rb'"([^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*)"'
_NUMBER = rb"(?:0|[1-9][0-9]{0,18})"
_MOST_ENTRY_BYTES = 4096
_MOST_REMEMBERED = 4096

_OPENING = re.compile(rb"\{" + _SPACE)
_KEY = re.compile(_STRING + _SPACE + rb":" + _SPACE)
_TEXT = re.compile(_STRING + _SPACE)
_ENTRY = re.compile(rb"(\{[^{}]{0,%d}\})" % _MOST_ENTRY_BYTES + _SPACE)
_NEXT = re.compile(rb"([,}])" + _SPACE)
_USUAL = re.compile(
    _STRING
    + rb':\{"dtype":"([A-Z0-9_]+)","shape":\[((?:%b(?:,%b)*)?)\],' % (_NUMBER, _NUMBER)
    + rb'"data_offsets":\[(%b),(%b)\]\}([,}])' % (_NUMBER, _NUMBER)
    + _SPACE
)
"""A name and its entry as nearly all writers put them down, without spaces; any other is looked at piece by piece."""


class _Header:
    """The header of a file: its tensors by name, and `__metadata__`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._path = source.path
        self.tensors: dict[str, _StoredTensor] = {}
        self.text_metadata: dict[str, str] | None = None
        self._remembered: dict[tuple[bytes, bytes], tuple[str, tuple[int, ...], int | None]] = {}
        if source.size < LENGTH_BYTES:
            self._fail(f"it has {source.size:,} bytes")
        header_bytes = int.from_bytes(source.read(0, LENGTH_BYTES), "little")
        if header_bytes > MAX_HEADER_BYTES:
            self._fail(f"its header has {header_bytes:,} bytes, the limit of the format is {MAX_HEADER_BYTES:,}")
        self._data_start = LENGTH_BYTES + header_bytes
        if self._data_start > source.size:
            self._fail(f"it ends within its header: that has {header_bytes:,} bytes, the file {source.size:,}")
        self._text = source.read(LENGTH_BYTES, header_bytes)
        self._parse()
        del self._text
        self._check_places(source.size)

    def _parse(self) -> None:
        at = self._match(_OPENING, 0).end()
        more = self._text[at : at + 1] != b"}"
        if not more:
            at = self._match(_NEXT, at).end()
        while more:
            usual = _USUAL.match(self._text, at)
            if usual is not None:
                name, dtype, sizes, begin, end, following = usual.groups()
                self._take(self._string(name), *self._kind(dtype, sizes), int(begin), int(end))
                more, at = following == b",", usual.end()
            else:
                more, at = self._parse_unusual(at)
        if at != len(self._text):
            self._fail(f"its header goes on behind its end, at byte {at:,}")

    def _parse_unusual(self, at: int) -> tuple[bool, int]:
        """Read a name and its entry in whichever form, or `__metadata__`; return whether more follow, and where."""
        key = self._match(_KEY, at)
        name, at = self._string(key[1]), key.end()
        if name == METADATA_KEY:
            at = self._parse_metadata(at)
        else:
            entry = self._match(_ENTRY, at)
            dtype, shape, begin, end = self._facts(name, entry[1])
            self._take(name, dtype, shape, tensor_nbytes(dtype, shape) if dtype in DTYPES else None, begin, end)
            at = entry.end()
        following = self._match(_NEXT, at)
        return following[1] == b",", following.end()

    def _parse_metadata(self, at: int) -> int:
        """Read `__metadata__`; return where it ends."""
        if self.text_metadata is not None:
            self._fail(f"{METADATA_KEY} stands twice in its header")
        found = self.text_metadata = {}
        at = self._match(_OPENING, at).end()
        more = self._text[at : at + 1] != b"}"
        if not more:
            at = self._match(_NEXT, at).end()
        while more:
            key = self._match(_KEY, at)
            text = self._match(_TEXT, key.end())
            name = self._string(key[1])
            if name in found:
                self._fail(f"{name!a:.200} stands twice in its {METADATA_KEY}")
            found[name] = self._string(text[1])
            following = self._match(_NEXT, text.end())
            more, at = following[1] == b",", following.end()
        return at

    def _take(self, name: str, dtype: str, shape: tuple[int, ...], nbytes: int | None, begin: int, end: int) -> None:
        """Take a tensor after checking what can be known without the others."""
        if nbytes is None or nbytes != end - begin or len(shape) > MAX_DIMENSIONS or name == METADATA_KEY:
            known = dtype in DTYPES
            self._fail(
                f"tensor {name!a:.200}: {dtype} data of shape {shape!s:.80} do not fill bytes {begin} to {end}"
                if known
                else f"tensor {name!a:.200}: its dtype is {dtype!a:.40}, which is not known; upgrade ckptfmt"
            )
        if name in self.tensors:
            self._fail(f"{name!a:.200} stands twice in its header")
        self.tensors[name] = _StoredTensor(dtype, shape, self._source, self._data_start + begin, nbytes)

    def _kind(self, dtype: bytes, sizes: bytes) -> tuple[str, tuple[int, ...], int | None]:
        """Return dtype, shape and length of a tensor; the same objects for the same text."""
        found = self._remembered.get((dtype, sizes))
        if found is None:
            shape = tuple(map(int, sizes.split(b","))) if sizes else ()
            name = dtype.decode()
            found = name, shape, tensor_nbytes(name, shape) if name in DTYPES else None
            if len(self._remembered) < _MOST_REMEMBERED:
                self._remembered[dtype, sizes] = found
        return found

    def _facts(self, name: str, entry: bytes) -> tuple[str, tuple[int, ...], int, int]:
        """Return dtype, shape, begin and end of an entry in whichever form."""
        try:
            facts = json.loads(entry.decode(), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            self._fail(f"tensor {name!a:.200}: its entry is not JSON without repeated names: {error!s:.200}")
        if facts.keys() != {"dtype", "shape", "data_offsets"}:
            self._fail(f"tensor {name!a:.200}: its entry is not one of dtype, shape and data_offsets")
        dtype, shape, offsets = facts["dtype"], facts["shape"], facts["data_offsets"]
        if not isinstance(dtype, str) or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
            self._fail(f"tensor {name!a:.200}: its dtype is no text, or shape or data_offsets are no sizes")
        return dtype, tuple(shape), *offsets

    def _check_places(self, file_bytes: int) -> None:
        """Check that the tensors fill the file without hole and overlap."""
        position = self._data_start
        places = [(tensor.offset, tensor.offset + tensor.length) for tensor in self.tensors.values()]
        places.sort(key=itemgetter(0, 1))
        for begin, end in places:
            if begin != position:
                begin, position = begin - self._data_start, position - self._data_start
                self._fail(f"a tensor begins at byte {begin:,} of the data, the one before ends at {position:,}")
            position = end
        if position != file_bytes:
            self._fail(f"its tensors make {position:,} bytes, the file has {file_bytes:,}")

    def _match(self, pattern: re.Pattern[bytes], at: int) -> re.Match[bytes]:
        match = pattern.match(self._text, at)
        if match is None:
            self._fail(f"its header is not JSON of tensors, from byte {at:,} on")
        return match

    def _string(self, text: bytes) -> str:
        """Return the text that stands between two quotes."""
        try:
            found = json.loads(b'"%b"' % text) if b"\\" in text else text.decode()
            assert isinstance(found, str)
            found.encode()  # there are no lone surrogates in what the format's own reader takes
        except ValueError as error:
            self._fail(f"its header has text that is none: {error!s:.200}")
        return found

    def _fail(self, found: str) -> NoReturn:
        raise ForeignFileError(f"{found}; get the file again", self._path, _FORM)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    return result


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)
