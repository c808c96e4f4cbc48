"""An epoch after a resume that only repeats an earlier one is refused or told."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ckptfmt import MismatchError
from ckptfmt.torch import Checkpointer

BATCHES = 5
EPOCHS = 4
Make = Callable[[int], Any]


def run(directory: Path, make: Make, stop: tuple[str, int] | None = None, **options: Any) -> list[Any]:
    """Return the batches of a process until its end or a stop after a step or an epoch; the body draws too."""
    random.seed(0)
    torch.manual_seed(0)
    ckpt = Checkpointer(directory, {}, save_interval_steps=1, background=False, signals=())
    ckpt.resume(quiet=True, **options)
    batches = []
    for epoch in ckpt.epochs(EPOCHS):
        for batch in ckpt.batches(make(epoch)):
            batches.append((epoch, torch.as_tensor(batch).tolist(), torch.rand(()).item()))
            ckpt.step()
            if stop == ("step", ckpt.global_step):
                return batches
        ckpt.end_epoch()
        if stop == ("epoch", epoch):
            return batches
    return batches


def order(seed: int, batches: int = BATCHES) -> torch.Tensor:
    return torch.randperm(4 * batches, generator=torch.Generator().manual_seed(seed)).view(batches, 4)


def hidden(batches: int = BATCHES) -> Make:
    """Lists of batches, by a count of calls that no loader leads to."""
    calls = itertools.count()
    return lambda _: list(order(next(calls), batches))


class Lines(IterableDataset[int]):
    """The same in each pass, from an iterator of the pass."""

    def __iter__(self) -> Iterator[int]:
        self.lines = (number for number in range(4 * BATCHES))
        return self.lines


def always(loader: Any) -> Callable[[], Make]:
    return lambda: lambda _: loader


def of_one_loader(around: Callable[[Any], Any]) -> Callable[[], Make]:
    def make() -> Make:
        loader: DataLoader[Any] = DataLoader(list(range(20)), 4, shuffle=True)  # type: ignore[arg-type]  # a list will do
        return lambda _: around(loader)

    return make


def listed() -> Make:
    batches = list(range(BATCHES))
    return lambda epoch: batches if epoch % 2 else batches[::-1]


class Turns:
    """Begins like the first pass in every other one, by a count that comes back."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.passes += 1
        yield from order(self.passes % 2)


class ByEpoch:
    """Is told which of two orders to give."""

    turn = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from order(self.turn)


def told() -> Make:
    loader = ByEpoch()

    def make(epoch: int) -> Any:
        loader.turn = epoch % 2
        return loader

    return make


def with_persistent_workers() -> Make:
    data: Any = list(range(20))
    loader: DataLoader[Any] = DataLoader(data, 4, shuffle=True, num_workers=1, persistent_workers=True)
    return lambda _: map(torch.Tensor.clone, loader)


EXACT: dict[str, Callable[[], Make]] = {
    "range": always(range(BATCHES)),
    "list": always(list(order(0))),
    "tensor": always(order(0)),
    "one batch": always([1]),
    "sequential": lambda: always(DataLoader(list(range(20)), 4))(),  # type: ignore[arg-type]  # as above
    "lines": lambda: always(DataLoader(Lines(), 4))(),
    "lists by epoch": lambda: lambda epoch: list(order(epoch)),
    "shuffled anew": lambda: lambda _: random.sample(range(BATCHES), BATCHES),
    "loader": of_one_loader(lambda loader: loader),
    "iter": of_one_loader(iter),
    "zip": of_one_loader(lambda loader: (one for (one,) in zip(loader, strict=True))),
    "map": of_one_loader(lambda loader: map(torch.Tensor.clone, loader)),
    "islice": of_one_loader(lambda loader: itertools.islice(loader, 3)),
    "generator": of_one_loader(lambda loader: (batch for batch in loader)),
    "chain": of_one_loader(lambda loader: itertools.chain(loader, loader)),
}


@pytest.mark.parametrize("name", EXACT)
def test_no_false_alarm(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = run(tmp_path / "whole", EXACT[name]())
    for stop in [("step", 1), *(("epoch", epoch) for epoch in range(EPOCHS - 1))]:
        path = tmp_path / f"{stop}"
        assert [*run(path, EXACT[name](), stop), *run(path, EXACT[name]())] == whole, stop
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_iterator_of_persistent_workers_is_not_taken_for_one_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stop in (("epoch", 1), None):
        run(tmp_path, with_persistent_workers(), stop)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ckptfmt: loader: ")]
    assert all("persistent_workers" in line for line in told)


class NoisyLines(IterableDataset[torch.Tensor]):
    """The same in each pass, with noise of the worker on top."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (number + torch.rand(()) for number in range(4 * BATCHES))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_persistent_workers_do_not_repeat_the_draws_of_earlier_epochs(tmp_path: Path) -> None:
    def make() -> Make:
        seeded = torch.Generator().manual_seed(5)
        options: Any = {"num_workers": 1, "persistent_workers": True, "prefetch_factor": 2 * BATCHES}
        loader: DataLoader[Any] = DataLoader(NoisyLines(), 4, generator=seeded, **options)
        return lambda _: loader

    earlier = run(tmp_path, make(), ("epoch", 1))
    resumed = run(tmp_path, make(), ("epoch", 2))
    assert len(resumed) == BATCHES
    assert not {str(batch) for _, batch, _ in earlier} & {str(batch) for _, batch, _ in resumed}


def test_lists_in_turns_are_told_once_at_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = run(tmp_path / "whole", listed())
    alarms = []
    for epoch in range(EPOCHS - 1):
        path = tmp_path / f"{epoch}"
        assert [*run(path, listed(), ("epoch", epoch)), *run(path, listed())] == whole
        alarms.append(capsys.readouterr().err.count("ckptfmt: loader: "))
    assert alarms == [0, 1, 0]


@pytest.mark.parametrize("epoch", range(EPOCHS - 1))
@pytest.mark.parametrize("make", [lambda: always(Turns())(), told])
def test_turns_by_something_that_is_seen_are_not_refused(tmp_path: Path, make: Callable[[], Make], epoch: int) -> None:
    whole = run(tmp_path / "whole", make())
    path = tmp_path / "parts"
    assert [*run(path, make(), ("epoch", epoch)), *run(path, make())] == whole


def test_an_epoch_that_repeats_an_earlier_one_is_refused_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, hidden(), ("epoch", 2))
    for _ in range(2):
        with pytest.raises(MismatchError, match=r"loader: .*allow_mismatch"):
            run(tmp_path, hidden())
    assert capsys.readouterr().err == ""
    assert len(run(tmp_path, hidden(), allow_mismatch=("progress",))) == BATCHES - 3
    assert "allow_mismatch" in capsys.readouterr().err


def test_it_is_told_where_there_is_little_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, hidden(2), ("epoch", 1))
    run(tmp_path, hidden(2))
    assert capsys.readouterr().err.count("ckptfmt: loader: ") == 1


@pytest.mark.parametrize("stops", [[("epoch", 0)], [("epoch", 0), ("epoch", 1)], [("epoch", 0), ("step", 6)]])
def test_after_the_first_epoch_it_is_told_as_soon_as_it_shows(
    tmp_path: Path, stops: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    for stop in stops:
        run(tmp_path, hidden(), stop)
    assert capsys.readouterr().err == ""
    if len(stops) == 2 and stops[-1][0] == "epoch":
        made = hidden()
        made(0)  # two epochs were the same: a third that is another one shows it
        run(tmp_path, made)
    else:
        run(tmp_path, hidden())
    assert "ckptfmt: loader: " in capsys.readouterr().err


def endless() -> Make:
    def batches() -> Iterator[torch.Tensor]:
        for seed in itertools.count():
            yield from order(seed)

    made = batches()
    return lambda _: itertools.islice(made, 3)


def cycled() -> Make:
    made = itertools.cycle(order(0))
    return lambda _: map(lambda _, batch: batch, range(3), made)


@pytest.mark.parametrize("make", [endless, cycled])
def test_an_iterator_that_goes_on_behind_the_loader_is_told(
    tmp_path: Path, make: Callable[[], Make], capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, make(), ("epoch", 0))
    assert capsys.readouterr().err == ""
    run(tmp_path, make(), ("epoch", 1))
    assert "ckptfmt: loader: " in capsys.readouterr().err


def in_place() -> Make:
    batches = list(order(0))

    def shuffled(_: int) -> Any:
        random.shuffle(batches)
        return batches

    return shuffled


@pytest.mark.parametrize("step", range(BATCHES + 1, 2 * BATCHES))
def test_a_list_that_was_shuffled_in_place_is_refused_in_mid_epoch(tmp_path: Path, step: int) -> None:
    run(tmp_path, in_place(), ("step", step))
    with pytest.raises(MismatchError, match=r"loader: .*allow_mismatch"):
        run(tmp_path, in_place())


@pytest.mark.parametrize("epoch", range(EPOCHS - 1))
def test_a_list_that_is_shuffled_in_place_is_told(
    tmp_path: Path, epoch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, in_place(), ("epoch", epoch))
    assert capsys.readouterr().err == ""
    run(tmp_path, in_place())
    assert "ckptfmt: loader: " in capsys.readouterr().err


def noisy(labels: Callable[[int], torch.Tensor]) -> Make:
    """Batches of a field with noise on top and of labels; the order follows from a count of calls that is hidden."""
    calls = itertools.count()
    return lambda _: ((torch.rand(16), batch) for batch in labels(next(calls)))


def steps(directory: Path, make: Make, stop: int | None = None, epochs: int = EPOCHS) -> int:
    torch.manual_seed(0)
    ckpt = Checkpointer(directory, {}, save_interval_steps=1, background=False, signals=())
    ckpt.resume(quiet=True)
    done = 0
    for epoch in ckpt.epochs(epochs):
        for _ in ckpt.batches(make(epoch)):
            ckpt.step()
            done += 1
        ckpt.end_epoch()
        if epoch == stop:
            break
    return done


def test_noise_on_top_does_not_hide_a_repetition(tmp_path: Path) -> None:
    def shuffled(call: int) -> torch.Tensor:
        return torch.randperm(16 * BATCHES, generator=torch.Generator().manual_seed(call)).view(BATCHES, 16)

    steps(tmp_path, noisy(shuffled), 1)
    with pytest.raises(MismatchError, match=r"loader: .*allow_mismatch"):
        steps(tmp_path, noisy(shuffled))


@pytest.mark.parametrize("stop", range(EPOCHS - 1))
def test_noise_on_top_of_a_fixed_order_is_no_repetition(
    tmp_path: Path, stop: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fixed(_: int) -> torch.Tensor:
        return torch.arange(16 * BATCHES).view(BATCHES, 16)

    assert steps(tmp_path, noisy(fixed), stop) + steps(tmp_path, noisy(fixed)) == EPOCHS * BATCHES
    assert capsys.readouterr().err == ""


def test_a_repetition_is_told_where_no_later_epoch_could_show_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(tmp_path, hidden(), 0)
    steps(tmp_path, hidden(), epochs=2)
    assert capsys.readouterr().err.count("ckptfmt: loader: ") == 1


def test_the_last_epoch_of_a_loader_in_order_is_no_repetition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(tmp_path, always(loader_of(Augmented()))(), 0)
    steps(tmp_path, always(loader_of(Augmented()))(), epochs=2)
    assert capsys.readouterr().err == ""


class Augmented(Dataset[torch.Tensor]):
    """Samples of which nothing is the same twice."""

    def __len__(self) -> int:
        return 4 * BATCHES * 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return index + torch.rand(16)


CALLS = ModuleType("calls")  # attributes of modules are not searched


class Hidden(Sampler[int]):
    """Orders by a count of calls that the search does not find."""

    def __len__(self) -> int:
        return len(Augmented())

    def __iter__(self) -> Iterator[int]:
        return iter(order(next(CALLS.count), 2 * BATCHES).flatten().tolist())


def loader_of(data: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(data, 4, **options)


def augmented(workers: int = 0) -> Make:
    CALLS.count = itertools.count()  # type: ignore[attr-defined]  # made here
    return always(loader_of(Augmented(), sampler=Hidden(), num_workers=workers))()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_noise_in_every_field_does_not_hide_a_repetition_of_indices(tmp_path: Path, workers: int) -> None:
    steps(tmp_path, augmented(workers), 1)
    with pytest.raises(MismatchError):
        steps(tmp_path, augmented(workers))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_other_workers_change_what_is_known_of_indices(tmp_path: Path) -> None:
    def fixed(workers: int) -> Make:
        return always(loader_of(Augmented(), sampler=range(40), num_workers=workers))()

    steps(tmp_path, fixed(1), 0)
    steps(tmp_path, fixed(0), 1)
    assert steps(tmp_path, fixed(0)) == 10 * (EPOCHS - 2)


def test_a_repetition_of_indices_is_told_after_the_last_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(tmp_path, augmented(), 0)
    steps(tmp_path, augmented(), epochs=2)
    assert capsys.readouterr().err.count("ckptfmt: loader: ") == 1
