"""Any bytes in: a result, or one error of ours; never anything else, and never anything run."""

from __future__ import annotations

import builtins
import contextlib
import pickle
import random
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ckptfmt._core.format.index import Metadata
from ckptfmt._core.ops.conversion.convert import open_convertible
from ckptfmt._core.ops.conversion.pickle_imports import list_pickle_imports
from ckptfmt._core.ops.conversion.transcode import plan_rewrite
from ckptfmt._core.pth.data.byte_reader import ByteReader
from ckptfmt._core.pth.names.globals import CALLABLE, Verdict, judge, judge_call
from ckptfmt._core.pth.names.kinds import CHECKED
from ckptfmt._core.pth.nodes import Global
from ckptfmt._core.pth.pickle.pickle_vm import run_pickle
from ckptfmt._core.pth.reading import CONSTRUCTORS
from ckptfmt.errors import CkptfmtError
from tests.pth import legacy_files
from tests.pth.attacks import global_of, stream_of, text, zip_of


def read_all(path: Path) -> bool:
    """Read a file whole, as a conversion does; say whether it was taken."""
    try:
        with open_convertible(str(path)) as file:
            plan = plan_rewrite(file, Metadata(), codec="none", advance=lambda _: None)
            for member in plan.members:
                for part in member.parts:
                    part.read()
            file.finish()
    except CkptfmtError:
        return False
    finally:
        with contextlib.suppress(CkptfmtError):
            list_pickle_imports(path)
    return True


@cache
def good_files() -> tuple[bytes, ...]:
    """Return small files in each form."""
    state = {**legacy_files.documented(), "views": legacy_files.views(), "set": {1}, "text": "x"}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.pth"
        files = [
            legacy_files.save(state, path, stream=stream, protocol=protocol).read_bytes()
            for stream in (False, True)
            for protocol in (2, 4)
        ]
        files.append(legacy_files.save_tar({"a": torch.arange(6.0)}, path).read_bytes())
        legacy_files.save(state, path)
        files.append(legacy_files.repack(path, method=8).read_bytes())
    return (*files, pickle.dumps({"a": [1, (2, 3)], "b": {4}}, 4))


def test_the_good_files_are_taken(tmp_path: Path) -> None:
    for number, content in enumerate(good_files()):
        path = tmp_path / str(number)
        path.write_bytes(content)
        assert read_all(path)


@given(st.data())
def test_changed_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(good_files())))
    generator = random.Random(data.draw(st.integers(0, 1 << 32)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = generator.randrange(len(content))
        match generator.randrange(4):
            case 0:
                content[at] = generator.randrange(256)
            case 1:
                del content[at : at + generator.randrange(1, 64)]
            case 2:
                content[at:at] = content[generator.randrange(len(content)) :][: generator.randrange(64)]
            case _:
                del content[at:]
        if not content:
            break
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(content)
    read_all(path)


BARE = [bytes([code]) for code in b"(0123NRbQeauslt)}]\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94o."]
WORDS = [
    "storage",
    "0",
    "cpu",
    "latin1",
    "_metadata",
    "_parameters",
    "_modules",
    "f4",
    ">i8",
    "O8",
    "torch.sparse_coo",
    "",
]
KINDS = [*sorted(CHECKED), "_operator.or_", "builtins.ValueError", "typing.List", "array.array", "package.Outer"]
NAMES = [*sorted(CALLABLE), *KINDS, "torch.FloatStorage", "torch.float32", "torch.strided", "a.B", "__torch__.M"]


def named(name: str) -> bytes:
    return global_of(*name.rsplit(".", 1))


PIECES = st.one_of(
    st.sampled_from(BARE),
    st.integers(0, 255).map(lambda number: b"K" + bytes([number])),
    st.integers(0, 5).map(lambda number: b"q" + bytes([number])),
    st.integers(0, 5).map(lambda number: b"h" + bytes([number])),
    st.sampled_from(WORDS).map(text),
    st.sampled_from(NAMES).map(named),
    st.binary(max_size=6).map(lambda data: b"C" + bytes([len(data)]) + data),
    st.sampled_from([b"I01\n", b"I-5\n", b"F1e400\n", b"L5L\n", b"S'\\x41'\n", b"V\\u0041\n", b"\x8a\x01\xff"]),
)


@given(st.lists(PIECES, max_size=60).map(b"".join))
@example(b"\x80\x02" + global_of("collections", "OrderedDict") + b")R}" + text("_metadata") + b"Nsb")
def test_pickles_of_any_opcodes(tmp_path_factory: pytest.TempPathFactory, opcodes: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "opcodes"
    for content in (
        opcodes + b".",
        zip_of(opcodes + b".", {"data/0": bytes(16)}),
        stream_of(slots={3: opcodes + b"."}),
    ):
        path.write_bytes(content)
        read_all(path)


ARGUMENTS = st.recursive(
    st.sampled_from([b"N", b"K\x00", b"K\x03", b"M\xff\xff", b"J\xff\xff\xff\xff", b"G" + bytes(8), b"\x88"])
    | st.sampled_from([b")", b"]", b"}", b"C\x04abcd"])
    | st.sampled_from(WORDS).map(text)
    | st.sampled_from(NAMES).map(named)
    | st.just(b"(" + text("storage") + global_of("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x04tQ"),
    lambda inner: st.one_of(
        st.lists(inner, max_size=8).map(lambda items: b"(" + b"".join(items) + b"t"),
        st.lists(inner, max_size=3).map(lambda items: b"(" + b"".join(items) + b"l"),
        st.tuples(st.sampled_from(sorted(CALLABLE)), st.lists(inner, max_size=8)).map(
            lambda made: named(made[0]) + b"(" + b"".join(made[1]) + b"tR"
        ),
        st.tuples(st.sampled_from(sorted(CALLABLE)), inner, inner).map(
            lambda made: named(made[0]) + b"(" + made[1] + b"tR" + made[2] + b"b"
        ),
    ),
    max_leaves=20,
)


@given(st.sampled_from(sorted(CALLABLE)), st.lists(ARGUMENTS, max_size=8), st.lists(ARGUMENTS, max_size=2))
def test_known_names_with_any_arguments(
    tmp_path_factory: pytest.TempPathFactory, name: str, arguments: list[bytes], states: list[bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "called"
    call = (
        global_of(*name.rsplit(".", 1))
        + b"("
        + b"".join(arguments)
        + b"tR"
        + b"".join(state + b"b" for state in states)
    )
    path.write_bytes(zip_of(b"\x80\x02" + call + b".", {"data/0": bytes(16)}))
    read_all(path)


@given(st.binary(max_size=200))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    for start in (b"", b"\x80\x02", b"PK\x03\x04", b"(", b"c"):
        path.write_bytes(start + content)
        read_all(path)


def test_every_name_that_may_be_called_has_a_constructor() -> None:
    assert CONSTRUCTORS.keys() == CALLABLE


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"), min_size=1))
def test_every_name_has_one_verdict(module: str, name: str) -> None:
    found = Global(module, name)
    assert judge(found).verdict in Verdict
    if judge(found).verdict is Verdict.REFUSED:
        assert judge_call(found).verdict is Verdict.REFUSED


def test_what_python_knows_as_its_own_is_refused_unless_it_is_on_the_list() -> None:
    names = [Global(module, "anything") for module in sys.stdlib_module_names]
    assert all(judge(name).verdict is Verdict.REFUSED for name in names)
    public = [name for name in dir(builtins) if not name.startswith("_")]
    named = {name for name in public if judge(Global("builtins", name)).verdict is Verdict.REFUSED}
    acting = set("breakpoint compile delattr dir eval exec globals input locals open print setattr vars".split())
    shell = set("copyright credits exit help license quit".split())
    assert named - shell - {"False", "None", "True", "aiter", "anext", "hasattr"} == acting
    called = {name for name in public if judge_call(Global("builtins", name)).verdict is not Verdict.REFUSED}
    classes = {name for name in called if isinstance(getattr(builtins, name), type)}
    assert called - classes == {"iter"}
    assert not classes & {"type", "map", "filter", "super", "property", "classmethod", "staticmethod", "memoryview"}


def test_a_pickle_is_read_once_and_not_further_than_its_end() -> None:
    reader = ByteReader(b"N.rest")
    assert run_pickle(reader).end == 2
    assert reader.position == 2
    assert reader.read(4) == b"rest"
