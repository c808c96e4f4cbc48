"""Plain values of Python, NumPy and PyTorch beside the weights: inert data, listed, and never made.

Each is written by `torch.save`, in every protocol, read here, and compared with the value itself.
"""

from __future__ import annotations

import array
import builtins
import collections
import collections.abc
import datetime
import decimal
import enum
import functools
import http
import io
import ipaddress
import itertools
import json
import logging
import math
import operator
import os
import platform
import random
import re
import resource
import signal
import socket
import string
import subprocess
import sys
import time
import typing
import urllib.parse
import uuid
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptfmt
import ckptfmt.torch
from ckptfmt import Typed, UnsafeInputError
from ckptfmt._core.ops.conversion.pickle_imports import list_pickle_imports
from ckptfmt._core.pth.names import exception_names, kinds
from ckptfmt._core.pth.names.globals import Verdict
from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.nodes import Global
from tests.cli.conftest import invoke
from tests.torch.same import same

PROTOCOLS = [2, 3, 4, 5]


class Outer:
    """Its names stand for those of a package that is not there when a checkpoint is read."""

    class Inner:
        def __init__(self, *args: object, **kwargs: object) -> None: ...

        def method(self) -> None: ...

        @classmethod
        def made(cls) -> None: ...

        class Deepest:
            width: int

    class Colour(enum.Enum):
        RED = "r"

    class Flags(enum.Flag):
        A = 1
        B = 2


def name(full: str) -> Typed:
    return Typed("python.name", full)


def hint(origin: str, *args: object) -> Typed:
    return Typed("types.GenericAlias", {"origin": name(origin), "args": args[0] if len(args) == 1 else args})


INT, STR, NONE = name("builtins.int"), name("builtins.str"), name("types.NoneType")
HERE = f"{__name__}.Outer"

DAY, LONG = np.array(["2026-03-01"], "M8[D]"), np.arange(3, dtype=np.longdouble)


def array_of(dtype: object, shape: list[int], data: bytes) -> Typed:
    return Typed("numpy.array", {"dtype": dtype, "shape": shape, "order": "C", "data": data})


def partial(function: Typed, *args: object, **kwargs: object) -> Typed:
    return Typed("functools.partial", {"function": function, "args": list(args), "kwargs": kwargs})


def row(full: str, values: list[object], **more: object) -> Typed:
    return Typed(full, {"values": values, "more": more})


TYPES: dict[str, tuple[object, object]] = {
    "int": (int, INT),
    "str": (str, STR),
    "range as a type": (range, name("builtins.range")),
    "range": (range(1, 5, 2), Typed("builtins.range", [1, 5, 2])),
    "slice": (slice(None, 3), Typed("builtins.slice", [None, 3, None])),
    "type of None": (type(None), NONE),
    "ellipsis": (..., name("builtins.Ellipsis")),
    "not implemented": (NotImplemented, name("builtins.NotImplemented")),
    "configuration of types": ({"dtype": int, "of": [str, None]}, {"dtype": INT, "of": [STR, None]}),
    "dict of int": (collections.defaultdict(int, {"a": 1}), {"a": 1}),
    "dict of list": (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
    "method of a type": (str.lower, name("builtins.str.lower")),
    "function of a type": (dict.fromkeys, name("builtins.dict.fromkeys")),
    "functions": ([len, math.sqrt, operator.add], [name("builtins.len"), name("math.sqrt"), name("operator.add")]),
    "abstract": ([collections.abc.Sequence, enum.Enum], [name("collections.abc.Sequence"), name("enum.Enum")]),
}
NESTED: dict[str, tuple[object, object]] = {
    "nested class": (Outer.Inner, name(f"{HERE}.Inner")),
    "class nested twice": (Outer.Inner.Deepest, name(f"{HERE}.Inner.Deepest")),
    "method": (Outer.Inner.method, name(f"{HERE}.Inner.method")),
    "class method": (Outer.Inner.made, name(f"{HERE}.Inner.made")),
    "object of a nested class": (Outer.Inner.Deepest(), Typed(f"{HERE}.Inner.Deepest", {})),
    "member": (Outer.Colour.RED, Typed(f"{HERE}.Colour", {"args": ["r"]})),
    "flags": (Outer.Flags.A | Outer.Flags.B, Typed(f"{HERE}.Flags", {"args": [3]})),
    "partial of partial": (
        functools.partial(functools.partial(Outer.Inner, 1), x=None),
        partial(name(f"{HERE}.Inner"), 1, x=None),
    ),
}
HOLDERS: dict[str, tuple[object, object]] = {
    "bytes": (io.BytesIO(b"\x00\xff"), Typed("io.BytesIO", {"content": b"\x00\xff", "position": 0})),
    "text": (io.StringIO("a\nb"), Typed("io.StringIO", {"content": "a\nb", "position": 0})),
    "partial": (functools.partial(int, "101", base=2), partial(INT, "101", base=2)),
    "partial of a layer": (
        functools.partial(torch.nn.LayerNorm, eps=1e-6),
        partial(name("torch.nn.modules.normalization.LayerNorm"), eps=1e-6),
    ),
    "user dict": (collections.UserDict(a=1), Typed("collections.UserDict", {"data": {"a": 1}})),
    "user list": (collections.UserList([1]), Typed("collections.UserList", {"data": [1]})),
    "template": (string.Template("$a"), Typed("string.Template", {"template": "$a"})),
    "iterator": (itertools.repeat("x", 2), Typed("itertools.repeat", {"args": ["x", 2]})),
    "address": (ipaddress.ip_address("10.0.0.1"), Typed("ipaddress.IPv4Address", {"args": [167772161]})),
    "network": (ipaddress.ip_network("10.0.0.0/8"), Typed("ipaddress.IPv4Network", {"args": ["10.0.0.0/8"]})),
    "uuid": (uuid.UUID(int=7), Typed("uuid.UUID", {"int": 7})),
    "zone": (zoneinfo.ZoneInfo("Europe/Berlin"), Typed("zoneinfo.ZoneInfo", "Europe/Berlin")),
}
SMALL: dict[str, tuple[object, object]] = {
    "signal": (signal.SIGTERM, Typed("signal.Signals", 15)),
    "status": (http.HTTPStatus.OK, Typed("http.HTTPStatus", 200)),
    "family": (socket.AF_INET, Typed("socket.AddressFamily", int(socket.AF_INET))),
    "pattern": (re.compile("a+", re.IGNORECASE), Typed("re.Pattern", {"pattern": "a+", "flags": 34})),
    "pattern of bytes": (re.compile(b"\xff+"), Typed("re.Pattern", {"pattern": b"\xff+", "flags": 0})),
    "pattern that takes for ever": (re.compile("(a*)*b"), Typed("re.Pattern", {"pattern": "(a*)*b", "flags": 32})),
    "flags of a pattern": (re.IGNORECASE, Typed("re.RegexFlag", 2)),
    "logger": (logging.getLogger("a.b"), Typed("logging.Logger", "a.b")),
    "root of the loggers": (logging.getLogger(), Typed("logging.Logger", "root")),
    "exception": (ValueError("x", 1), Typed("builtins.ValueError", {"args": ["x", 1]})),
    "exceptions": ([KeyError, StopIteration], [name("builtins.KeyError"), name("builtins.StopIteration")]),
    "exception of a module": (
        json.JSONDecodeError("m", "doc", 0),
        Typed("json.decoder.JSONDecodeError", {"args": ["m", "doc", 0]}),
    ),
    "exception with attributes": (
        subprocess.CalledProcessError(1, "x"),
        Typed(
            "subprocess.CalledProcessError",
            {"args": [1, "x"], "state": {"returncode": 1, "cmd": "x", "output": None, "stderr": None}},
        ),
    ),
    "time": (
        time.struct_time((2026, 3, 1, 9, 30, 0, 6, 60, 0)),
        row("time.struct_time", [2026, 3, 1, 9, 30, 0, 6, 60, 0], tm_zone=None, tm_gmtoff=None),
    ),
    "terminal": (os.terminal_size((80, 24)), row("os.terminal_size", [80, 24])),
    "page": (
        urllib.parse.urlsplit("http://a/b"),
        Typed("urllib.parse.SplitResult", {"args": ["http", "a", "/b", "", ""]}),
    ),
}
HINTS: dict[str, tuple[object, object]] = {
    "any": (typing.Any, name("typing.Any")),
    "bare": (typing.List, name("typing.List")),  # noqa: UP006 - as configurations have it, and the ones below
    "list": (typing.List[int], hint("typing.List", INT)),  # noqa: UP006
    "dict": (typing.Dict[str, int], hint("typing.Dict", STR, INT)),  # noqa: UP006
    "optional": (typing.Optional[int], hint("typing.Union", INT, NONE)),  # noqa: UP045
    "union": (int | None, Typed("types.UnionType", [INT, NONE])),
    "generic": (list[int], hint("builtins.list", (INT,))),
    "literal": (typing.Literal["a", 1], hint("typing.Literal", "a", 1)),
    "tuple": (typing.Tuple[int, ...], hint("typing.Tuple", INT, name("builtins.Ellipsis"))),  # noqa: UP006
    "callable": (typing.Callable[[int], str], hint("typing.Callable", [INT], STR)),
    "callable of today": (Callable[[int], str], hint("collections.abc.Callable", [INT], STR)),
    "inside of others": (typing.List[typing.Dict[str, int]], hint("typing.List", hint("typing.Dict", STR, INT))),  # noqa: UP006
}
OF_TENSORS: dict[str, tuple[object, object]] = {
    "dtype of four bits": (torch.float4_e2m1fn_x2, torch.float4_e2m1fn_x2),
    "dtype of three bits": (vars(torch)["uint3"], vars(torch)["uint3"]),
    "function": (torch.abs, name("torch._C._VariableFunctionsClass.abs")),
    "method": (torch.Tensor.add, name("torch._C.TensorBase.add")),
    "functions of layers": (
        [torch.nn.functional.relu, torch.nn.functional.gelu],
        [name("torch.nn.functional.relu"), name("torch._C._nn.gelu")],
    ),
    "functions of arrays": ([np.add, np.mean], [name("numpy.add"), name("numpy.mean")]),
    "class of a dtype": (type(np.dtype("f4")), name("numpy.dtypes.Float32DType")),
    "times": (DAY, array_of("<M8[D]", [1], DAY.tobytes())),
    "duration": (np.timedelta64(3, "s"), array_of("<m8[s]", [], (3).to_bytes(8, "little"))),
    "long double": (LONG, array_of(f"<f{LONG.itemsize}", [3], LONG.tobytes())),
    "dtype of records": (
        np.dtype([("a", "<f4"), ("b", ">i2", (2,))]),
        Typed(
            "numpy.dtype",
            [
                {"name": "a", "dtype": "<f4", "offset": 0},
                {"name": "b", "dtype": {"base": ">i2", "shape": [2]}, "offset": 4},
            ],
        ),
    ),
}
VALUES = TYPES | NESTED | HOLDERS | SMALL | HINTS | OF_TENSORS


def converted(tmp_path: Path, value: object, protocol: int, **options: Any) -> Any:
    torch.save({"value": value}, tmp_path / "a.pth", pickle_protocol=protocol)
    ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt", check=True, **options)
    return ckptfmt.torch.load(tmp_path / "a.ckptfmt")["value"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # iterators will not be pickled for ever
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("what", VALUES)
def test_it_is_kept_as_what_it_says(tmp_path: Path, what: str, protocol: int) -> None:
    value, expected = VALUES[what]
    assert same(converted(tmp_path, value, protocol), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # iterators will not be pickled for ever
@pytest.mark.parametrize("what", sorted(VALUES.keys() - NESTED.keys()))
def test_it_passes_strict_reading_and_is_listed(tmp_path: Path, what: str) -> None:
    value, _ = VALUES[what]
    converted(tmp_path, value, 2, strict=True)
    report = list_pickle_imports(tmp_path / "a.pth")
    assert report.safe
    assert report.fault is None
    assert not report.audit.unknown
    listed = {use.name for use in report.audit.names}
    shown = invoke("inspect", "--pickle-imports", tmp_path / "a.pth")
    assert shown.exit_code == 0
    for use in report.audit.names:
        assert use.verdict in (Verdict.KNOWN, Verdict.INERT), use
    assert listed


def test_what_is_kept_as_inert_data_is_told(tmp_path: Path) -> None:
    torch.save({"a": functools.partial(int), "b": re.compile("x"), "c": ValueError()}, tmp_path / "a.pth")
    report = ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")
    inert = ["functools.partial", "builtins.int", "re.Pattern", "builtins.ValueError"]
    assert report.findings.inert == dict.fromkeys(inert, 1)
    told = invoke("convert", tmp_path / "a.pth", tmp_path / "b.ckptfmt").output
    assert "functools.partial" in told


def test_whole_rows_of_the_system(tmp_path: Path) -> None:
    for value in (Path("/").stat(), os.uname(), os.times(), resource.getrusage(resource.RUSAGE_SELF)):
        found = converted(tmp_path, value, 2)
        assert found.name == f"{type(value).__module__.replace('posix', 'os')}.{type(value).__qualname__}"
        assert found.value["values"] == list(value)
    assert converted(tmp_path, platform.uname(), 2).name == "platform.uname_result"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_numbers_of_python(tmp_path: Path, protocol: int) -> None:
    found = converted(tmp_path, array.array("h", [1, -2, 300]), protocol)
    if protocol == 2:
        assert found == Typed("array.array", {"args": ["h", [1, -2, 300]]})
    else:
        assert found.value["args"][1:] == ["h", 4, array.array("h", [1, -2, 300]).tobytes()]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_generators_of_python_numpy_and_pytorch(tmp_path: Path, protocol: int) -> None:
    chance = random.Random(5)
    found = converted(tmp_path, chance, protocol)
    assert found.name == "random.Random"
    assert tuple(found.value["state"][1]) == chance.getstate()[1]

    generator = torch.Generator().manual_seed(7)
    found = converted(tmp_path, generator, protocol)
    assert found.name == "torch.Generator"
    (held,) = (part for part in found.value["state"] if isinstance(part, torch.Tensor))
    assert torch.equal(held, generator.get_state())

    for bits in (np.random.PCG64(1), np.random.MT19937(1), np.random.Philox(1), np.random.SFC64(1)):
        found = converted(tmp_path, np.random.Generator(bits), protocol)
        assert found.name == "numpy.random._pickle.__generator_ctor"
        (inner,) = found.value["args"]
        state = inner.value["state"][0]
        assert state["bit_generator"] == type(bits).__name__
        expected: Any = bits.state["state"]
        for key, value in expected.items():
            held = state["state"][key]
            assert np.array_equal(held, value) if isinstance(value, np.ndarray) else held == value
        assert inner.value["state"][1].name == "numpy.random.bit_generator.SeedSequence"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_records(tmp_path: Path, protocol: int) -> None:
    records = np.array([(1.5, [1, 2]), (2.5, [3, 4])], [("a", "<f4"), ("b", ">i2", (2,))])
    dtype = [
        {"name": "a", "dtype": "<f4", "offset": 0},
        {"name": "b", "dtype": {"base": ">i2", "shape": [2]}, "offset": 4},
    ]
    expected = Typed("numpy.array", {"dtype": dtype, "shape": [2], "order": "C", "data": records.tobytes()})
    assert converted(tmp_path, records, protocol) == expected
    assert converted(tmp_path, records.view(np.recarray), protocol) == expected
    assert converted(tmp_path, records[0], protocol).value["data"] == records[0].tobytes()
    deep = np.zeros(1, [("x", [("y", "u1"), ("z", "<U2")]), ("o", "M8[ms]")])
    assert converted(tmp_path, deep, protocol).value["dtype"] == [
        {
            "name": "x",
            "dtype": [{"name": "y", "dtype": "|u1", "offset": 0}, {"name": "z", "dtype": "<U2", "offset": 1}],
            "offset": 0,
        },
        {"name": "o", "dtype": "<M8[ms]", "offset": 9},
    ]
    objects = np.array([(1, {"k": 2})], [("a", "i4"), ("o", object)])
    assert converted(tmp_path, objects, protocol).value["values"] == [(1, {"k": 2})]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_masked_arrays(tmp_path: Path, protocol: int) -> None:
    masked = np.ma.array(np.arange(6.0).reshape(2, 3), mask=np.arange(6).reshape(2, 3) % 4 == 1, fill_value=-1)
    found = converted(tmp_path, masked, protocol)
    assert found.name == "numpy.ma.MaskedArray"
    assert np.array_equal(found.value["data"], masked.data)
    assert np.array_equal(found.value["mask"], masked.mask)
    assert np.array_equal(found.value["fill_value"], masked.fill_value)
    mask: Any = [(0, 1), (1, 0)]
    records = np.ma.array(np.zeros(2, [("a", "f4"), ("b", "i2")]), mask=mask)
    assert converted(tmp_path, records, protocol).value["mask"] == records.mask.tobytes()


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # matrices
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_classes_of_arrays(tmp_path: Path, protocol: int) -> None:
    matrix = np.matrix([[1.0, 2.0]])
    mapped = np.memmap(tmp_path / "mapped", np.float32, "w+", shape=(3,))
    for value in (matrix, mapped):
        assert np.array_equal(converted(tmp_path, value, protocol), np.asarray(value))
    (tmp_path / "mapped").unlink()
    report = ckptfmt.convert(tmp_path / "a.pth", tmp_path / "b.ckptfmt")
    assert any("memmap" in item.what for item in report.findings.dropped)
    text = np.array(["a", "long text"], np.dtypes.StringDType())
    assert converted(tmp_path, text, protocol).value["values"] == ["a", "long text"]
    polynomial = converted(tmp_path, np.polynomial.Polynomial([1, 2]), protocol)
    assert polynomial.name == "numpy.polynomial.polynomial.Polynomial"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_of_four_bits(tmp_path: Path, protocol: int) -> None:
    data = torch.arange(24, dtype=torch.uint8).reshape(4, 6)
    state = {
        "whole": data.view(torch.float4_e2m1fn_x2),
        "rows": data.view(torch.float4_e2m1fn_x2)[1:3],
        "turned": data.t().contiguous().t().view(torch.uint8).view(torch.float4_e2m1fn_x2),
    }
    torch.save(state, tmp_path / "a.pth", pickle_protocol=protocol)
    ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt", check=True)
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        tensors = {tensor.name: tensor for tensor in checkpoint["_root"].tensors.values()}
        assert {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()} == {
            "whole": ("F4", (4, 12)),
            "rows": ("F4", (2, 12)),
            "turned": ("F4", (4, 12)),
        }
        assert bytes(checkpoint["_root"].read_bytes("whole")) == data.numpy().tobytes()
        assert bytes(checkpoint["_root"].read_bytes("rows")) == data[1:3].numpy().tobytes()
        assert bytes(checkpoint["_root"].read_bytes("turned")) == data.numpy().tobytes()
    ckptfmt.export(tmp_path / "a.ckptfmt", tmp_path / "b.pth", check=True)
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    for key, tensor in state.items():
        assert again[key].dtype is torch.float4_e2m1fn_x2
        assert torch.equal(again[key].view(torch.uint8), tensor.contiguous().view(torch.uint8))


def test_a_named_tuple_of_tensors(tmp_path: Path) -> None:
    found = converted(tmp_path, torch.max(torch.tensor([[1.0, 3.0]]), 1), 2)
    assert found.name == "torch.return_types.max"
    assert torch.equal(found.value["args"][0][0], torch.tensor([3.0]))


def test_moments_in_zones(tmp_path: Path) -> None:
    moment = datetime.datetime(2026, 3, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
    found = converted(tmp_path, moment, 2)
    assert found.name == "datetime.datetime"
    assert found.value["args"][1] == Typed("zoneinfo.ZoneInfo", "Europe/Berlin")
    assert converted(tmp_path, decimal.Context(prec=5), 2).name == "decimal.Context"


def test_the_spellings_are_those_of_python() -> None:
    import _compat_pickle as compat

    for (module, old), (new_module, new) in compat.NAME_MAPPING.items():
        expected = {canonical(Global(new_module, new)), f"{new_module}.{new}"}  # `dbm` was another module before
        assert canonical(Global(module, old)) in expected, (module, old)
    for module, new_module in compat.IMPORT_MAPPING.items():
        expected = {canonical(Global(new_module, "anything")), f"{new_module}.anything"}
        assert canonical(Global(module, "anything")) in expected, module
    lossy = ("exceptions", "socket")  # which knew fewer of them
    for (module, new), (old_module, old) in compat.REVERSE_NAME_MAPPING.items():
        if old_module not in lossy:
            expected = {canonical(Global(module, new)), f"{module}.{new}"}
            assert canonical(Global(old_module, old)) in expected, (module, new)


LOOK = """
import enum, importlib, sys
sys.path.insert(0, {root!r})
from ckptfmt._core.pth.names import exception_names
from ckptfmt._core.pth.names import kinds
missing = []
def found(name):
    module, _, word = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), word, None)
    except ImportError:
        return None
for name in exception_names.EXCEPTIONS:
    value = found(name)
    if value is not None and not (isinstance(value, type) and issubclass(value, BaseException)):
        print("no exception", name)
for name in kinds.ENUMERATIONS:
    value = found(name)
    if value is not None and not issubclass(value, enum.Enum):
        print("no enumeration", name)
for name in kinds.STRUCT_SEQUENCES:
    value = found(name)
    if value is not None and not (issubclass(value, tuple) and hasattr(value, "n_sequence_fields")):
        print("no row", name)
"""


def test_the_lists_hold_what_they_say() -> None:
    """In the Python that runs: each exception is one, and so on; and of the names that are there, most are found."""
    code = LOOK.format(root=str(Path(__file__).parents[2]))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    words = {
        word for word, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert {f"builtins.{word}" for word in words if not word.startswith("_")} <= exception_names.EXCEPTIONS


@pytest.mark.parametrize("full", sorted(kinds.CHECKED))
def test_names_with_two_faces_may_be_named(tmp_path: Path, full: str) -> None:
    module, _, word = full.rpartition(".")
    value = getattr(sys.modules[module], word)
    if value is functools.reduce or full == "operator.getitem":
        module = f"_{module}"
    assert converted(tmp_path, value, 4) == name(full)
    (tmp_path / "b.pth").write_bytes(f"c{module}\n{word}\n)R.".encode())
    with pytest.raises(UnsafeInputError, match=word):
        ckptfmt.convert(tmp_path / "b.pth", tmp_path / "b.ckptfmt")
