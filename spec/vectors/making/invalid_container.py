"""Invalid vectors for sections 2, 3 and 4, and for what section 13 says of the container: layout, preamble, trailer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from spec.vectors.making.container import (
    File,
    align,
    digest,
    flipped,
    opaque,
    patched,
    resealed,
    safetensors,
    seal,
)
from spec.vectors.making.samples import floats
from spec.vectors.making.values import pack_map
from spec.vectors.making.vector import Vector, invalid

NET = safetensors("net.safetensors", [floats("w", 1.0, 2.0)])
ONE = opaque("one", b"1")
TWO = opaque("two", b"2")


def all_container() -> Iterator[Vector]:
    """Every vector of this module."""
    yield from _layout()
    yield from _padding()
    yield from _preamble()
    yield from _ends()
    yield from _trailer()


def _layout() -> Iterator[Vector]:
    def placed(slug: str, description: str, *places: int, member: str = "two") -> Vector:
        members = [opaque(name, b"aaa") for name in ("one", "two")]
        for item, place in zip(members, places, strict=True):
            item.place = place
        return invalid(slug, description, "member-offset", members, member=member)

    yield placed("2.1-first-member-late", "A free page before the first member", 8192, 12288, member="one")
    yield placed("2.1-first-member-early", "The first member starts behind the preamble", 64, 4096, member="one")
    yield placed("2.1-gap", "A free page between two members", 4096, 12288)
    yield placed("2.1-unaligned", "The second member does not start at a multiple of 4096", 4096, 4160)
    yield placed("2.1-overlap-unaligned", "The second member starts inside the first", 4096, 4097)
    same = [opaque("one", b"same"), opaque("two", b"same")]
    same[1].place = 4096
    yield invalid("2.1-overlap", "Two members share their bytes", "member-offset", same, member="two")
    swapped = File([ONE, TWO])
    index = swapped.with_index(members=swapped.entries()[::-1])
    yield invalid(
        "2.1-members-swapped", "The index has the members in another order", "member-offset", index, member="two"
    )
    for power in (60, 62):
        item = ONE.edited(offset=1 << power)
        description = f"A member at offset 2^{power}"
        yield invalid(f"2.1-offset-2-{power}", description, "member-offset", [item], member="one")
    yield invalid("2.1-index-late", "64 free bytes before the index", "index-bounds", File([ONE], index_offset=4224))
    yield invalid("2.1-index-late-alone", "No member, and the index not at 64", "index-bounds", File(index_offset=128))
    early = File([opaque("one", bytes(100))])
    data = seal(early.body()[:4160], pack_map(early.index_map()))
    yield invalid(
        "2.1-index-early", "The index starts inside the last member", "index-bounds", data, also="chunk-digest"
    )
    long = ONE.edited(stored_bytes=1 << 60, logical_bytes=1 << 60)
    description = "A member of 2^60 bytes in a small file"
    yield invalid("2.1-stored-2-60", description, "index-bounds", [long], also="member-bytes digest-count")
    long = long.edited(stored_bytes=(1 << 63) - 1, logical_bytes=(1 << 63) - 1)
    description = "A member of 2^63 - 1 bytes: its end is beyond 2^63"
    yield invalid("2.1-stored-largest", description, "index-bounds", [long], also="member-bytes digest-count")


def _padding() -> Iterator[Vector]:
    data = File([ONE, TWO]).encode()
    places = {
        "before-member": (64, "directly behind the preamble"),
        "end-of-page": (4095, "directly before the first member"),
        "between-members": (4097, "behind the first member"),
        "before-index": (8194, "behind the last member"),
        "before-trailer": (len(data) - 65, "directly before the trailer"),
    }
    for slug, (offset, where) in places.items():
        yield invalid(
            f"2.2-{slug}", f"A padding byte that is not zero, {where}", "padding", patched(data, offset, b"\x01")
        )


def _preamble() -> Iterator[Vector]:
    data = File([ONE]).encode()
    yield invalid("3.1-high-bit-stripped", "The first byte without its eighth bit", "magic", patched(data, 0, b"\x09"))
    translated = data.replace(b"\r\n", b"\n")
    yield invalid("3.1-line-ends-translated", "CR LF has become LF", "magic", translated)
    yield invalid("3.1-other-format", "A plain safetensors file", "magic", NET.stored)
    yield invalid("3.1-last-byte", "The last byte of the magic is wrong", "magic", resealed(flipped(data, 11)))
    yield invalid("3.1-short-text", "A short file of another kind", "magic", b"hello\n")
    for major in (0, 2, 65535):
        file = File([ONE], major=major)
        yield invalid(f"3.2-major-{major}", f"Major version {major}", "major-version", file, clauses="4.5")
    big_endian = resealed(patched(data, 12, b"\0\x01"))
    yield invalid("3.2-big-endian", "The version in the wrong byte order", "major-version", big_endian)
    for offset in (0, 47):
        reserved = patched(bytes(48), offset, b"\x01")
        description = f"Reserved byte {16 + offset} is not zero"
        yield invalid(f"3.3-reserved-{16 + offset}", description, "preamble-reserved", File([ONE], reserved=reserved))


def _ends() -> Iterator[Vector]:
    data = File([NET, ONE], {"step": 1}).encode()
    shortest = File().encode()
    for length, what in (
        (0, "Nothing"),
        (1, "One byte"),
        (5, "Five bytes of the magic"),
        (64, "A preamble"),
        (191, "191 bytes"),
    ):
        yield invalid(f"4.1-{length}-bytes", f"{what}: too short", "too-short", shortest[:length])
    no_trailer = "trailer-magic"
    yield invalid("4.2-last-byte-missing", "The last byte is missing", no_trailer, data[:-1], clauses="14.1")
    yield invalid("4.2-trailer-missing", "The trailer is missing", no_trailer, data[:-64])
    yield invalid("4.2-half", "The second half is missing", no_trailer, data[: len(data) // 2])
    yield invalid(
        "4.2-no-data",
        "The end is zeros: its bytes never reached the disk",
        no_trailer,
        data[:4096].ljust(len(data), b"\0"),
    )
    yield invalid("4.2-bytes-behind", "64 zero bytes behind the trailer", no_trailer, data + bytes(64))
    yield invalid("4.2-flipped", "A bit of the trailer's magic is flipped", no_trailer, flipped(data, len(data) - 1))
    yield invalid("4.3-page-lost", "A page in the middle is missing", "file-bytes", data[:4096] + data[8192:])
    yield invalid(
        "4.3-page-too-many", "A page of zeros too many", "file-bytes", data[:4096] + bytes(4096) + data[4096:]
    )
    yield invalid("4.3-twice", "The file twice, one behind the other", "file-bytes", data + data)
    for number, what in ((1 << 60, "2-60"), (1 << 63, "2-63"), ((1 << 64) - 1, "2-64-1"), (0, "0")):
        wrong = File([ONE]).encode(file_bytes=number)
        yield invalid(f"4.3-file-bytes-{what}", f"file_bytes is {number}", "file-bytes", wrong)


def _trailer() -> Iterator[Vector]:
    file, bounds = File([ONE]), "index-bounds"
    index = pack_map(file.index_map())
    offset = len(file.body())
    yield invalid("4.4-no-index", "index_bytes is 0", bounds, seal(file.body(), b"", index_bytes=0))
    yield invalid("4.4-offset-unaligned", "index_offset is no multiple of 64", bounds, _unaligned(file.body(), index))
    low = patched(seal(file.preamble(), bytes(64)), -64, struct.pack("<QQ", 0, 128))
    yield invalid("4.4-offset-0", "The index begins at 0, with the preamble", bounds, resealed(low))
    gap = seal(file.body(), index, padding=bytes(64 + -len(index) % 64))
    yield invalid("4.4-gap-before-trailer", "64 free bytes between index and trailer", bounds, gap)
    for number, what in (
        (1 << 60, "2-60"),
        ((1 << 63) - 64, "2-63-64"),
        (1 << 63, "2-63"),
        ((1 << 64) - 64, "2-64-64"),
    ):
        far = file.encode(index_offset=number)
        yield invalid(f"4.4-offset-{what}", f"index_offset is {number}", bounds, far)
    wraps = file.encode(index_offset=(1 << 64) - 64, index_bytes=offset + len(index) + 64)
    yield invalid("4.4-sum-wraps", "index_offset + index_bytes is right modulo 2^64", bounds, wraps)
    yield invalid(
        "4.4-index-in-trailer",
        "The index reaches into the trailer",
        bounds,
        file.encode(index_bytes=align(len(index), 64) + 1),
    )
    data = file.encode()
    changed = "index-digest"
    yield invalid("4.5-digest", "A bit of the digest is flipped", changed, flipped(data, len(data) - 40))
    yield invalid("4.5-digest-zero", "The digest is zero", changed, patched(data, -40, bytes(32)))
    yield invalid("4.5-preamble", "A bit of a reserved byte is flipped", changed, flipped(data, 20))
    yield invalid(
        "4.5-major", "A bit of the version is flipped: damage, not another version", changed, flipped(data, 12)
    )
    yield invalid("4.5-index", "A bit of the index is flipped", changed, flipped(data, offset + 30))
    shorter = patched(data, -56, struct.pack("<Q", len(index) - 1))
    yield invalid("4.5-index-bytes", "index_bytes is one less than it was", changed, shorter)
    only_index = patched(data, -40, digest(index))
    yield invalid("4.5-digest-of-index-alone", "The digest is one of the index alone", changed, only_index)
    for number, what in (((256 << 20) + 1, "256-mib"), (1 << 60, "2-60"), (1 << 63, "2-63"), ((1 << 64) - 1, "2-64-1")):
        big = file.encode(index_bytes=number)
        description = f"index_bytes is {number}"
        yield invalid(f"13.1-index-bytes-{what}", description, "limit-index", big, clauses="4.4 18.1")
    for slug, description, problem, twice in _two_faults(file, data):
        yield invalid(f"18.1-{slug}", description, problem, twice)


def _two_faults(file: File, data: bytes) -> Iterator[tuple[str, str, str, bytes]]:
    """Yield files with two faults, each with the code of the one that a reader names (18.1)."""
    no_end = flipped(data, len(data) - 1)
    yield "magic-first", "Both magics are wrong", "magic", flipped(no_end, 1)
    yield "trailer-magic-second", "No trailer, and the length is another", "trailer-magic", no_end + bytes(64)
    number = (256 << 20) + 1
    longer = file.encode(index_bytes=number, file_bytes=number)
    yield "file-bytes-third", "file_bytes is wrong, and the index too large", "file-bytes", longer
    far = flipped(file.encode(index_offset=1 << 60), -40)
    yield "index-bounds-fifth", "The place of the index is wrong, and the digest, too", "index-bounds", far
    old = replace(file, major=2, reserved=bytes(47) + b"\x01")
    yield "major-seventh", "Another major version, and a reserved byte is not zero", "major-version", old.encode()
    newer = replace(file, features=["x"], reserved=b"\x01" + bytes(47))
    description = "A reserved byte is not zero, and the file requires a feature"
    yield "reserved-eighth", description, "preamble-reserved", newer.encode()


def _unaligned(body: bytes, index: bytes) -> bytes:
    """Return a file whose index starts a byte late."""
    return seal(body + b"\0", index)
