"""Files that want to take all memory, all time, or the stack of the interpreter: one error each, soon and cheaply."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pth.attacks import global_of, stream_of, text, zip_of

resource = pytest.importorskip("resource", reason="limits the memory of a process as POSIX does")

HANG_SECONDS = 600
MOST_BYTES = 3 << 30  # of address space; an interpreter with NumPy takes most of one GiB

STORAGE = b"(" + text("storage") + global_of("torch", "FloatStorage") + text("0") + text("cpu")


def tensor(elements: bytes, offset: bytes, shape: bytes, strides: bytes) -> bytes:
    """A pickle of one tensor, of numbers in the opcodes of a pickle."""
    arguments = (
        STORAGE + elements + b"tQ" + offset + shape + strides + b"\x89" + global_of("collections", "OrderedDict")
    )
    return b"\x80\x02" + global_of("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b")RtR."


def laughs(levels: int, opening: bytes, closing: bytes) -> bytes:
    """Containers that each hold the one before twice."""
    content = b"\x80\x02" + text("ha")
    for _ in range(levels):
        content += b"q\x00" + opening + b"h\x00h\x00" + closing
    return content + b"."


def cases() -> Iterator[tuple[str, bytes]]:
    yield "deep lists", b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    yield "deep tuples", b"\x80\x02)" + b"\x85" * 200_000 + b"."
    yield "deep marks", b"(" * 5_000_000 + b"t" * 5_000_000 + b"."
    yield "deep records", b"\x80\x02Nq\x010" + (global_of("a", "B") + b"h\x01\x85Rq\x010") * 50_000 + b"h\x01."
    yield "list in itself", b"\x80\x02]q\x00h\x00a."
    yield "dict in itself", b"\x80\x02}q\x00K\x01h\x00s."
    yield "tuple in itself", b"\x80\x02]q\x00h\x00\x85a."
    yield "ordered dict in itself", b"\x80\x02" + global_of("collections", "OrderedDict") + b")Rq\x00K\x01h\x00s."
    yield "laughing tuples", laughs(60, b"0h\x00h\x00", b"\x86")
    yield "laughing lists", laughs(60, b"0(", b"l")
    yield "laughing more than the depth allows", laughs(300, b"0(", b"l")
    yield "many containers", b"]" + b"]0" * 9_000_000 + b"."
    yield "many opcodes", b"N0" * 20_000_000 + b"N."
    yield "huge text", b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"abc."
    yield "huge bytes", b"\x80\x04\x8e" + struct.pack("<Q", (1 << 64) - 1) + b"abc."
    yield "huge bytearray", b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc."
    yield "huge frame", b"\x80\x04\x95" + struct.pack("<Q", 1 << 63) + b"N."
    yield "negative length", b"\x80\x02T" + struct.pack("<i", -5) + b"abc."
    yield "huge integer", b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"abc."
    yield "integer of many digits", b"L" + b"9" * 1_000_000 + b"L\n."
    yield "endless line", b"V" + b"x" * 20_000_000
    yield "endless name", b"c" + b"x" * 20_000_000
    yield "huge memo number", b"\x80\x02Nr\xff\xff\xff\xff0j\xff\xff\xff\xff."
    yield "negative memo number", b"Np-1\n."
    yield "no such memo", b"h\x07."
    yield "empty stack", b"."
    yield "nothing but marks", b"(((((."
    colliding = b"".join(
        b"\x8a\x10" + (number * ((1 << 61) - 1)).to_bytes(16, "little") + b"N" for number in range(150_000)
    )
    yield "keys with one hash", b"\x80\x02}(" + colliding + b"u."
    small = b"".join(b"J" + struct.pack("<i", number) + b"N" for number in range(200_000))
    yield "very many keys that are numbers", b"\x80\x02}(" + small + b"u."
    encoded = global_of("_codecs", "encode") + b"(h\x00" + text("latin1") + b"tR"
    repeated = b"\x80\x02" + text("x" * 1_000_000) + b"q\x000(" + encoded * 400 + b"l."
    yield "text made into bytes, over and over", repeated
    yield "unknown opcode", b"\x80\x02\xf0."
    data = {"data/0": bytes(4000)}
    yield "tensor beyond its storage", zip_of(tensor(b"M\xe8\x03", b"K\x00", b"(M\xe9\x03t", b"(K\x01t"), data)
    yield "tensor with an offset beyond", zip_of(tensor(b"M\xe8\x03", b"M\xe8\x03", b"(K\x01t", b"(K\x01t"), data)
    yield (
        "tensor with a huge shape",
        zip_of(
            tensor(
                b"M\xe8\x03", b"K\x00", b"(" + (b"\x8a\x07" + b"\xff" * 6 + b"\x00") * 3 + b"t", b"(K\x00K\x00K\x00t"
            ),
            data,
        ),
    )
    yield (
        "tensor spread from one element",
        zip_of(tensor(b"K\x01", b"K\x00", b"(\x8a\x05\x00\x00\x00\x00\x10t", b"(K\x00t"), {"data/0": bytes(4)}),
    )
    yield (
        "tensor with a negative stride",
        zip_of(tensor(b"M\xe8\x03", b"K\x01", b"(K\x02t", b"(J\xff\xff\xff\xfft"), data),
    )
    yield (
        "tensor with 3 sizes and 1 stride",
        zip_of(tensor(b"M\xe8\x03", b"K\x00", b"(K\x01K\x01K\x01t", b"(K\x01t"), data),
    )
    yield (
        "tensor of 70 dimensions",
        zip_of(tensor(b"M\xe8\x03", b"K\x00", b"(" + b"K\x01" * 70 + b"t", b"(" + b"K\x01" * 70 + b"t"), data),
    )
    yield (
        "tensor with a text for a size",
        zip_of(tensor(b"M\xe8\x03", b"K\x00", b"(" + text("x") + b"t", b"(K\x01t"), data),
    )
    yield "storage that is not there", zip_of(tensor(b"M\xe8\x03", b"K\x00", b"(K\x01t", b"(K\x01t"))
    yield "storage longer than its member", zip_of(tensor(b"M\xe9\x03", b"K\x00", b"(K\x01t", b"(K\x01t"), data)
    yield "storage of a negative length", zip_of(tensor(b"J\xff\xff\xff\xff", b"K\x00", b"(K\x01t", b"(K\x01t"))
    yield "stream with a storage that nothing refers to", stream_of(slots={4: pickle.dumps(["0"], 2)})
    yield "zip bomb", bomb()
    yield "zip bomb for a pickle", bomb("data.pkl")
    yield "zip of very many members", many_members()
    slow = {f"{number}.pkl": b"N0" * 2_000_000 + b"N." for number in range(40)}
    yield "zip of many slow pickles", zip_of(pickle.dumps({}), slow, method=zipfile.ZIP_DEFLATED)
    hidden = {f"notes{number}": b"\x80\x02" + b"N0" * 2_000_000 + b"N." for number in range(40)}
    yield "zip of many slow pickles under other names", zip_of(pickle.dumps({}), hidden, method=zipfile.ZIP_DEFLATED)
    wreck = zip_of(pickle.dumps({}), slow, method=zipfile.ZIP_DEFLATED)[:-1]
    yield "broken zip of many slow pickles", wreck
    yield "zip that says it is shorter than it is", lying_about_length()
    yield "zip with a member inside another", overlapping()
    yield "tar with a huge member", tar_header("storages", 0o77777777777) + bytes(512)
    yield "tar with a member of no length", tar_header("storages", 0) * 3 + bytes(1024)
    ordered = b"\x80\x02" + global_of("collections", "OrderedDict") + b"q\x010h\x01)Rq\x020"
    yield "ordered dicts of one another", ordered + b"h\x01h\x02\x85Rq\x020" * 50_000 + b"h\x02."
    yield "module of many children with the same attributes", zip_of(module(b"}(" + CHILDREN + b"u", before=CHILD))
    yield "module that unfolds into billions", zip_of(unfolding(10, 10))
    yield "parameters that many modules share", zip_of(sharing_parameters())
    yield "script that unfolds into billions", zip_of(unfolding(24, 2, scripted=True), SCRIPT)
    code = b"class Net(Module):\n  " + b"__parameters__ = [" * 200_000
    yield "code of many lists that do not end", zip_of(scripted_object("Net"), SCRIPT | {"code/__torch__/net.py": code})
    classes = b"".join(b"class N%d(Module):\n  __parameters__ = []\n" % number for number in range(60_000))
    objects = b"\x80\x02](" + b"".join(scripted_object(f"N{number}")[2:-1] for number in range(20_000)) + b"e."
    yield "code of many classes", zip_of(objects, SCRIPT | {"code/__torch__/net.py": classes})
    yield "tar of something else", tar_header("readme", 3) + b"abc".ljust(512, b"\0") + bytes(1024)


PARTS = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules")
CHILD = (
    b"}(" + PARTS + b"}" + b"".join(text(f"k{number}") + b"N" for number in range(50_000)) + b"uq\x010"
    + global_of("a", "B") + b")\x81h\x01bq\x020"
)  # fmt: skip
CHILDREN = b"".join(text(f"m{number}") + b"h\x02" for number in range(50_000))
SCRIPT = {"constants.pkl": pickle.dumps((), 2), "code/__torch__/net.py": b"class Net(Module):\n  __parameters__ = []\n"}


def module(children: bytes, *, before: bytes = b"") -> bytes:
    """A pickle of a whole module with these children."""
    return b"\x80\x02" + before + global_of("a", "Net") + b")\x81}(" + PARTS + children + b"ub."


def scripted_object(name: str, attributes: bytes = text("x") + b"N") -> bytes:
    """A pickle of an object of TorchScript."""
    return b"\x80\x02" + global_of("__torch__.net", name) + b")\x81}(" + attributes + b"ub."


def unfolding(levels: int, times: int, *, scripted: bool = False) -> bytes:
    """Modules that each have the one before as a child, several times."""
    content = b"\x80\x02" + (scripted_object("Net") if scripted else module(b"}"))[2:-1] + b"q\x010"
    children = b"".join(text(f"m{number}") + b"h\x01" for number in range(times))
    for _ in range(levels):
        level = scripted_object("Net", children) if scripted else module(b"}(" + children + b"u")
        content += level[2:-1] + b"q\x010"
    return content + b"h\x01."


def sharing_parameters() -> bytes:
    """Modules that are each another, and have the same large dict of parameters that are None."""
    shared = b"}(" + b"".join(text(f"p{number}") + b"N" for number in range(50_000)) + b"uq\x010"
    own = b"}(" + text("_parameters") + b"h\x01" + text("_buffers") + b"}" + text("_modules") + b"}u"
    child = global_of("a", "B") + b")\x81" + own + b"b"
    children = b"".join(text(f"m{number}") + child for number in range(20_000))
    return module(b"}(" + children + b"u", before=shared)


def bomb(name: str = "data/0") -> bytes:
    """An archive whose member is said to expand to four GiB, and begins to."""
    return archive_of([(f"a/{name}", zlib.compress(bytes(10 << 20), 9)[2:-4], 4000 << 20, 0, 8)])


def archive_of(members: list[tuple[str, bytes, int, int, int]]) -> bytes:
    """An archive of (name, stored bytes, length, checksum, method), each as it is told."""
    body, directory = bytearray(), bytearray()
    for name, data, nbytes, crc, method in members:
        offset = len(body)
        raw = name.encode()
        facts = (0, method, 0, 33, crc, len(data), nbytes, len(raw), 0)
        body += struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, *facts) + raw + data
        directory += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, *facts, 0, 0, 0, 0, offset) + raw
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return bytes(body + directory + end)


def many_members() -> bytes:
    """An archive that says it has more members than there is room for."""
    good = bytearray(zip_of(pickle.dumps({})))
    struct.pack_into("<HH", good, len(good) - 14, 0xFFFE, 0xFFFE)
    return bytes(good)


def lying_about_length() -> bytes:
    deflated = zlib.compress(bytes(100_000), 9)[2:-4]
    return archive_of([("a/data.pkl", deflated, 10, 0, 8)])


def overlapping() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/version", b"3\n")
    data = bytearray(content.getvalue())
    second = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, second + 42, 0)  # both members begin at the first byte
    return bytes(data)


def tar_header(name: str, nbytes: int) -> bytes:
    header = bytearray(512)
    header[: len(name)] = name.encode()
    header[124:136] = f"{nbytes:011o}\0".encode()
    header[156:157] = b"0"
    header[257:263] = b"ustar\0"
    return bytes(header)


RUN = """
import json, resource, sys
from pathlib import Path
import ckptfmt
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
for source in map(Path, sys.argv[2:]):
    try:
        ckptfmt.convert(source, source.with_suffix(".ckptfmt"))
    except ckptfmt.CkptfmtError as error:
        outcome = str(error)
    else:
        outcome = "converted"
    print(json.dumps(outcome))
"""
HARMLESS = {"huge memo number", "keys with one hash", "code of many classes", "code of many lists that do not end"}
HEAVY = {
    "zip of many slow pickles",
    "zip of many slow pickles under other names",
    "broken zip of many slow pickles",
    "deep records",
    "keys with one hash",
    "many opcodes",
    "many containers",
    "very many keys that are numbers",
    "deep lists",
}
CASES = dict(cases())
LIGHT = [name for name in CASES if name not in HEAVY]


def run(directory: Path, names: list[str]) -> dict[str, str]:
    """Convert files in a process of bounded memory; return what came of each."""
    paths = [directory / f"{number}.pth" for number in range(len(names))]
    for path, name in zip(paths, names, strict=True):
        path.write_bytes(CASES[name])
    arguments = [sys.executable, "-c", RUN, str(MOST_BYTES), *map(str, paths)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(path.suffix == ".ckptfmt" for path in directory.iterdir()) == outcomes.count("converted")
    return dict(zip(names, outcomes, strict=True))


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what came of the files that take little, all in one process."""
    return run(tmp_path_factory.mktemp("light"), LIGHT)


def check(name: str, found: str) -> None:
    assert len(found.splitlines()) == 1
    assert len(found) < 1000
    assert (found == "converted") == (name in HARMLESS)


@pytest.mark.parametrize("name", LIGHT)
def test_it_ends_in_one_error(name: str, light: dict[str, str]) -> None:
    check(name, light[name])


@pytest.mark.parametrize("name", sorted(HEAVY))
def test_it_ends_soon_in_bounded_memory(name: str, tmp_path: Path) -> None:
    check(name, run(tmp_path, [name])[name])


def test_the_limit_on_memory_is_one() -> None:
    """An address space of this size can be set at all, or the tests above would prove nothing."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({MOST_BYTES},) * 2); bytearray({MOST_BYTES})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != MOST_BYTES
