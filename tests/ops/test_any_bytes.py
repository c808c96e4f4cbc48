"""Any bytes in: a result, or one error of ours. Each reader of foreign formats, and each command that reads them.

Files are changed byte by byte, and built field by field of values that a parser may stumble over.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckptfmt._core.format.index import Metadata
from ckptfmt._core.ops.comparison.diff import diff_files
from ckptfmt._core.ops.conversion.convert import open_convertible
from ckptfmt._core.ops.conversion.transcode import plan_rewrite
from ckptfmt._core.ops.directory.verify import read_all, verify_paths
from ckptfmt._core.ops.inspection.inspect import inspect_file
from ckptfmt.errors import CkptfmtError
from tests.cli.conftest import invoke
from tests.pth import legacy_files
from tests.pth.attacks import global_of, stream_of, tar_of, text, zip_of

Bytes = Callable[[st.DataObject], bytes]


def survives(path: Path) -> bool:
    """Read a file or directory in every way that the library has; say whether a conversion would take it."""
    for act in (inspect_file, lambda path: diff_files(path, path, values=True)):
        with contextlib.suppress(CkptfmtError):
            json.dumps(act(path).to_json())
    if path.is_file():
        verify_paths([path])
    try:
        with open_convertible(str(path)) as file:
            read_all(file)
            plan = plan_rewrite(file, Metadata(), codec="none", advance=lambda _: None)
            for member in plan.members:
                for part in member.parts:
                    part.read()
            file.finish()
    except CkptfmtError:
        return False
    return True


def commands_survive(path: Path) -> None:
    """Run the commands on a file or directory: none ends in an exception."""
    for arguments in (["inspect"], ["inspect", "--tree", "--all"], ["inspect", "--json"], ["inspect", "--stats"]):
        check(*arguments, path)
    check("diff", "--values", "--all", path, path)
    check("diff", "--json", path, path)
    check("ls", path.parent)
    check("ls", "--json", path.parent)
    for target in ("out.ckptfmt", "out.pth", "out.npz", "out.safetensors"):
        check("convert", path, path.parent / target)
        (path.parent / target).unlink(missing_ok=True)


def check(*arguments: str | Path) -> None:
    result = invoke(*arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code in (0, 1, 3), result.output


@cache
def sound() -> tuple[tuple[str, bytes], ...]:
    """Return small files of each format, with the names that they usually have."""
    arrays = {"w": np.arange(6.0), "v": np.asfortranarray(np.ones((2, 3), ">c8")), "text": np.array(["a", "bc"])}
    packed, plain = io.BytesIO(), io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]  # its keywords are arrays
    np.savez(plain, **arrays)  # type: ignore[arg-type]  # its keywords are arrays
    weights = safetensors.numpy.save({"w": np.arange(4.0), "v": np.ones((2, 3), np.int32)}, {"a": "b"})
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.pth"
        script: Any = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)))
        script.save(str(path))
        scripted = path.read_bytes()
        zipped = legacy_files.save(legacy_files.documented(), path).read_bytes()
        streamed = legacy_files.save(legacy_files.documented(), path, stream=True).read_bytes()
        tarred = legacy_files.save_tar({"a": torch.arange(6.0)}, path).read_bytes()
    return (
        ("a.npz", packed.getvalue()),
        ("a.npz", plain.getvalue()),
        ("a.safetensors", weights),
        ("a.pt", scripted),
        ("a.pth", zipped),
        ("a.pth", streamed),
        ("a.pth.tar", tarred),
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript is given up
def test_what_is_sound_is_taken(tmp_path: Path) -> None:
    for number, (name, content) in enumerate(sound()):
        path = tmp_path / f"{number}{name}"
        path.write_bytes(content)
        assert survives(path) == (not name.endswith(".npz")), "text in an array has no dtype of ours"


@given(st.sampled_from(range(7)), st.data())
def test_changed_bytes(directory: Path, number: int, data: st.DataObject) -> None:
    name, content = sound()[number]
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        match data.draw(st.integers(0, 3)):
            case 0 if at < len(changed):
                changed[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
            case 1:
                del changed[at : at + data.draw(st.integers(1, 64))]
            case 2:
                changed[at:at] = data.draw(st.binary(max_size=16))
            case _:
                changed[at : at + 8] = struct.pack("<Q", data.draw(st.sampled_from([1 << 31, 1 << 63, (1 << 64) - 1])))
    (directory / name).write_bytes(changed)
    survives(directory / name)


# -- zip archives, field by field

FIELDS = st.sampled_from([0, 1, 2, 8, 30, 0x7FFF, 0xFFFF]) | st.integers(0, 0xFFFF)
WIDE = st.sampled_from([0, 1, 46, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]) | st.integers(0, 0xFFFFFFFF)


def archive(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(name, data)
        made.writestr(name.replace("a.npy", "b.npy").replace("data.pkl", "version"), data)
    return buffer.getvalue()


@given(st.sampled_from(["a.npy", "archive/data.pkl"]), st.data())
def test_zip_archives_with_any_fields(directory: Path, name: str, data: st.DataObject) -> None:
    """One or two fields of the headers, the directory or the end record have any value."""
    content = bytearray(archive(name, npy() if name == "a.npy" else pickle.dumps({"epoch": 1}, 2)))
    layouts = {b"PK\x03\x04": "<4xHHHHHIIIHH", b"PK\x01\x02": "<4xHHHHHHIIIHHHHHII", b"PK\x05\x06": "<4xHHHHIIH"}
    for _ in range(data.draw(st.integers(1, 2))):
        magic = data.draw(st.sampled_from(sorted(layouts)))
        layout = layouts[magic]
        at = content.find(magic)
        if at < 0 or at + struct.calcsize(layout) > len(content):
            continue
        values = list(struct.unpack_from(layout, content, at))
        which = data.draw(st.integers(0, len(values) - 1))
        values[which] = data.draw(WIDE if layout[3:][which] == "I" else FIELDS)
        struct.pack_into(layout.replace("4x", "4s"), content, at, magic, *values)
    path = directory / ("a.npz" if name == "a.npy" else "a.pth")
    path.write_bytes(content)
    survives(path)


# -- headers of NumPy's arrays

DIGITS = st.sampled_from(["0", "1", "2", "00", "-1", "9" * 19, "9" * 5000, "1e3", "0x10", "1_0", "2L", "True"])
DESCR = st.sampled_from(
    [
        *("'<f4'", "'f4'", "'|O'", "'<f16'", "'<c0'", "'>U'", "'<M8[s]'", "'\\ud800'", "'\\x3cf4'", "5", "[]"),
        *(f"'<U{'9' * 9}'", f"'<x{'9' * 5000}'"),
        *("[('a', '<f4')]", "[('a', '<f4', (2,))]", "[('a', [('b', '|O')])]", "[('a',)]"),
    ]
)
SHAPE = st.lists(DIGITS, max_size=4).map(lambda sizes: f"({', '.join(sizes)},)") | st.sampled_from(
    ["()", "(2,)", "[2]", "2", "(2,,)", "((2,),)", "(" * 5000, "(" + "1," * 4000 + ")", "{2}", "(2"]
)


def npy(
    descr: str = "'<f4'", order: str = "False", shape: str = "(2,)", data: bytes = bytes(8), version: int = 1
) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode("utf-8", "surrogatepass")
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + data


@given(
    DESCR,
    st.sampled_from(["True", "False", "1", "None", "'True'"]),
    SHAPE,
    st.sampled_from([0, 4, 8, 32]),
    st.sampled_from([0, 1, 2, 3, 4, 255]),
)
@example("'<f4'", "False", "(0, 9" + "9" * 4200 + ")", 0, 1)
@example("'<f4'", "False", "(" + "9," * 4000 + ")", 0, 2)
def test_arrays_with_any_header(directory: Path, descr: str, order: str, shape: str, nbytes: int, version: int) -> None:
    path = directory / "a.npz"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", method) as made:
            made.writestr("a.npy", npy(descr, order, shape, bytes(nbytes), version))
        survives(path)


@given(st.text(st.sampled_from("{}()[],: '\"\\'0129LTrueFalse<f4\n\tdescr"), max_size=60))
def test_arrays_with_any_text_for_a_header(directory: Path, header: str) -> None:
    path = directory / "a.npz"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
    survives(path)


# -- JSON: headers of safetensors, and the files beside weights of Hugging Face

HUGE = [10**4299, -(10**4299), 1 << 63, (1 << 64) + 1, -1, 0, 1, 1 << 53]
PLAIN = (
    st.none()
    | st.booleans()
    | st.sampled_from(HUGE)
    | st.floats()
    | st.sampled_from(
        ["", "F32", "\ud800", "\x00", "../x", "\x1b[2J", "eval_loss", "__metadata__", "model.safetensors", "a" * 300]
    )
)
NAMES = st.sampled_from(["dtype", "shape", "data_offsets", "global_step", "epoch", "step", "log_history", "loss"]) | (
    st.sampled_from(["weight_map", "metadata", "eval_\ud800", "", "\x00", "a.b"])
)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)


def header(document: object, data: bytes = b"") -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text + data


ENTRY = st.fixed_dictionaries(
    {"dtype": st.just("F32") | PLAIN, "shape": st.just([2]) | st.lists(PLAIN, max_size=4) | JSON,
     "data_offsets": st.just([0, 8]) | st.lists(PLAIN, max_size=3)}
)  # fmt: skip


@given(st.dictionaries(NAMES, ENTRY | JSON, max_size=3) | JSON, st.sampled_from([0, 8, 9]))
@example({"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 10**4299]}}, 8)
def test_safetensors_with_any_header(directory: Path, document: object, nbytes: int) -> None:
    path = directory / "a.safetensors"
    path.write_bytes(header(document, bytes(nbytes)))
    survives(path)


NUMBERS = st.sampled_from(["9" * 5000, "1e999", "-0", "01", "1.0", "NaN", "Infinity", "0", "8"])


@given(st.lists(NUMBERS, max_size=3), st.lists(NUMBERS, max_size=3), st.sampled_from(["", " ", "\n", "\t\r"]))
def test_safetensors_with_any_numbers(directory: Path, shape: list[str], offsets: list[str], space: str) -> None:
    text = (
        f'{{{space}"w"{space}:{space}{{"dtype":"U8",{space}"shape":[{",".join(shape)}],'
        f'"data_offsets"{space}:[{",".join(offsets)}]}}{space}}}{space}'
    )
    path = directory / "a.safetensors"
    path.write_bytes(header(text.encode(), bytes(8)))
    survives(path)


@given(st.text(st.sampled_from('{}[],:"\\u0dA8 \n') | st.characters(codec="utf-8"), max_size=60))
@example('{"__metadata__":{"a":"b"}}')
@example('{"__metadata__":{"a":"b"},"__metadata__":{"a":"b"}}')
@example('{"\\ud800a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}')
@example('{"__metadata__":{"a":"\\udcff"}}')
def test_safetensors_with_any_text_for_a_header(directory: Path, text: str) -> None:
    path = directory / "a.safetensors"
    path.write_bytes(header(text.encode("utf-8", "replace")))
    survives(path)


@given(JSON, JSON, st.just({"weight_map": {"w": "model-1.safetensors"}}) | JSON | st.fixed_dictionaries(
    {"weight_map": st.dictionaries(st.sampled_from(["w", "\ud800"]), PLAIN, max_size=3)}))  # fmt: skip
@example({"epoch": 10**4000}, {"global_step": 10**4000, "epoch": 10**4000, "log_history": []}, {"weight_map": {"w": 1}})
@example({}, {"global_step": 1, "log_history": [{"step": 1, "loss": 10**4000, "eval_\ud800": 1.0}]}, {"weight_map": {}})
@example({}, {}, {"weight_map": {"w": "a\x00b"}})
@example({}, {}, {"weight_map": {"w": "\ud800"}})
def test_directories_of_hugging_face_with_any_json(
    tmp_path_factory: pytest.TempPathFactory, config: object, state: object, index: object
) -> None:
    root = tmp_path_factory.mktemp("hf")
    weights = safetensors.numpy.save({"w": np.ones(2, np.float32)})
    for name in ("model-1.safetensors", "model.safetensors"):
        (root / name).write_bytes(weights)
    for name, document in {
        "config.json": config,
        "trainer_state.json": state,
        "model.safetensors.index.json": index,
    }.items():
        (root / name).write_text(json.dumps(document))
    survives(root)
    (root / "model.safetensors.index.json").unlink()
    survives(root)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{\0", b"{\0}\0", b"9" * 5000, b"", b"\x00", b'"\\ud800"']
)
@pytest.mark.parametrize("name", ["config.json", "trainer_state.json", "model.safetensors.index.json"])
def test_json_that_is_none(tmp_path: Path, name: str, text: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors.numpy.save({"w": np.ones(2, np.float32)}))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(text)
    survives(tmp_path)


# -- the other forms of PyTorch

LINES = st.sampled_from(["class N(Module):", "class ", '  __parameters__ = ["w", ]', "__buffers__ = [", '"w"]', "\\"])
CODE = st.lists(LINES | st.text(max_size=5), max_size=6).map("\n".join)


@given(st.dictionaries(st.sampled_from(["code/__torch__.py", "code/__torch__/n.py", "code/x"]), CODE, max_size=3))
@example({"code/__torch__.py": ""})
@example({"code/__torch__.py": "import torch\n"})
def test_torchscript_with_any_code(directory: Path, code: dict[str, str]) -> None:
    scripted = b"\x80\x02c__torch__\nN\n)\x81}(X\x01\x00\x00\x00wNX\x01\x00\x00\x00vK\x01ub."
    for pickled in (scripted, scripted.replace(b"c__torch__\nN", b"c__torch__.n\nN")):
        members = {name: text.encode() for name, text in code.items()} | {"constants.pkl": pickle.dumps((), 2)}
        (directory / "a.pt").write_bytes(zip_of(pickled, members))
        survives(directory / "a.pt")


SIZES = st.sampled_from([b"77777777777", b"00000000000", b"-0000000001", b"9", b"7" * 12, b"\x80" + b"\xff" * 11, b""])


@given(SIZES, st.binary(max_size=12), st.sampled_from([0, 100, 124, 136, 156, 257, 512]), st.integers(0, 3))
def test_tar_archives_with_any_fields(directory: Path, size: bytes, other: bytes, at: int, member: int) -> None:
    content = bytearray(tar_of({"storages": pickle.dumps(0, 2), "tensors": pickle.dumps(0, 2), "pickle": b"}."}))
    content[124 + 1024 * member :][:12] = size.ljust(12, b"\0")
    content[124 + 1024 * member : 136 + 1024 * member] = size.ljust(12, b"\0")[:12]
    content[at : at + len(other)] = other
    (directory / "a.tar").write_bytes(content)
    survives(directory / "a.tar")


STORAGE = b"(" + text("storage") + global_of("torch", "FloatStorage") + text("0") + text("cpu")
COUNTS = st.sampled_from([0, 1, -1, 1 << 31, 1 << 62, (1 << 63) - 1, -(1 << 63)])


@given(st.lists(COUNTS, max_size=6), st.binary(max_size=40), st.sampled_from([0, 1, 5, 64, 70, 1 << 20, 1 << 40]))
def test_tar_archives_with_any_tensors(directory: Path, numbers: list[int], data: bytes, count: int) -> None:
    storage = pickle.dumps((1, "cpu", None), 2).replace(b"N\x87", b"ctorch\nFloatStorage\n\x87")
    storages = pickle.dumps(min(count, 3), 2) + storage + struct.pack("<q", numbers[0] if numbers else 1) + data
    tensors = pickle.dumps(count, 2) + pickle.dumps((2, 1, None), 2)
    tensors += struct.pack(f"<{len(numbers)}q", *numbers) + data
    for parts in ({"storages": storages}, {"storages": storages + pickle.dumps([(3, 1, *numbers[:2])], 2)}):
        content = tar_of({"storages": b"", "tensors": tensors, "pickle": b"}.", **parts})
        (directory / "a.tar").write_bytes(content)
        survives(directory / "a.tar")


@given(st.lists(COUNTS, min_size=1, max_size=3), st.binary(max_size=40), COUNTS)
def test_streams_with_any_storages(directory: Path, lengths: list[int], data: bytes, elements: int) -> None:
    number = pickle.dumps(elements, 2)[2:-1]
    content = b"\x80\x02}" + text("a") + STORAGE + number + b"NtQs."
    tail = b"".join(struct.pack("<q", length) + data for length in lengths)
    (directory / "a.pth").write_bytes(stream_of(slots={3: content, 4: pickle.dumps(["0"], 2)}, tail=tail))
    survives(directory / "a.pth")


# -- what is read out of a state

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([10**2000, -(10**2000), 1 << 63, -1, 0, 3])
    | st.floats()
    | st.sampled_from(["", "AdamW", "\x1b[2J", b"\xff"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["step", "epoch", "lr", "params", "state", "last_epoch", "_last_lr", b"x", 10**20, None, 0.5, -3]
            ),
            inner,
            max_size=4,
        )
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=10,
)
GROUP = st.dictionaries(st.sampled_from(["params", "lr", "betas", "param_names", b"x", 3, None]), VALUES, max_size=4)
STATE = st.dictionaries(
    st.sampled_from(["epoch", "step", "global_step", "val_loss", "net", "rng", "pytorch-lightning_version", "loops"]),
    VALUES,
    max_size=5,
) | st.fixed_dictionaries(
    {
        "net": st.just(OrderedDict(w=torch.ones(2))),
        "optimizer": st.fixed_dictionaries(
            {
                "state": st.dictionaries(st.integers(0, 2), VALUES, max_size=2),
                "param_groups": st.lists(GROUP, max_size=2),
            }
        ),
        "scheduler": st.fixed_dictionaries({"last_epoch": VALUES, "_last_lr": VALUES, "gamma": VALUES}),
        "progress": st.fixed_dictionaries({"step": VALUES, "epoch": VALUES, "pass": VALUES}),
        "rng": st.dictionaries(st.sampled_from(["python", "numpy", "cuda", "torch", b"x", 5]), VALUES, max_size=3),
        "epoch": VALUES,
        "val_loss": VALUES,
    }
)


@settings(max_examples=30)  # each is read by eleven commands
@given(STATE)
@example({"net": {"w": "\ud800"}})
@example({"net": {}, "epoch": 10**2000, "step": 10**2000, "val_loss": float("nan")})
def test_states_with_any_values(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    path = tmp_path_factory.mktemp("states") / "a.pth"
    torch.save(state, path)
    survives(path)
    commands_survive(path)
