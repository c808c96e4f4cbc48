"""What `latest` prints is what `resume` takes and what `ls` marks: over generated directories."""

from __future__ import annotations

import argparse
import io
import pickle
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from ckptfmt._core.container.planning import make_metadata, plan_save
from ckptfmt._core.container.writer import write_plan
from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt._core.ops.directory.listing import Mark, list_directory
from ckptfmt._core.torch.tensors.adapter import TORCH_ADAPTERS
from ckptfmt.torch import Checkpointer, ResumeError, UndecidedError

START = datetime(2026, 1, 1, tzinfo=UTC)
WEIGHTS = np.full(64, 1.25, np.float32).tobytes()

Facts = tuple[tuple[str, Any], ...]


class Value:
    """A component that takes whatever is there."""

    def state_dict(self) -> dict[str, object]:
        return {"w": 1}

    def load_state_dict(self, state: dict[str, object]) -> None:
        pass


class Attack:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("run",))


@cache
def native(facts: Facts) -> bytes:
    """Return a checkpoint of the native format."""
    told = dict(facts)
    told["created"] = START + timedelta(hours=told.pop("hour"))
    state = {"value": {"w": torch.full((64,), 1.25), "n": 1}}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.ckptfmt")
        write_plan(path, plan_save(state, TORCH_ADAPTERS, metadata=make_metadata(state, **told)))
        return path.read_bytes()


PTH: dict[str, Callable[[int], Any]] = {
    "documented": lambda epoch: {"value": {"w": torch.full((64,), 1.25)}, "epoch": epoch},
    "of NumPy's numbers": lambda epoch: {"value": {"w": torch.full((64,), 1.25)}, "epoch": np.int64(epoch)},
    "with arguments": lambda epoch: {"value": {"w": torch.ones(2)}, "epoch": epoch, "args": argparse.Namespace(lr=1)},
    "refused": lambda epoch: {"value": {"w": torch.ones(2)}, "epoch": epoch, "attack": Attack()},
    "weights alone": lambda _: {"w": torch.full((64,), 1.25)},
    "a list": lambda epoch: [epoch],
    "an epoch that is no number": lambda epoch: {"value": {"w": torch.ones(2)}, "epoch": str(epoch)},
}


@cache
def pth(kind: str, epoch: int, form: str) -> bytes:
    """Return a file of PyTorch."""
    state, stream = PTH[kind](epoch), io.BytesIO()
    if form == "pickle" and kind == "a list":  # which holds no tensors
        return pickle.dumps(state)
    torch.save(state, stream, _use_new_zipfile_serialization=form != "stream")
    return stream.getvalue()


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def flipped(data: bytes) -> bytes:
    """Change a byte of the weights, which only their digest tells, or of whatever is there."""
    at = max(data.find(WEIGHTS), 0)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def newer(data: bytes) -> bytes:
    """Raise the major version, as a program of the future would."""
    return data[:11] + b"\x09" + data[12:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "sound": lambda data: data,
    "cut": cut,
    "flipped": flipped,
    "empty": lambda _: b"",
    "junk": lambda _: b"x" * 300,
    "newer": newer,
}

small = st.sampled_from
facts = st.fixed_dictionaries(
    {
        "run_id": small(["a", "a", "b", None]),
        "generation": small([None, 1, 2]),
        "step": small([None, 0, 1, 2]),
        "epoch": small([None, 0, 1, 2]),
        "hour": small([0, 1, 2, 1_000_000]),
    }
).map(lambda found: tuple(sorted(found.items())))
natives = st.tuples(small([".ckptfmt"] * 5 + [".pth"]), facts.map(native))
pths = st.tuples(
    small([".pth", ".pt"]), st.builds(pth, small(sorted(PTH)), st.integers(0, 2), small(["zip", "stream", "pickle"]))
)
files = st.lists(
    st.tuples(
        st.one_of(natives, natives, pths),
        small(["sound"] * 6 + sorted(DAMAGES)),
        st.booleans(),  # pinned
        small([False, False, False, True]),  # a link
    ),
    max_size=6,
)


def put(directory: Path, chosen: list[Any]) -> None:
    for number, ((extension, data), damage, pinned, link) in enumerate(chosen):
        path = directory / f"{(number * 7) % 10}{extension}"
        place = path.with_suffix(".elsewhere") if link else path
        place.write_bytes(DAMAGES[damage](data))
        if link:
            path.symlink_to(place)
        if pinned:
            Path(f"{path}.pin").touch()


def taken(directory: Path, run_id: str | None) -> str | None:
    """Return the name of what a training resumes from; None if it begins anew, or what keeps it from beginning."""
    ckpt = Checkpointer(directory, {"value": Value()}, run_id=run_id)
    try:
        report = ckpt.resume(quiet=True, allow_mismatch=["value", "rng"])
        return None if report.path is None else Path(report.path).name
    except UndecidedError:
        return "undecided"
    except ResumeError:
        return "useless"
    finally:
        ckpt.close()


def printed(directory: Path, run_id: str | None, *, verify: bool) -> str | None:
    report = find_latest(directory, run_id=run_id, verify=verify)
    if report.resumable:
        assert report.file is not None
        return report.file.name
    if report.undecided:
        return "undecided"
    return "useless" if report.skipped else None


@given(files, small([None, None, "a", "b", "c"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example([], None)
@example([((".pth", pth("documented", 1, "zip")), "flipped", False, False)], None)
def test_latest_prints_what_resume_takes_and_ls_marks_it(chosen: list[Any], run_id: str | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        put(directory, chosen)
        by_index = printed(directory, run_id, verify=False)
        by_content = printed(directory, run_id, verify=True)
        event(f"printed: {by_content if by_content in (None, 'undecided', 'useless') else 'a file'}")
        if run_id is None:
            marked = [entry.name for entry in list_directory(directory).entries if Mark.RESUME in entry.marks]
            assert marked == ([] if by_index in (None, "undecided", "useless") else [by_index])
        assert taken(directory, run_id) == by_content
