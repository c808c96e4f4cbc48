"""A position that another version saved, or that is malformed, is refused with its place, and can be let go."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Sampler

import ckptfmt.torch
from ckptfmt import MismatchError
from ckptfmt._core.torch.run.progress import progress_of
from ckptfmt.torch import Checkpointer

BATCHES = 4


class Rich(Sampler[int]):
    """Keeps something of every kind that is saved of a loader."""

    def __init__(self) -> None:
        self.generator = torch.Generator()
        self.passes = 0
        self.recent = deque([0], maxlen=None)
        self.numbers = list(range(200))
        self.weights = torch.zeros(3)
        self.array = np.zeros(3)
        self.known = {0}
        self.count = itertools.count()
        self.items = iter(range(100))

    def __len__(self) -> int:
        return 4 * BATCHES

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        self.recent.append(self.passes)
        self.numbers.reverse()
        self.weights += 1
        self.array += 1
        self.known.add(next(self.count))
        next(self.items)
        return iter(torch.randperm(len(self), generator=self.generator).tolist())


def train(directory: Path, until: int | None = None, **options: Any) -> tuple[list[Any], Any]:
    torch.manual_seed(3)
    sampler = Rich()
    samples: Any = torch.arange(4.0 * BATCHES)
    loader: DataLoader[Any] = DataLoader(samples, 4, sampler=sampler)
    checkpointer = Checkpointer(directory, {"net": torch.nn.Linear(1, 1)}, save_interval_steps=1)
    report = checkpointer.resume(quiet=True, **options)
    batches: list[Any] = []
    for _ in checkpointer.epochs(2):
        for batch in checkpointer.batches(loader):
            batches.append(batch.tolist())
            checkpointer.step()
            if checkpointer.global_step == until:
                checkpointer.wait()
                return batches, report
    return batches, report


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("run")
    train(directory, BATCHES + 2)
    state = ckptfmt.torch.load(max(directory.glob("*.ckptfmt")))
    assert set(state) == {"net", "rng", "progress"}
    values = state["progress"]["loader"]["values"]
    kinds = {kind for value in values.values() for kind in value}
    assert kinds == {"plain", "deque", "integers", "tensor", "array", "set", "count", "place"}
    return dict(state)


def put(directory: Path, state: dict[str, Any]) -> Path:
    ckptfmt.torch.save(state, directory / "ckpt.ckptfmt", run_id="run", step=BATCHES + 2, epoch=1)
    return directory


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values, those of a list's first item only, and none within random states."""
    keys = tree if isinstance(tree, dict) else range(min(len(tree), 1)) if isinstance(tree, list) else ()
    for key in keys:
        yield (*path, key)
        if key not in ("random", "epoch_random", "generators", "own"):
            yield from places(tree[key], (*path, key))


def changed(state: dict[str, Any], path: tuple[Any, ...], change: Callable[[Any, Any], object]) -> dict[str, Any]:
    state = copy.deepcopy({**state, "progress": state["progress"]})
    holder: Any = state["progress"]
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return state


def test_it_resumes_as_it_is(saved: dict[str, Any], tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    (tmp_path / "run").mkdir()
    resumed, report = train(put(tmp_path / "run", saved))
    assert resumed == whole[BATCHES + 2 :]
    assert "progress" in report.restored


def fields_of(tree: Any) -> list[tuple[Any, ...]]:
    """Return the paths of the fields that every version has: not those that the loader decides on."""
    decided = ("generators", "values", "own", "initial", "outside", "lost", "build", "random", "epoch_random", "marks")
    return [path for path in places(tree) if not set(path[:-1]) & set(decided) and isinstance(path[-1], str)]


def test_a_field_that_is_missing_or_unknown_is_refused_with_its_place(saved: dict[str, Any], tmp_path: Path) -> None:
    """As are those of an earlier and of a later version, wherever they are."""
    found = fields_of(saved["progress"])
    assert len(found) > 40
    for path in found:
        *holder, name = path

        def add(tree: Any, key: str) -> None:
            tree[f"later_{key}"] = 1

        for change, named in ((lambda tree, key: tree.pop(key), name), (add, f"later_{name}")):
            with pytest.raises(MismatchError) as caught:
                progress_of(changed(saved, path, change)["progress"])
            (line,) = caught.value.differences
            assert line.startswith(".".join(("progress", *holder)))
            assert repr(named) in line
            assert "allow_mismatch" in line
    with pytest.raises(MismatchError) as caught:
        train(put(tmp_path, changed(saved, found[-1], lambda tree, key: tree.pop(key))))
    assert len(caught.value.differences) == 1


def test_what_was_refused_can_be_let_go_and_is_reported(saved: dict[str, Any], tmp_path: Path) -> None:
    state = changed(saved, ("loader", "history", "streams"), lambda tree, key: tree.pop(key))
    batches, report = train(put(tmp_path, state), allow_mismatch=["progress"])
    assert (report.step, report.epoch, report.batch) == (BATCHES + 2, 1, 0)
    assert len(batches) == BATCHES  # the unfinished epoch starts over
    assert "progress" not in report.restored
    assert "progress" in report.missing
    assert len(report.mismatched) == 1


@pytest.mark.parametrize("other", [None, True, -1, 1.5, "x", [], [[1]], {}, {"plain": 1}, {"x": {"place": "y"}}])
def test_a_malformed_position_is_an_error_of_ours(saved: dict[str, Any], tmp_path: Path, other: Any) -> None:
    refused = 0
    for number, path in enumerate(places(saved["progress"])):

        def put_other(tree: Any, key: Any) -> None:
            tree[key] = other

        state = changed(saved, path, put_other)
        try:
            progress_of(state["progress"])
        except MismatchError:
            refused += 1
            continue
        if "values" in path[:-1]:
            continue  # well-formed: whether they suit the sampler is for the sampler to say
        directory = tmp_path / str(number)
        directory.mkdir()
        with suppress(MismatchError):
            train(put(directory, state), BATCHES + 3)
    assert refused > 30
