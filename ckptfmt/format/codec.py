"""The only door to Zstandard: chunks split into byte planes, one frame per plane (spec 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from ckptfmt.errors import Problem, error_for
from ckptfmt.format.digest import BytesLike

if TYPE_CHECKING:
    import zstandard

MAX_WINDOW_BYTES = 8 << 20  # 8.4
MAX_BLOCK_BYTES = 128 << 10  # RFC 8878, 3.1.1.2.4: and never more than the window
DEFAULT_LEVEL = 1  # the higher levels gain little on weights: what shrinks is the order-0 entropy of a plane

_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
_BLOCK_HEADER_BYTES = 3
_RLE_BLOCK = 1
_RESERVED_BLOCK = 3
_CHECKSUM_BYTES = 4


def encode_chunk(chunk: BytesLike, planes: int, level: int = DEFAULT_LEVEL) -> bytes:
    """Return the stored form of a chunk under codec `zstd` (8.2)."""
    import zstandard

    compressor = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)
    view = memoryview(chunk).cast("B")
    return b"".join(compressor.compress(view[plane::planes].tobytes()) for plane in range(planes))


def decode_chunk(stored: bytes, nbytes: int, planes: int, *, member: str, tensor: str | None) -> bytearray:
    """Return the `nbytes` logical bytes of a chunk that was stored under codec `zstd`.

    Memory is taken for `nbytes` only, whatever the frames declare.

    Raises:
        FormatError: `zstd-frame`: not exactly one frame of the right content size per plane (8.2 to 8.4).
    """
    import zstandard

    def fail(message: str) -> NoReturn:
        raise error_for(Problem("zstd-frame", message, member=member, tensor=tensor))

    result = bytearray(nbytes)
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    plane_bytes, position = nbytes // planes, 0
    for plane in range(planes):
        try:
            parameters = zstandard.get_frame_parameters(stored[position:])
            _check_parameters(parameters, plane_bytes)
            end = _frame_end(stored, position, min(parameters.window_size, MAX_BLOCK_BYTES))
            frame = stored[position:end]
            result[plane::planes] = decompressor.decompress(frame, max_output_size=plane_bytes)
        except (zstandard.ZstdError, ValueError) as error:
            fail(f"the frame of plane {plane} of {planes} does not hold {plane_bytes} bytes: {error}")
        position = end
    if position != len(stored):
        fail(f"{len(stored) - position} bytes follow the last frame of a stored chunk")
    return result


def _check_parameters(parameters: zstandard.FrameParameters, plane_bytes: int) -> None:
    if parameters.content_size != plane_bytes:
        raise ValueError(f"it declares {parameters.content_size} bytes")
    if parameters.dict_id:
        raise ValueError("it names a dictionary")
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
    single_segment = descriptor >> 5 & 1
    content_size_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
    dictionary_id_bytes = (0, 1, 2, 4)[descriptor & 3]
    position = start + 5 + (not single_segment) + dictionary_id_bytes + content_size_bytes
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
