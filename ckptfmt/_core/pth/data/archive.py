"""The directory of a zip archive, read in one way only.

Readers of zip archives disagree wherever an archive says a thing twice: in the local header and in the directory, in
two members of one name, in bytes that no member owns. What one scans, another then loads. Here every byte of the file
belongs to exactly one member or to the directory, and whatever is said twice is said alike; anything else is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ckptfmt._core.pth.limits import (
    FREE_EXPANSION_BYTES,
    MAX_DIRECTORY_BYTES,
    MAX_EXPANSION,
    MAX_MEMBER_NAME_BYTES,
    MAX_MEMBERS,
)
from ckptfmt._core.storage import Source
from ckptfmt.errors import ForeignFileError, UnsupportedFileError

__all__ = ["DEFLATED", "STORED", "ZIP_MAGIC", "Archive", "Member", "read_archive", "read_members"]

ZIP_MAGIC = b"PK\x03\x04"
STORED, DEFLATED = 0, 8

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _DESCRIPTOR, _STRONG, _UTF8, _MASKED = 0x1, 0x8, 0x40, 0x800, 0x2000
_KNOWN_FLAGS = 0x6 | _DESCRIPTOR | _UTF8  # 0x6: how hard the compressor tried
_ZIP64_EXTRA = 1


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive.

    Attributes:
        name: Its name; in an `Archive`, without the directory that all members are in.
        offset: Offset in the file of its first stored byte.
        stored_bytes: Length as it is stored.
        nbytes: Length after decompression.
        method: `STORED` or `DEFLATED`.
        crc: CRC-32 of its content.
    """

    name: str
    offset: int
    stored_bytes: int
    nbytes: int
    method: int
    crc: int


@dataclass(frozen=True)
class Archive:
    """A zip archive whose structure is sound.

    Attributes:
        root: Name of the directory that all members are in.
        members: Its members by name, without that directory, in the order of the file.
    """

    root: str
    members: Mapping[str, Member]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the directory says of a member."""

    raw_name: bytes
    flags: int
    method: int
    crc: int
    stored_bytes: int
    nbytes: int
    header_offset: int


def read_archive(source: Source) -> Archive:
    """Return the directory of the archive of PyTorch that the whole of `source` is.

    Raises:
        ForeignFileError: The archive is broken, or says two things at once, or is beyond a limit.
        StorageError: The file cannot be read.
    """
    start, entries = _entries(source)
    expanded = sum(entry.nbytes for entry in entries)
    if expanded > MAX_EXPANSION * source.size + FREE_EXPANSION_BYTES:
        raise UnsupportedFileError(f"its members expand to {expanded} bytes, {expanded // source.size} times the file")
    members: dict[str, Member] = {}
    seen: set[str] = set()
    roots: set[str] = set()
    for member in _placed(source, start, entries):
        name = member.name
        _refuse_odd(name)
        if name.casefold() in seen:  # PyTorch finds members whatever the case of their names
            raise ForeignFileError(f"two members have the name {_shown(name)}")
        seen.add(name.casefold())
        root, _, rest = name.partition("/")
        roots.add(root)
        if len(roots) > 1 or not (rest or name.endswith("/")):
            raise ForeignFileError(f"member {_shown(name)} is not in the one directory that all others are in")
        if not name.endswith("/"):
            members[rest] = replace(member, name=rest)
        elif member.nbytes:
            raise ForeignFileError(f"the directory {_shown(name)} has content")
    return Archive(roots.pop() if roots else "", members)


def read_members(source: Source) -> tuple[Member, ...]:
    """Return the members of the zip archive that the whole of `source` is, in the order of the file.

    Their names are keys and no paths: only that none stands twice is checked.

    Raises:
        ForeignFileError: The archive is broken, or says two things at once, or is beyond a limit.
        StorageError: The file cannot be read.
    """
    members: dict[str, Member] = {}
    for member in _placed(source, *_entries(source)):
        if member.name in members:
            raise ForeignFileError(f"two members have the name {_shown(member.name)}")
        members[member.name] = member
    return tuple(members.values())


def _entries(source: Source) -> tuple[int, list[_Entry]]:
    """Return where the directory begins, and what it says."""
    start, nbytes, count = _find_directory(source)
    return start, _parse_directory(source.read(start, nbytes), count)


def _placed(source: Source, start: int, entries: list[_Entry]) -> Iterator[Member]:
    """Yield the members in the order of the file, each compared with what stands before and behind it."""
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        name = _decode_name(entry)
        if entry.header_offset != position:
            what = "overlaps the one before it" if entry.header_offset < position else "follows bytes of no member"
            raise ForeignFileError(f"member {_shown(name)} {what}, at byte {entry.header_offset}")
        offset = _check_local_header(source, entry, _shown(name), start)
        position = _end_of(source, entry, offset, _shown(name), start)
        yield Member(name, offset, entry.stored_bytes, entry.nbytes, entry.method, entry.crc)
    if position != start:
        raise ForeignFileError(f"bytes {position} to {start} belong to no member")


def _shown(name: str) -> str:
    return f"{name!a:.200}"


def _find_directory(source: Source) -> tuple[int, int, int]:
    """Return offset and length of the directory, and the number of members."""
    if source.size < _END.size:
        raise ForeignFileError("the zip archive is cut: it has no end record")
    end_offset = source.size - _END.size
    magic, disk, first_disk, here, count, nbytes, start, comment = _END.unpack(source.read(end_offset, _END.size))
    if magic != b"PK\x05\x06" or comment:
        raise ForeignFileError("the zip archive is cut, or other data follow it: its end record is not at the end")
    values = [disk, first_disk, here, count, nbytes, start]
    directory_end = end_offset
    if end_offset >= _LOCATOR.size:
        magic, end64_disk, end64_offset, disks = _LOCATOR.unpack(source.read(end_offset - _LOCATOR.size, _LOCATOR.size))
        if magic == b"PK\x06\x07":
            directory_end = end_offset - _LOCATOR.size - _END64.size
            if end64_offset != directory_end or end64_disk or disks != 1:
                raise ForeignFileError("the zip archive has a zip64 end record in the wrong place")
            values = _merge_end64(source.read(end64_offset, _END64.size), values)
    disk, first_disk, here, count, nbytes, start = values
    if disk or first_disk or here != count:
        raise ForeignFileError("the zip archive is one of several parts")
    if count > MAX_MEMBERS or nbytes > MAX_DIRECTORY_BYTES:
        raise UnsupportedFileError(f"the zip archive has {count} members, the limit is {MAX_MEMBERS}")
    if start + nbytes != directory_end:
        raise ForeignFileError("the directory of the zip archive does not end where its end record begins")
    return start, nbytes, count


def _merge_end64(data: bytes, values: list[int]) -> list[int]:
    magic, size, _, _, *wide = _END64.unpack(data)
    if magic != b"PK\x06\x06" or size != _END64.size - 12:
        raise ForeignFileError("the zip64 end record is malformed")
    full = [_FULL16] * 4 + [_FULL32] * 2
    if any(short not in (long, limit) for short, long, limit in zip(values, wide, full, strict=True)):
        raise ForeignFileError("the two end records of the zip archive disagree")
    return list(wide)


def _parse_directory(data: bytes, count: int) -> list[_Entry]:
    entries = []
    position = 0
    for number in range(count):
        if position + _CENTRAL.size > len(data):
            raise ForeignFileError(f"the directory of the zip archive ends after {number} of {count} members")
        fields = _CENTRAL.unpack_from(data, position)
        magic, _, _, flags, method, _, _, crc, stored, nbytes, name_bytes, extra_bytes, comment, disk, _, _, at = fields
        start = position + _CENTRAL.size
        position = start + name_bytes + extra_bytes + comment
        if magic != b"PK\x01\x02" or position > len(data) or disk not in (0, _FULL16):
            raise ForeignFileError(f"entry {number} of the directory of the zip archive is malformed")
        extra = data[start + name_bytes : start + name_bytes + extra_bytes]
        nbytes, stored, at = _wide_values(extra, [nbytes, stored, at])
        entries.append(_Entry(data[start : start + name_bytes], flags, method, crc, stored, nbytes, at))
    if position != len(data):
        raise ForeignFileError("the directory of the zip archive has bytes that belong to no member")
    return entries


def _wide_values(extra: bytes, values: list[int]) -> list[int]:
    """Return the values with those that do not fit into 32 bits taken from the zip64 extra field."""
    position = 0
    found: bytes | None = None
    while position + 4 <= len(extra):
        kind, nbytes = struct.unpack_from("<HH", extra, position)
        if kind == _ZIP64_EXTRA:
            if found is not None:
                raise ForeignFileError("a member of the zip archive has two zip64 fields")
            found = extra[position + 4 : position + 4 + nbytes]
        position += 4 + nbytes
    wanted = [number for number, value in enumerate(values) if value == _FULL32]
    if found is None:
        return values
    if len(found) < 8 * len(wanted):
        raise ForeignFileError("a zip64 field is too short")
    for place, number in enumerate(wanted):
        values[number] = struct.unpack_from("<Q", found, 8 * place)[0]
    return values


def _decode_name(entry: _Entry) -> str:
    raw = entry.raw_name
    try:
        name = raw.decode("utf-8" if entry.flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        raise ForeignFileError(f"a member's name is not text: {raw[:80]!a}") from None
    if len(raw) > MAX_MEMBER_NAME_BYTES:
        raise ForeignFileError(f"a member's name has {len(raw)} bytes, the limit is {MAX_MEMBER_NAME_BYTES}")
    return name


def _refuse_odd(name: str) -> None:
    parts = name.removesuffix("/").split("/")
    odd = not name.isprintable() or "\\" in name or ":" in parts[0]
    if odd or any(part in ("", ".", "..") for part in parts):
        raise ForeignFileError(f"a member has a name that could lead out of the archive: {name[:80]!a}")


def _check_local_header(source: Source, entry: _Entry, name: str, limit: int) -> int:
    """Return where a member's content begins, after comparing what stands before it with the directory."""
    if entry.flags & (_ENCRYPTED | _STRONG | _MASKED):
        raise ForeignFileError(f"member {name} is encrypted")
    if entry.flags & ~_KNOWN_FLAGS or entry.method not in (STORED, DEFLATED):
        raise ForeignFileError(f"member {name} is stored by a method that no checkpoint uses ({entry.method})")
    begin = entry.header_offset
    if begin + _LOCAL.size + len(entry.raw_name) > limit:
        raise ForeignFileError(f"member {name} lies outside the archive")
    head = source.read(begin, _LOCAL.size + len(entry.raw_name))
    magic, _, flags, method, _, _, crc, stored, nbytes, name_bytes, extra_bytes = _LOCAL.unpack_from(head)
    if magic != ZIP_MAGIC or name_bytes != len(entry.raw_name) or head[_LOCAL.size :] != entry.raw_name:
        raise ForeignFileError(f"member {name} has another name in its own header than in the directory")
    if (flags, method) != (entry.flags, entry.method):
        raise ForeignFileError(f"member {name} has other flags or another method in its own header")
    offset: int = begin + len(head) + extra_bytes
    if offset + entry.stored_bytes > limit:
        raise ForeignFileError(f"member {name} does not end before the directory of the archive")
    if _FULL32 in (stored, nbytes):
        nbytes, stored = _wide_values(source.read(begin + len(head), extra_bytes), [nbytes, stored])
    told, true = (crc, stored, nbytes), (entry.crc, entry.stored_bytes, entry.nbytes)
    if told != true and not (flags & _DESCRIPTOR and not any(told)):
        raise ForeignFileError(f"member {name} has another length or checksum in its own header")
    if entry.method == STORED and entry.stored_bytes != entry.nbytes:
        raise ForeignFileError(f"member {name} is not compressed, and has two lengths")
    return offset


def _end_of(source: Source, entry: _Entry, offset: int, name: str, limit: int) -> int:
    """Return where the next member begins: after the data descriptor, if the member has one."""
    end = offset + entry.stored_bytes
    if not entry.flags & _DESCRIPTOR:
        return end
    data = source.read(end, min(24, limit - end))
    for layout in ("<4xIII", "<4xIQQ", "<III", "<IQQ"):
        form = struct.Struct(layout)
        signed = layout[1] == "4"
        if len(data) < form.size or signed != data.startswith(b"PK\x07\x08"):
            continue
        if form.unpack_from(data) == (entry.crc, entry.stored_bytes, entry.nbytes):
            return end + form.size
    raise ForeignFileError(f"member {name} is followed by another length or checksum than the directory has")
