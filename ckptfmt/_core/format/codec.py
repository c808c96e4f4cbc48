"""The only door to Zstandard: chunks in frames, one for each byte plane (spec 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.planes import WHOLE, Split, put_plane, split_planes
from ckptfmt.errors import Problem, error_for

if TYPE_CHECKING:
    import zstandard

MAX_WINDOW_BYTES = 8 << 20  # 8.4
MAX_BLOCK_BYTES = 128 << 10  # RFC 8878, 3.1.1.2.4: and never more than the window

# The higher levels gain little: what shrinks is the order-0 entropy of a plane.
_LEVEL = 1
# Bytes of floats repeat by chance only, and to search for that costs more time and space than it saves. With the
# smallest hash table and the longest match little is found, and nearly all the work is Huffman's.
_FLOATS_HASH_LOG, _FLOATS_MIN_MATCH, _FLOATS_WINDOW_LOG = 6, 7, 20

_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
_BLOCK_HEADER_BYTES = 3
_RLE_BLOCK = 1
_RESERVED_BLOCK = 3
_CHECKSUM_BYTES = 4
_MOST_HEADER_BYTES = 18  # RFC 8878, 3.1.1.1


def encode_chunk(chunk: BytesLike, split: Split = WHOLE) -> bytes:
    """Return the stored form of a chunk under codec `zstd` (8.2). Raises MemoryError if memory is short."""
    import zstandard

    compressor = _compressor(floats=split.exponent_bits > 0)
    try:
        return b"".join([compressor.compress(plane) for plane in split_planes(chunk, split)])
    except zstandard.ZstdError as error:
        if _is_short_of_memory(error):
            raise MemoryError(str(error)) from error
        raise


def _compressor(*, floats: bool) -> zstandard.ZstdCompressor:
    import zstandard

    if not floats:
        return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True, write_checksum=False)
    parameters = zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_FAST,
        window_log=_FLOATS_WINDOW_LOG,
        hash_log=_FLOATS_HASH_LOG,
        min_match=_FLOATS_MIN_MATCH,
        target_length=0,
        write_content_size=1,
        write_checksum=0,
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def decode_chunk(stored: bytes, into: memoryview, split: Split, *, member: str, tensor: str | None) -> None:
    """Fill `into` with the logical bytes of a chunk that was stored under codec `zstd`.

    Memory is taken for as many bytes only, whatever the frames declare.

    Raises:
        FormatError: `zstd-frame`: not exactly one frame of the right content size per plane (8.2 to 8.4).
        MemoryError: Memory is short, which says nothing about the chunk.
    """
    import zstandard

    def fail(message: str) -> NoReturn:
        raise error_for(Problem("zstd-frame", message, member=member, tensor=tensor))

    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    plane_bytes, position = len(into) // split.planes, 0
    for plane in range(split.planes):
        try:
            parameters = zstandard.get_frame_parameters(stored[position : position + _MOST_HEADER_BYTES])
            _check_parameters(parameters, plane_bytes)
            end = _frame_end(stored, position, min(parameters.window_size, MAX_BLOCK_BYTES))
            content = decompressor.decompress(stored[position:end], max_output_size=plane_bytes)
            if len(content) != plane_bytes:
                raise ValueError(f"it holds {len(content)} bytes")
        except (zstandard.ZstdError, ValueError) as error:
            if _is_short_of_memory(error):
                raise MemoryError(str(error)) from error
            fail(f"the frame of plane {plane} of {split.planes} does not hold {plane_bytes} bytes: {error}")
        put_plane(content, plane, split, into)
        position = end
    if position != len(stored):
        fail(f"{len(stored) - position} bytes follow the last frame of a stored chunk")


def _is_short_of_memory(error: Exception) -> bool:
    # Zstandard's error codes are lost in the binding; its texts are not.
    return "not enough memory" in str(error)


def _check_parameters(parameters: zstandard.FrameParameters, plane_bytes: int) -> None:
    if parameters.content_size != plane_bytes:
        raise ValueError(f"it declares {parameters.content_size} bytes")
    if parameters.window_size > MAX_WINDOW_BYTES:
        raise ValueError(f"its window has {parameters.window_size} bytes")


def _frame_end(data: bytes, start: int, max_block_bytes: int) -> int:
    """Return where the Zstandard frame at `start` ends (RFC 8878, 3.1.1).

    Raises:
        ValueError: There is no complete frame, or a block is larger than allowed.
    """
    if data[start : start + 4] != _FRAME_MAGIC or start + 5 > len(data):
        raise ValueError("no frame begins there")
    descriptor = data[start + 4]
    if descriptor & 3:
        raise ValueError("its Dictionary_ID_Flag is not 0")
    single_segment = descriptor >> 5 & 1
    content_size_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
    position = start + 5 + (not single_segment) + content_size_bytes
    last = False
    while not last:
        block = int.from_bytes(data[position : position + _BLOCK_HEADER_BYTES], "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        if kind == _RESERVED_BLOCK or size > max_block_bytes:
            raise ValueError(f"a block of kind {kind} and {size} bytes is not allowed")
        position += _BLOCK_HEADER_BYTES + (1 if kind == _RLE_BLOCK else size)
        if position > len(data):
            raise ValueError("its end is missing")
    if descriptor >> 2 & 1:
        position += _CHECKSUM_BYTES
    if position > len(data):
        raise ValueError("its checksum is missing")
    return position
