"""Invalid vectors for sections 6 and 7: names and sizes of members, their order, chunks and digests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from spec.vectors.making import frames
from spec.vectors.making.container import File, Segment, digest, digests, flipped, member, msgpack, opaque, safetensors
from spec.vectors.making.samples import floats, pattern
from spec.vectors.making.values import TensorName
from spec.vectors.making.vector import Vector, invalid

ONE = opaque("one", b"1")
NET = safetensors("net.safetensors", [floats("w", 1.0, 2.0)])
ZIP = opaque("log", b"text " * 20, codec="zstd")


def all_members() -> Iterator[Vector]:
    """Every vector of this module."""
    yield from _names()
    yield from _components()
    yield from _sizes()
    yield from _digests()


def _names() -> Iterator[Vector]:
    names = {
        "empty": "",
        "161-bytes": "x" * 161,
        "parent-directory": "../x",
        "slash": "a/b",
        "backslash": "a\\b",
        "absolute": "/etc/passwd",
        "drive": "C:x",
        "dot-first": ".hidden",
        "dots": "..",
        "hyphen-first": "-rf",
        "space": "a b",
        "letter-not-ascii": "é",
        "nul": "a\0b",
        "line-end": "a\n",
        "comma": "a,b",
        "at": "a@b",
        "bracket": "a[b",
        "caret": "a^b",
        "backtick": "a`b",
        "brace": "a{b",
        "dot-last": "a.",
        "dot-alone": ".",
        "device": "nul",
        "device-extension": "AUX.tar.gz",
        "device-number-0": "com0",
        "device-number-9": "Lpt9.txt",
    }
    for slug, name in names.items():
        yield invalid(f"6.1-{slug}", f"A member named {name[:20]!a}", "member-name", [opaque(name, b"1")], member=name)
    for extension in ("safetensors", "msgpack"):
        made = replace(NET, name=f".{extension}") if extension == "safetensors" else msgpack(".msgpack", 1)
        made = made.edited(name=f".{extension}")
        description = f"A member of a component without a name: .{extension}"
        yield invalid(f"6.3-{extension}", description, "member-name", [made], clauses="6.1", member=f".{extension}")
    description = "A component with a name of 149 bytes; the member's name has 157"
    name = "x" * 149 + ".msgpack"
    yield invalid("6.3-149-bytes", description, "member-name", [msgpack(name, 1)], member=name)
    yield invalid("6.2-duplicate", "Two members of one name", "member-duplicate", [ONE, ONE], member="one")
    apart = [ONE, opaque("two", b"2"), ONE]
    yield invalid(
        "6.2-duplicate-apart", "Two members of one name, with another between", "member-duplicate", apart, member="one"
    )
    for slug, name in (("component", "con.msgpack"), ("weights", "prn.safetensors")):
        made = replace(NET, name=name).edited(name=name) if slug == "weights" else msgpack(name, 1)
        description = f"A component with the name of a device: {name}"
        yield invalid(f"6.1-device-{slug}", description, "member-name", [made], member=name)
    twice = [ONE, opaque("One", b"2")]
    yield invalid("6.2-case", "Two members whose names differ in case only", "member-duplicate", twice, member="One")
    twice = [opaque("One", b"2"), ONE]
    yield invalid("6.2-case-lower", "The same the other way round", "member-duplicate", twice, member="one")
    lower = [msgpack("net.msgpack", 1), replace(NET, name="Net.safetensors").edited(name="Net.safetensors")]
    description = "Two components whose names differ in case only, that in lower case first"
    yield invalid("6.2-case-components-lower", description, "member-duplicate", lower, member="Net.safetensors")
    suffixes = [opaque("a.MSGPACK", b"1"), msgpack("a.msgpack", 1)]
    description = "An opaque member and a msgpack member whose names differ in case only"
    yield invalid("6.2-case-suffix", description, "member-duplicate", suffixes, member="a.msgpack")
    pair = [msgpack("Net.msgpack", 1), NET]
    description = "Two components whose names differ in case only; those of the members differ otherwise, too"
    yield invalid("6.2-case-components", description, "member-duplicate", pair, member="net.safetensors")


def _components() -> Iterator[Vector]:
    tree = msgpack("net.msgpack", TensorName("w"))
    other = msgpack("other.msgpack", 1)
    problem = "component-members"
    yield invalid("6.4-weights-first", "The safetensors member before the msgpack member", problem, [NET, tree])
    yield invalid("6.4-apart", "Another component between the two members", problem, [tree, other, NET])
    yield invalid("6.4-opaque-between", "An opaque member between the two members", problem, [tree, ONE, NET])
    first = opaque("first", b"1")
    description = "An opaque member between the two members, of a name that sorts before theirs"
    yield invalid("6.4-first-between", description, problem, [tree, first, NET])
    root = msgpack("_root.msgpack", [1])
    yield invalid("11.5-root-and-other", "_root and another component", problem, [root, other])
    yield invalid("11.5-other-and-root", "Another component and _root", problem, [other, root])


def _sizes() -> Iterator[Vector]:
    problem = "member-bytes"
    empty = opaque("one", b"")
    yield invalid("6.6-empty", "A member without bytes", problem, [empty], member="one")
    yield invalid(
        "6.6-empty-zstd", "A compressed member without bytes", problem, [opaque("one", b"", codec="zstd")], member="one"
    )
    for number, what in ((2, "larger"), (0, "0"), (1 << 60, "2-60"), ((1 << 63) - 1, "largest")):
        made = ONE.edited(logical_bytes=number)
        description = f"logical_bytes is {number} for codec none, stored_bytes is 1"
        yield invalid(f"6.6-logical-{what}", description, problem, [made], also="digest-count", member="one")
    short = opaque("one", b"12").edited(logical_bytes=1, digests=digest(b"1"))
    description = "logical_bytes is 1 for codec none, with the digest of one byte, and stored_bytes is 2"
    yield invalid("6.6-logical-smaller", description, problem, [short], member="one")
    made = ZIP.edited(logical_bytes=1 << 60)
    description = "logical_bytes is 2^60 for codec zstd, with one digest"
    yield invalid(
        "7.1-logical-2-60", description, "digest-count", [made], also="stored-chunks zstd-frame", member="log"
    )
    huge = msgpack("t.msgpack", 1, codec="zstd").edited(logical_bytes=1 << 60)
    description = "A msgpack member of 2^60 logical bytes"
    yield invalid("13.1-msgpack-2-60", description, "limit-msgpack", [huge], also="digest-count", member="t.msgpack")
    size = (256 << 20) + 1
    chunks = [b"\xc6" + (size - 5).to_bytes(4, "big") + bytes((4 << 20) - 5), *[bytes(4 << 20)] * 63, b"\0"]
    logical = b"".join(chunks)
    made = member("t.msgpack", [Segment(logical)], codec="zstd", encode=zeros_behind)
    description = "A msgpack member one byte beyond 256 MiB: a bin of zeros, in RLE blocks"
    yield invalid("13.1-msgpack-257-mib", description, "limit-msgpack", [made], member="t.msgpack")
    members = [opaque(f"m{number}", b"1") for number in range(4097)]
    yield invalid("13.1-4097-members", "4097 members", "limit-members", members)


def zeros_behind(chunk: bytes, *_: int) -> bytes:
    """Compress a chunk of zeros that may begin with something else: a raw block, and RLE blocks."""
    first = chunk[:5]
    if not any(first):
        return frames.plane(chunk)
    rest = frames.rle(0, len(chunk) - 5)
    blocks = rest[len(frames.header(len(chunk) - 5)) :]
    return frames.header(len(chunk)) + frames.block(frames.RAW, 5, first, last=False) + blocks


def _digests() -> Iterator[Vector]:
    count, own = "digest-count", ONE.entry["digests"]
    net = NET.entry["digests"]
    yield invalid("7.1-none", "No digest", count, [ONE.edited(digests=b"")], member="one")
    yield invalid("7.1-one-more", "A digest too many", count, [ONE.edited(digests=own * 2)], member="one")
    yield invalid("7.1-half", "Half a digest too many", count, [ONE.edited(digests=own + own[:16])], member="one")
    yield invalid(
        "7.1-one-less", "No digest for the tensor", count, [NET.edited(digests=net[:32])], member="net.safetensors"
    )
    whole = NET.edited(digests=digests(NET.stored))
    yield invalid(
        "7.1-one-segment", "One digest for header and tensor together", count, [whole], member="net.safetensors"
    )
    weights = [floats("a", *[1.0] * 16), floats("b", *[2.0] * 16)]
    two = safetensors("net.safetensors", weights)
    joined = two.edited(digests=digest(two.stored[:4096]) + digest(two.stored[4096:]))
    yield invalid(
        "7.1-tensors-joined", "One digest for two tensors together", count, [joined], member="net.safetensors"
    )
    changed, where = "chunk-digest", {"member": "net.safetensors"}
    data = File([two]).encode()
    yield invalid(
        "7.2-first-tensor",
        "A bit of the first tensor is flipped",
        changed,
        flipped(data, 8192),
        tensor="a",
        clauses="14.4",
        **where,
    )
    yield invalid(
        "7.2-second-tensor",
        "A bit of the second tensor is flipped",
        changed,
        flipped(data, 8192 + 64),
        tensor="b",
        clauses="14.4",
        **where,
    )
    yield invalid(
        "7.2-header-length", "A bit of the member's header length is flipped", changed, flipped(data, 4096), **where
    )
    yield invalid(
        "7.2-header-text", "A bit of the member's header text is flipped", changed, flipped(data, 4110), **where
    )
    yield invalid(
        "7.2-header-space", "A bit behind the member's header text is flipped", changed, flipped(data, 8191), **where
    )
    members = [opaque("log", pattern(300)), msgpack("t.msgpack", "text")]
    data = File(members).encode()
    yield invalid(
        "7.2-opaque", "A bit of an opaque member is flipped", changed, flipped(data, 4096 + 200), member="log"
    )
    yield invalid(
        "7.2-msgpack", "A bit of a msgpack member is flipped", changed, flipped(data, 8194), member="t.msgpack"
    )
    yield invalid(
        "7.2-zero",
        "A digest of zeros is no way to leave it out",
        changed,
        [ONE.edited(digests=bytes(32))],
        member="one",
    )
    first, second = (digest(item.data) for item in weights)
    swapped = two.edited(digests=two.entry["digests"][:32] + second + first)
    yield invalid("7.2-swapped", "The digests of two tensors are swapped", changed, [swapped], tensor="a", **where)
    problem, good = "stored-chunks", len(ZIP.stored)
    lists: dict[str, list[int]] = {
        "none": [],
        "one-more": [good - 1, 1],
        "sum-small": [good - 1],
        "sum-large": [good + 1],
        "2-60": [1 << 60],
        "largest": [(1 << 63) - 1],
    }
    for slug, sizes in lists.items():
        made = ZIP.edited(stored_chunk_bytes=sizes)
        yield invalid(
            f"7.3-{slug}", f"stored_chunk_bytes is {sizes}, {good} bytes are stored", problem, [made], member="log"
        )
    pair = safetensors("net.safetensors", weights, codec="zstd")
    sizes = pair.entry["stored_chunk_bytes"]
    made = pair.edited(stored_chunk_bytes=[sizes[0], 0, sizes[1] + sizes[2]])
    yield invalid(
        "7.3-zero", "A stored chunk without bytes; the sum is right", problem, [made], also="zstd-frame", **where
    )
    made = pair.edited(stored_chunk_bytes=[sum(sizes)])
    yield invalid("7.3-one-less", "One stored chunk for three; the sum is right", problem, [made], **where)
    text = b"text " * 20
    start = frames.header(100, width=8, window=0)
    slack = start + frames.block(frames.RAW, 0, b"", last=False) * 336 + frames.block(frames.RAW, 100, text)
    assert len(slack) == 100 + 1025
    made = opaque("log", text, codec="zstd", encode=lambda *_: slack)
    description = "A stored chunk 1025 bytes longer than the logical one, with empty blocks"
    yield invalid("7.3-too-long", description, problem, [made], member="log")
    stored = ZIP.entry["stored_digests"]
    for slug, value in (
        ("no-stored-digests", b""),
        ("stored-digests-one-more", stored * 2),
        ("half-a-digest", stored[:16]),
    ):
        made = ZIP.edited(stored_digests=value)
        yield invalid(
            f"7.3-{slug}", f"{len(value)} bytes of stored digests for one chunk", problem, [made], member="log"
        )
    data = File([ZIP]).encode()
    changed = "stored-digest"
    yield invalid("7.4-flipped", "A bit of a stored chunk is flipped", changed, flipped(data, 4096 + 20), member="log")
    description = "The magic number of a frame is damaged: nothing is decoded before its digest is right"
    yield invalid("7.4-frame-magic", description, changed, flipped(data, 4096), member="log")
    wrong = ZIP.edited(stored_digests=bytes(32))
    yield invalid("7.4-zero", "A stored digest of zeros", changed, [wrong], member="log")
    logical = ZIP.edited(stored_digests=ZIP.entry["digests"])
    yield invalid("7.4-logical", "The stored digest is that of the logical bytes", changed, [logical], member="log")
    raw = safetensors(
        "net.safetensors",
        weights,
        codec="zstd",
        encode=lambda chunk, *split: frames.raw(chunk) if split[0] == 1 else frames.planes(chunk, *split),
    )
    data = File([raw]).encode()
    last = File([raw]).places()[0] + len(raw.stored) - 1
    yield invalid(
        "7.4-tensor",
        "A bit of a stored tensor is flipped",
        changed,
        flipped(data, last),
        tensor="b",
        clauses="14.4",
        **where,
    )
    other = opaque("log", text, codec="zstd", encode=lambda *_: frames.raw(b"TEXT " * 20))
    yield invalid("7.2-zstd", "A sound frame with other content", "chunk-digest", [other], member="log")
