"""A resumed pass has the data of the uninterrupted one, whatever its loader keeps; where it cannot, that is told."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler
from torch.utils.data.distributed import DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from ckptfmt import MismatchError
from ckptfmt.torch import Checkpointer

SAMPLES = 12
EPOCHS = 3
STEPS = 9

workers = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create",
    "ignore:.*multi-threaded, use of fork:DeprecationWarning",
    "ignore::UserWarning",
)
Change = Callable[[Any, int], object]


class Noisy(Dataset[torch.Tensor]):
    """Samples that tell their number, with noise of every global generator on top."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index), random.random() + float(np.random.rand()) + torch.rand(()).item()])


class Quiet(Noisy):
    """The same without noise."""

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index)])


def order(seed: int) -> list[int]:
    numbers: list[int] = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(seed)).tolist()
    return numbers


class Counting(Sampler[int]):
    """Counts its passes when they begin."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return iter(order(self.epoch))


class CountingLate(Counting):
    """Counts its passes when they end."""

    def __iter__(self) -> Iterator[int]:
        yield from order(self.epoch)
        self.epoch += 1


class Lazy(Counting):
    """Makes its generator at the first pass."""

    generator: torch.Generator | None = None

    def __iter__(self) -> Iterator[int]:
        if self.generator is None:
            self.generator = torch.Generator().manual_seed(7)
        return iter(torch.randperm(SAMPLES, generator=self.generator).tolist())


class LazyNumpy(Counting):
    """The same, and has no attribute for it before."""

    def __iter__(self) -> Iterator[int]:
        if not hasattr(self, "numpy"):
            self.numpy = np.random.default_rng(7)
        return iter(self.numpy.permutation(SAMPLES).tolist())


class InPlace(Counting):
    """Shuffles a list, an array or a tensor in place, each pass from where the last one left it."""

    def __init__(self, kind: str) -> None:
        numbers = list(range(SAMPLES)) * 6
        self.order: Any = {"list": numbers, "array": np.array(numbers), "tensor": torch.tensor(numbers)}[kind]

    def __iter__(self) -> Iterator[int]:
        shuffled = [self.order[index] for index in np.random.RandomState(3).permutation(len(self.order))]
        self.order[:] = torch.stack(shuffled) if isinstance(self.order, torch.Tensor) else shuffled
        return iter([int(number) for number in self.order[:SAMPLES]])


class Endless(Counting):
    """Goes on in one iterator from pass to pass, which nothing can save."""

    def __init__(self) -> None:
        self.numbers = (number for seed in range(99) for number in order(seed))

    def __iter__(self) -> Iterator[int]:
        return (next(self.numbers) for _ in range(SAMPLES))


class Stream(IterableDataset[torch.Tensor]):
    """Counts its passes."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.epoch += 1
        return (torch.tensor([float(number), torch.rand(()).item()]) for number in order(self.epoch))


class Buffered(IterableDataset[torch.Tensor]):
    """Shuffles by a buffer in the training's process, with the generator that the loop's body draws from."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[torch.Tensor]:
        buffer = list(range(self.size))
        for number in range(self.size, 10 * self.size):
            position = random.randrange(self.size)
            yield torch.tensor([buffer[position]])
            buffer[position] = number


class Opening(Quiet):
    """Opens its file when it is first used, and marks that it did."""

    def __init__(self) -> None:
        self.file: Any = None
        self.is_open = False
        self.reads = 0

    def __getitem__(self, index: int) -> torch.Tensor:
        if not self.is_open:
            self.file, self.is_open = iter([]), True
        self.reads += 1
        assert not list(self.file)
        return super().__getitem__(index)


class Ahead:
    """A loader that passes itself off as the one in it and is a batch ahead of it, as Accelerate's are."""

    def __init__(self, loader: Any) -> None:
        self.inner = loader
        self.base_dataloader = loader
        self.iteration = 0

    @property  # type: ignore[misc]  # the lie is the point
    def __class__(self) -> Any:
        return self.inner.__class__

    def __getattr__(self, name: str) -> Any:
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.sampler.epoch = self.iteration
        iterator = iter(self.inner)
        batch = next(iterator)
        for following in iterator:
            yield batch
            batch = following
        yield batch
        self.iteration += 1

    def state_dict(self) -> Any:
        return self.inner.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.inner.load_state_dict(state)


def loader(sampler: Callable[[], Any] = Counting, data: type[Dataset[Any]] = Noisy, **options: Any) -> Any:
    kind = options.pop("kind", DataLoader)
    return kind(data(), 4, sampler=sampler(), **options)


def shuffled(**options: Any) -> Any:
    return options.pop("kind", DataLoader)(options.pop("data", Noisy)(), 4, shuffle=True, **options)


EXACT: dict[str, Callable[[], Any]] = {
    "counting": loader,
    "counting late": lambda: loader(CountingLate),
    "lazy generator": lambda: loader(Lazy),
    "lazy numpy generator": lambda: loader(LazyNumpy),
    "list in place": lambda: loader(lambda: InPlace("list")),
    "array in place": lambda: loader(lambda: InPlace("array")),
    "tensor in place": lambda: loader(lambda: InPlace("tensor")),
    "stream": lambda: DataLoader(Stream(), 4),
    "one ahead": lambda: Ahead(loader()),
    "one ahead of torchdata": lambda: Ahead(loader(kind=StatefulDataLoader)),
    "torchdata": lambda: loader(kind=StatefulDataLoader),
}
STOPS = [*((step, False) for step in range(1, STEPS)), *((epoch, True) for epoch in range(EPOCHS - 1))]


def seen(
    directory: Path,
    make: Callable[[], Any],
    stop: tuple[int, bool] | None = None,
    allow_mismatch: tuple[str, ...] = (),
    before: Change | None = None,
    body: Change | None = None,
) -> list[Any]:
    """Return what a process sees until its end, or its kill after a step or an epoch; the body draws too."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    data = make()
    ckpt = Checkpointer(directory, {}, save_interval_steps=1, background=False, signals=())
    ckpt.resume(quiet=True, allow_mismatch=allow_mismatch)
    batches = []
    for epoch in ckpt.epochs(EPOCHS):
        if before is not None:
            before(data, epoch)
        for batch in ckpt.batches(data):
            batches.append((epoch, batch.tolist(), torch.rand(()).item()))
            if body is not None:
                body(data, epoch)
            ckpt.step()
            if stop == (ckpt.global_step, False):
                return batches
        ckpt.end_epoch()
        if stop == (epoch, True):
            return batches
    return batches


def assert_exact(directory: Path, make: Callable[[], Any], stops: list[tuple[int, bool]], **changes: Any) -> None:
    whole = seen(directory / "whole", make, **changes)
    for stop in stops:
        path = directory / f"{stop}"
        assert [*seen(path, make, stop, **changes), *seen(path, make, **changes)] == whole, stop


@workers
@pytest.mark.parametrize("name", EXACT)
def test_what_passes_change_in_a_loader_comes_back(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_exact(tmp_path, EXACT[name], STOPS)
    assert capsys.readouterr().err == ""


@workers
@pytest.mark.parametrize("kind", [DataLoader, StatefulDataLoader])
def test_what_worker_processes_draw_comes_back(tmp_path: Path, kind: Any) -> None:
    assert_exact(tmp_path, lambda: shuffled(kind=kind, num_workers=2), [(2, False), (4, False), (0, True)])


@pytest.mark.parametrize("stop", [(1, False), (4, False), (5, False), (0, True), (1, True)])
def test_what_the_loop_sets_before_each_pass_is_left_to_it(
    tmp_path: Path, stop: tuple[int, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    def distributed() -> Any:
        return loader(lambda: DistributedSampler(range(SAMPLES), 1, 0))  # type: ignore[arg-type]  # a range will do

    assert_exact(tmp_path / "a", distributed, [stop], before=lambda data, epoch: data.sampler.set_epoch(epoch))
    seeded = lambda: shuffled(generator=torch.Generator().manual_seed(0))  # noqa: E731 - as short as the others
    assert_exact(tmp_path / "b", seeded, [stop], before=lambda data, epoch: data.generator.manual_seed(epoch))
    assert capsys.readouterr().err == ""


def test_a_data_set_that_opens_its_file_at_first_use_opens_it_again(tmp_path: Path) -> None:
    assert_exact(tmp_path, lambda: shuffled(data=Opening), STOPS)


@pytest.mark.parametrize("stop", [(4, False), (8, False)])
def test_another_order_is_a_mismatch_unless_waived(
    tmp_path: Path, stop: tuple[int, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    make = lambda: loader(Endless)  # noqa: E731 - as short as the others
    seen(tmp_path, make, stop)
    with pytest.raises(MismatchError, match=r"loader: .*allow_mismatch"):
        seen(tmp_path, make)
    assert capsys.readouterr().err == ""
    assert len(seen(tmp_path, make, allow_mismatch=("progress",))) == STEPS - stop[0]
    assert "ckptfmt: loader: " in capsys.readouterr().err


@pytest.mark.parametrize("size", [3, 4])
def test_a_buffer_that_is_shuffled_by_the_generator_of_the_loop_never_differs_in_silence(
    tmp_path: Path, size: int
) -> None:
    def run(directory: Path, stop: int | None = None) -> list[Any]:
        random.seed(0)
        ckpt = Checkpointer(directory, {}, save_interval_epochs=None, background=False, signals=())
        ckpt.resume(quiet=True)
        batches = []
        for _ in ckpt.epochs(1):
            for batch in ckpt.batches(DataLoader(Buffered(size), 1)):
                batches.append((batch.tolist(), random.random()))
                ckpt.step()
                if ckpt.global_step == stop:
                    ckpt.save()
                    return batches
        return batches

    whole = run(tmp_path / "whole")
    refused = 0
    for stop in range(1, len(whole)):
        begun = run(tmp_path / f"{stop}", stop)
        try:
            assert begun + run(tmp_path / f"{stop}") == whole, stop
        except MismatchError:
            refused += 1
    assert 0 < refused < len(whole) - 1


def test_other_data_behind_the_same_numbers_are_a_mismatch(tmp_path: Path) -> None:
    class Others(Quiet):
        def __getitem__(self, index: int) -> torch.Tensor:
            return super().__getitem__(index) + 1

    seen(tmp_path, lambda: shuffled(data=Quiet), (2, False))
    with pytest.raises(MismatchError, match=r"loader: .*allow_mismatch"):
        seen(tmp_path, lambda: shuffled(data=Others))


def test_what_cannot_be_put_back_is_told_between_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen(tmp_path, lambda: loader(Endless), (0, True))
    seen(tmp_path, lambda: loader(Endless))
    assert "sampler.numbers" in capsys.readouterr().err


def test_a_loader_built_in_another_way_is_told_between_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen(tmp_path, lambda: shuffled(data=Quiet), (1, True))
    assert capsys.readouterr().err == ""
    seen(tmp_path, lambda: DataLoader(Quiet(), 6))
    told = capsys.readouterr().err
    assert all(word in told for word in ("batch_size", "RandomSampler", "SequentialSampler"))
    assert set(re.findall(r"\b\d+\b", told)) >= {"4", "6", "3", "2"}


def test_what_the_loop_changes_in_the_data_set_comes_back(tmp_path: Path) -> None:
    class Growing(Quiet):
        def __init__(self) -> None:
            self.level = 0.0

        def __getitem__(self, index: int) -> torch.Tensor:
            return super().__getitem__(index) + self.level

    def grow(data: Any, _: int) -> None:
        data.dataset.level += 1

    assert_exact(tmp_path, lambda: shuffled(data=Growing), STOPS, body=grow)


@workers
def test_persistent_workers_are_told_and_their_streams_are_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"num_workers": 1, "persistent_workers": True}
    seen(tmp_path / "map", lambda: shuffled(**options), (4, False))
    seen(tmp_path / "map", lambda: shuffled(**options))
    assert "persistent_workers" in capsys.readouterr().err
    make = lambda: DataLoader(Stream(), 4, **options)  # type: ignore[arg-type]  # noqa: E731 - mypy sees one type
    seen(tmp_path / "stream", make, (4, False))
    with pytest.raises(MismatchError, match=r"loader: .*allow_mismatch") as caught:
        seen(tmp_path / "stream", make)
    assert any("persistent_workers" in line for line in caught.value.differences)
