"""The worked examples of the spec's annex A: a chunk of codec zstd, and the value of a msgpack member."""

from __future__ import annotations

import struct

from spec.vectors.making import frames
from spec.vectors.making.annotate import Part, annotated_value, dumped
from spec.vectors.making.container import EXPONENT_BITS, PLANES
from spec.vectors.making.values import TensorName, Tuple, Typed

FLOATS = (0.5, -2.0)
TREE = {
    "lr": 0.1,
    "betas": Tuple([0.9, 0.999]),
    "exp_avg": TensorName("exp_avg"),
    "device": Typed("torch.device", "cuda:0"),
}


def chunk() -> tuple[bytes, bytes]:
    """Return the logical and the stored bytes of the chunk of annex A.2, which is one of dtype F32."""
    data = struct.pack(f"<{len(FLOATS)}f", *FLOATS)
    return data, frames.planes(data, PLANES["F32"], EXPONENT_BITS["F32"])


def zstd_dump() -> str:
    """Return how the chunk is stored, step by step."""
    data, stored = chunk()
    moved = frames.sign_down(data, PLANES["F32"], EXPONENT_BITS["F32"])
    numbers = struct.unpack(f"<{len(FLOATS)}I", data), struct.unpack(f"<{len(FLOATS)}I", moved)
    steps = [
        ("elements", ", ".join(map(str, FLOATS))),
        ("their bits", ", ".join(f"0x{number:08x}" for number in numbers[0])),
        ("rotated left by one (8.3)", ", ".join(f"0x{number:08x}" for number in numbers[1])),
        ("little-endian", moved.hex(" ")),
    ]
    parts = []
    for plane in range(PLANES["F32"]):
        content = moved[plane :: PLANES["F32"]]
        frame = frames.plane(content)
        kind, body = ("RLE", content[:1]) if len(set(content)) == 1 else ("raw", content)
        parts += [
            Part(frame[:4], f"plane {plane} ({content.hex(' ')}): magic of the frame"),
            Part(frame[4:5], "  descriptor: single segment, content size in 1 byte"),
            Part(frame[5:6], f"  content size: {len(content)}"),
            Part(frame[6:9], f"  header of the block: the last one, {kind}, {len(content)} bytes"),
            Part(body, f"  {'the byte that is repeated' if kind == 'RLE' else 'the bytes'}"),
        ]
    assert b"".join(part.data for part in parts) == stored
    return "\n".join([*(f"{name + ':':27}{what}" for name, what in steps), "", dumped(parts)])


def tree_dump() -> str:
    """Return the annotated bytes of the tree."""
    return annotated_value(TREE)
