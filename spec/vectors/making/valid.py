"""Valid vectors: files, tensors, codecs, versions. Those for values are in `valid_values`."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from spec.vectors.making import frames
from spec.vectors.making.container import BITS, File, Tensor, msgpack, opaque, safetensors
from spec.vectors.making.samples import floats, pattern, tensor
from spec.vectors.making.values import Float, Map, Set, TensorName, Timestamp, Tuple, Typed, pack
from spec.vectors.making.vector import Vector, valid


def all_valid() -> Iterator[Vector]:
    """Every vector of this module."""
    yield from _files()
    yield from _tensors()
    yield from _zstd()
    yield from _limits()
    yield from _versions()


def example() -> File:
    """Return the file that section A of the spec annotates."""
    return File([safetensors("net.safetensors", [floats("bias", 0.5, -2.0)])], {"run_id": "a", "step": 300})


def _files() -> Iterator[Vector]:
    yield valid("empty", "No member and no metadata: the shortest file", "2.1 2.2 3.1 4.1 5.1 12.1", File())
    yield valid("flat", "One flat component; section A of the spec shows this file", "2.1 9.1 11.1 12.2", example())
    metadata = {
        "run_id": "run-é-1",
        "generation": 3,
        "step": 2**63 - 1,
        "epoch": 0,
        "metrics": {"val_loss": 0.25, "nan": Float(0x7FF8000000000001), "inf": float("inf"), "": -0.0},
        "created": Timestamp(1_700_000_000, 123_456_000),
        "parent": bytes(range(32)),
        "producer": "generate.py",
        "user": {
            "nothing": None,
            "yes": True,
            "number": -1,
            "float": 1.5,
            "bin": b"\0\xff",
            "list": [1, [], {}],
            "map": Map([(1, "one"), (None, "nil"), (0.5, "half"), (b"b", "bin"), (False, "no")]),
            "time": Timestamp(0),
            "": "empty key",
        },
    }
    yield valid("metadata", "Every key of metadata, and no member", "5.3 10.6", File(metadata=metadata))
    yield valid("metadata-longest-run-id", "A run_id of 256 bytes", "5.3", File(metadata={"run_id": "é" * 128}))
    yield valid("metadata-no-producer", "A producer without a name", "5.3", File(metadata={"producer": ""}))
    largest = {"generation": 2**63 - 1}
    yield valid("metadata-generation", "The largest generation, and no run", "5.3", File(metadata=largest))
    yield valid(
        "metadata-earliest", "created in the year 1", "5.3", File(metadata={"created": Timestamp(-62_135_596_800)})
    )
    latest = {"created": Timestamp(253_402_300_799, 999_999_000)}
    yield valid("metadata-latest", "created at the end of the year 9999", "5.3", File(metadata=latest))
    state = {
        "state": Map([(0, {"step": TensorName("state.0.step"), "exp_avg": TensorName("state.0.exp_avg")})]),
        "param_groups": [{"lr": 0.001, "betas": Tuple([0.9, 0.999]), "foreach": None, "params": [0]}],
    }
    training = [
        safetensors("net.safetensors", [tensor("weight", "F32", 4, 8), tensor("bias", "F32", 4, seed=9)]),
        msgpack("optimizer.msgpack", state),
        safetensors("optimizer.safetensors", [floats("state.0.step", 7.0), tensor("state.0.exp_avg", "F32", 4, 8)]),
        msgpack("scheduler.msgpack", {"last_epoch": 3, "milestones": [10, 20]}),
        msgpack("epoch.msgpack", 3),
    ]
    description = "Components as a training run has them: flat, tree with tensors, tree without, a bare number"
    yield valid("training", description, "2.1 6.3 6.4 11.1 11.2 12.2", File(training, {"step": 7, "epoch": 3}))
    members = [
        opaque("README", b"any bytes"),
        safetensors("net.safetensors", [floats("w", 1.0)]),
        opaque("net.json", b"{}"),
        opaque("net.msgpack.old", b"\xc1"),
    ]
    yield valid("opaque", "Opaque members between others, one without a dot in its name", "6.3", File(members))
    tied = {"embed": TensorName("w"), "head": TensorName("w"), "other": [TensorName("x")]}
    weights = [tensor("w", "F32", 4, 4), tensor("x", "F32", 4, 4)]
    members = [msgpack("net.msgpack", tied), safetensors("net.safetensors", weights)]
    yield valid("tied-weights", "One tensor in two places, and an equal one that is another", "11.2", File(members))
    parts = [Tuple([TensorName("w")]), {"a": Typed("my.Type", Tuple([TensorName("x")]))}]
    members = [msgpack("net.msgpack", parts), safetensors("net.safetensors", weights)]
    yield valid("references-in-tuples", "Tensors to which only tuples refer", "11.2", File(members))
    tree = [1, {"w": TensorName("w")}, opaque_text := "text"]
    members = [msgpack("_root.msgpack", tree), safetensors("_root.safetensors", [floats("w", 1.0)])]
    yield valid(
        "root",
        "A state that is not a mapping: _root, beside an opaque member",
        "11.5",
        File([*members, opaque("note", opaque_text.encode())]),
    )
    members = [safetensors("_root.safetensors", [floats("a", 1.0), floats("b", 2.0)])]
    yield valid("root-flat", "A state that is a mapping of tensors: a flat _root", "11.1 11.5", File(members))
    name = "".join(map(chr, [*range(48, 58), *range(65, 91), 95, *range(97, 123)])) + ".-"
    members = [
        opaque(name, b"1"),
        opaque("_" + "x" * 159, b"2"),
        msgpack("_private.msgpack", 4),
        opaque("shards.index", b"3"),
        opaque("B.SAFETENSORS", b"4"),
        opaque("com10", b"5"),
        opaque("auxiliary.nul", b"6"),
        opaque("y" * 148, b"7"),
        opaque("end-", b"8"),
        opaque("msgpack", b"9"),
        opaque("safetensors", b"10"),
        msgpack("A.msgpack", 1),
        msgpack("a.msgpack.msgpack", 2),
        msgpack("y" * 148 + ".msgpack", 3),
        safetensors("z" * 148 + ".safetensors", [floats("w", 1.0)]),
    ]
    description = (
        "Every legal character, 160 characters, components of 148, case, dots, names that no writer gives (6.7)"
    )
    yield valid("member-names", description, "1.2 6.1 6.2 6.3 6.7", File(members))
    page = safetensors("net.safetensors", [tensor("w", "U8", 4096)])
    tight = (
        File([page, opaque("page", bytes(4096)), opaque("last", pattern(64))], {"producer": "x" * count})
        for count in range(64)
    )
    fit = next(file for file in tight if len(pack(Map(tuple(file.index_map().items())))) % 64 == 0)
    yield valid("no-padding", "Members, index and trailer meet without padding", "2.1 2.2", fit)
    one = [tensor("a", "BF16", 8, 8), tensor("b", "F32", 3), tensor("c", "I64")]
    other = safetensors("net.safetensors", [one[1], one[2], one[0]], text_metadata={"k": "v"}, codec="zstd")
    yield valid(
        "identity-plain",
        "A component; identity-other holds an equal one",
        "12.2",
        File([safetensors("net.safetensors", one)]),
    )
    description = "The component of identity-plain in another place, order and codec, with text metadata: same identity"
    yield valid("identity-other", description, "12.2", File([opaque("x", b"x"), other]))
    two_names = {"b": TensorName("b"), "a": TensorName("a")}
    two = [floats("b", 1.0), floats("a", 2.0)]
    members = [msgpack("net.msgpack", two_names), safetensors("net.safetensors", two)]
    names = ["\U00010000", "\ufffd", *("n" * count for count in (31, 32, 255, 256, 65_536)), *"abcdefghij"]
    sizes = [
        (1,) * 15,
        (1,) * 16,
        (1, 127),
        (1, 128),
        (255,),
        (256,),
        (65_535,),
        (65_536, 0),
        (2**32 - 1, 0),
        (2**32, 0),
    ]
    shapes = [*sizes, *[()] * (len(names) - len(sizes))]
    many = [Tensor(name, "U8", shape, bytes(math.prod(shape))) for name, shape in zip(names, shapes, strict=True)]
    made = safetensors("net.safetensors", many, codec="zstd")
    description = "Names and numbers of every length in an identity; names that UTF-16 sorts in another order"
    yield valid("identity-lengths", description, "12.2", File([made]))
    description = "A tree whose tensors are not in the order of their names; a writer has to store it flat (11.3)"
    yield valid("identity-tree", description, "1.2 11.3 12.2", File(members))


def _tensors() -> Iterator[Vector]:
    def flat(name: str, description: str, clauses: str, tensors: Sequence[Tensor], **options: Any) -> Vector:
        return valid(name, description, clauses, File([safetensors("net.safetensors", tensors, **options)]))

    whole = [dtype for dtype, bits in BITS.items() if bits % 8 == 0]
    every = [tensor(dtype, dtype, 4, 2, seed=number) for number, dtype in enumerate(whole)]
    yield flat("dtypes", "A tensor of every dtype of whole bytes", "9.2 9.4", every)
    yield flat("bool-bytes", "True as bytes other than 1", "9.8", [Tensor("w", "BOOL", [5], b"\x00\x01\x02\x80\xff")])
    packed = [tensor("F4", "F4", 2, 3), tensor("F6_E2M3", "F6_E2M3", 4), tensor("F6_E3M2", "F6_E3M2", 4, 3)]
    packed.append(Tensor("largest", "F4", [0, 2**63 - 1], b""))
    yield flat("dtypes-packed", "Tensors of the dtypes that share bytes", "9.2 9.4", packed)
    yield flat("dtypes-packed-zstd", "The same, compressed", "8.3", packed, codec="zstd")
    sizes = [tensor("12", "F32", 3), tensor("64", "F32", 16), tensor("0", "F32", 0), tensor("128", "U8", 128)]
    sizes += [tensor("1", "U8"), tensor("63", "U8", 63), tensor("192", "I64", 3, 8), tensor("4096", "F32", 32, 32)]
    sizes += [tensor("6144", "BF16", 3, 1024), tensor("8192", "F64", 1024), tensor("4095", "U8", 4095)]
    description = "Multiples of 4096 bytes stand first, then those of 64, each in the component's order"
    yield flat("order", description, "9.4", sizes)
    shapes = [tensor("scalar", "F64"), tensor("none", "F32", 0), tensor("3x0x2", "I64", 3, 0, 2)]
    shapes += [tensor("64 dimensions", "U8", *[1] * 64)]
    yield flat("shapes", "0-dimensional and empty tensors, 64 dimensions, the largest dimension", "9.2 9.4", shapes)
    huge = [Tensor("w", "F64", [2**31, 0, 2**31], b""), Tensor("v", "U8", [0, 2**63 - 1], b"")]
    yield flat("shapes-huge-but-empty", "Empty tensors with dimensions up to the limit", "9.2 9.4", huge)
    yield flat("only-empty", "A single tensor without data", "7.1 9.4 9.7", [tensor("none", "F32", 0)])
    names = ["", '"', "\\", "\b\t\n\f\r", "\0\x01\x1f", "\x7f", "/", "é", "\u2028\u2029", "\U0001f600", "\ufffe", "#2"]
    names += ["a.b", " ", "dtype", "__metadata__2", "n" * 300]
    yield flat(
        "header-strings",
        "Names that need every escape of 9.3, and that must not be escaped",
        "9.3",
        [floats(name, 1.0) for name in names],
    )
    text = {"format": "pt", "": "empty", "quotes": '"\\\n', "é": "\U0001f600", "dtype": "F32"}
    yield flat("text-metadata", "Text metadata", "9.2", [floats("w", 1.0)], text_metadata=text)
    for missing, what in ((0, "fills its block to the last byte"), (-1, "is a byte too long for one page")):
        longer = 4088 - missing - len(safetensors("", [floats("", 1.0)]).entry["header"])
        name = "header-full" if missing == 0 else "header-two-pages"
        yield flat(name, f"The header {what}", "9.1", [floats("n" * longer, 1.0)])
    long = {"": "x" * (4 << 20)}
    description = "A header block of two chunks"
    yield flat("header-two-chunks", description, "7.1 9.1 9.5", [floats("w", 1.0)], text_metadata=long)
    short = b"two chunks. "
    nbytes = (4 << 20) + len(short) - (4 << 20) % len(short)
    big = Tensor("w", "U8", [nbytes], short * (nbytes // len(short)))
    yield flat(
        "two-chunks", "A tensor just longer than a chunk, and one behind it", "7.1 7.2", [tensor("after", "U8", 5), big]
    )


def _zstd() -> Iterator[Vector]:
    def one(name: str, description: str, clauses: str, stored: bytes, data: bytes) -> Vector:
        weights = Tensor("w", "U8", [len(data)], data)
        encode = lambda chunk, *split: stored if chunk == data else frames.planes(chunk, *split)  # noqa: E731  # short
        made = safetensors("net.safetensors", [weights], codec="zstd", encode=encode)
        return valid(name, description, clauses, File([made]))

    text = frames.PANGRAM
    yield one("zstd-raw", "A frame of one raw block", "8.2 8.4", frames.raw(text), text)
    yield one("zstd-rle", "A frame of one RLE block", "8.2 8.4", frames.rle(7, 500), bytes([7]) * 500)
    yield one("zstd-compressed", "A frame with a compressed block", "8.2 8.4", frames.COMPRESSED_PANGRAM, text)
    blocks = (
        frames.block(frames.RAW, 100, text[:100], last=False)
        + frames.block(frames.RLE, 50, b"!", last=False)
        + frames.block(frames.RAW, 0, b"", last=False)
        + frames.block(frames.RAW, 92, text[100:])
        + b""
    )
    mixed = text[:100] + b"!" * 50 + text[100:]
    yield one("zstd-blocks", "Raw, RLE and empty blocks in one frame", "8.2 8.4", frames.header(242) + blocks, mixed)
    empty_last = (
        frames.header(100) + frames.block(frames.RAW, 100, text[:100], last=False) + frames.block(frames.RAW, 0, b"")
    )
    yield one("zstd-empty-last-block", "The last block of the frame is empty", "8.2", empty_last, text[:100])
    for width in (4, 8):
        stored = frames.header(192, width=width) + frames.block(frames.RAW, 192, text)
        yield one(f"zstd-content-size-{width}", f"The content size in {width} bytes", "8.4", stored, text)
    stored = frames.header(192, flags=16) + frames.block(frames.RAW, 192, text)
    yield one(
        "zstd-unused-bit", "The unused bit of the frame header is set, which RFC 8878 lets pass", "8.4", stored, text
    )
    most = frames.header(1024, window=0) + frames.repeated(b"A", 1024)
    yield one("zstd-longest-block", "A compressed block of as much content as the window", "8.4", most, b"A" * 1024)
    stored = frames.header(192, window=13 << 3) + frames.block(frames.RAW, 192, text)
    yield one("zstd-window", "A frame with the largest window, 8 MiB", "8.4", stored, text)
    slack = (
        frames.header(192) + frames.block(frames.RAW, 0, b"", last=False) * 336 + frames.block(frames.RAW, 192, text)
    )
    padded = slack[:4] + frames.header(192, width=8)[4:] + slack[len(frames.header(192)) :]
    assert len(padded) == 192 + 1024
    yield one("zstd-longest-chunk", "A stored chunk 1024 bytes longer than the logical one", "7.3", padded, text)
    stored = frames.header(192, flags=4) + frames.block(frames.RAW, 192, text) + frames.PANGRAM_CHECKSUM
    yield one("zstd-checksum", "A frame with a checksum of its content", "8.4", stored, text)
    for count, checksum in frames.CHECKSUMS.items():
        start = text[:count]
        stored = frames.header(count, flags=4) + frames.block(frames.RAW, count, start) + bytes.fromhex(checksum)
        yield one(f"zstd-checksum-{count}", f"A checksum of {count} bytes of content", "8.4", stored, start)
    (low, low_frame), (high, high_frame) = frames.COMPRESSED_PLANES
    pairs = bytes(byte for pair in zip(low, high, strict=True) for byte in pair)
    made = safetensors(
        "net.safetensors",
        [Tensor("w", "U16", [400], pairs)],
        codec="zstd",
        encode=lambda chunk, *split: low_frame + high_frame if chunk == pairs else frames.planes(chunk, *split),
    )
    description = "Two planes of two compressed blocks each, one with a checksum"
    yield valid("zstd-compressed-planes", description, "8.2 8.3 8.4", File([made]))
    counts = [tensor("1", "U8", 300), tensor("2", "BF16", 150), tensor("4", "F32", 75), tensor("4 of 8", "C64", 40)]
    counts += [tensor("8", "F64", 40), tensor("zeros", "I64", 0)]
    counts += [Tensor("equal", "F32", [64], struct.pack("<64f", *[1.0] * 64))]
    tree = {tensor.name: TensorName(tensor.name) for tensor in counts}
    members = [
        msgpack("net.msgpack", tree, codec="zstd"),
        safetensors("net.safetensors", counts, codec="zstd"),
        opaque("log", b"text " * 100, codec="zstd"),
        safetensors("plain.safetensors", counts[:2]),
    ]
    description = "Plane counts 1, 2, 4, 8; compressed msgpack and opaque members; net is no writer's work (11.3)"
    yield valid("zstd-planes", description, "1.2 8.2 8.3 12.2", File(members))
    every = [tensor(dtype, dtype, 4, 8, seed=number) for number, dtype in enumerate(BITS)]
    made = safetensors("net.safetensors", every, codec="zstd")
    yield valid("zstd-dtypes", "A tensor of every dtype, compressed", "8.2 8.3", File([made]))
    zeros = Tensor("zeros", "F32", [(4 << 18) + 3], bytes((4 << 20) + 12))
    made = safetensors("net.safetensors", [zeros], codec="zstd")
    yield valid("zstd-two-chunks", "Two chunks of zeros in RLE blocks: a small file", "7.1 7.3 8.2", File([made]))


def _limits() -> Iterator[Vector]:
    members = [opaque(f"m{number}", b"1") for number in range(4096)]
    yield valid("limit-members", "4,096 members, as many as there may be", "13.1", File(members))
    keys = [
        {"a": None},
        {b"a": None},
        [Map([(0, None)])] * 131_064,
        Set([None, True, 2, 0.5]),
        Map([(number, None) for number in range(4)]),
    ]
    description = (
        "131,072 keys and set elements that are neither str nor bin, as many as there may be, and two that are"
    )
    yield valid("limit-keys", description, "13.1", File([msgpack("tree.msgpack", keys)]))


def _versions() -> Iterator[Vector]:
    made = File([safetensors("net.safetensors", [floats("w", 1.0)]), msgpack("epoch.msgpack", 1)], {"step": 1}, minor=7)
    entries = [
        {"new": 1, **entry, "newer": [2]}
        if number
        else dict([*list(entry.items())[:3], ("new", {}), *list(entry.items())[3:]])
        for number, entry in enumerate(made.entries())
    ]
    metadata = {"aaa": None, "step": 1, "zzz": Timestamp(1)}
    index = Map(
        [
            ("first", 1),
            ("required_features", []),
            (5, 6),
            ("metadata", metadata),
            (None, None),
            ("members", entries),
            ("last", []),
        ]
    )
    newer = File(made.members, made.metadata, minor=7, index=pack(index))
    description = "A newer minor with keys that are not known, at every place where there may be some"
    yield valid("newer-minor", description, "3.4 16.1", newer)
    unknown = File(minor=1).with_index(zzz=1)
    yield valid("newer-minor-1", "The first newer minor, with a key that is not known", "3.4 16.1", unknown)
    yield valid("newer-minor-largest", "The largest minor, and nothing else new", "3.4", File(minor=65535))
