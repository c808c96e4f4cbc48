"""A loader that continues from its own state: batches that come again, or that are left out, are not passed over."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from ckptfmt import MismatchError
from ckptfmt.torch import Checkpointer

# torchdata calls a function of PyTorch that is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")

SAMPLES = 64
BATCH = 4
BATCHES = SAMPLES // BATCH
DATA = torch.arange(SAMPLES * 8.0).view(SAMPLES, 8)
HIDDEN = random.SystemRandom()  # like any source of randomness that nothing can save


class Own:
    """Shuffles by a seed, and keeps its order and its position."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.position = 0
        self._loaded = False

    def __len__(self) -> int:
        return BATCHES

    def shuffled(self) -> list[int]:
        return random.Random(5).sample(range(SAMPLES), SAMPLES)

    def __iter__(self) -> Iterator[torch.Tensor]:
        if not self._loaded:
            self.order, self.position = self.shuffled(), 0
        self._loaded = False
        while self.position < BATCHES:
            self.position += 1
            yield DATA[self.order[(self.position - 1) * BATCH : self.position * BATCH]]

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order, self.position, self._loaded = list(state["order"]), state["position"], True


class Deaf(Own):
    """Starts over: it forgets what it loads."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Behind(Own):
    """Continues with a batch that was done."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "position": state["position"] - 1})


class Ahead(Own):
    """Leaves a batch out: it saves how many it has loaded, not how many it gave."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "position": state["position"] + 1})


class Reshuffled(Own):
    """Continues at the right place in another order."""

    def shuffled(self) -> list[int]:
        return HIDDEN.sample(range(SAMPLES), SAMPLES)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "order": self.shuffled()})


class Replacing(Own):
    """Draws with replacement from few samples: repetition is its nature."""

    def shuffled(self) -> list[int]:
        return random.Random(5).choices(range(8), k=SAMPLES)


class Labelled(Own):
    """The samples with noise on top, and their labels."""

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            yield {"noisy": batch + torch.rand(batch.shape), "ids": batch.clone(), "label": batch[:, 0] % 2}


class ReshuffledLabelled(Labelled, Reshuffled):
    """The same in another order."""


def shuffling(kind: Any, size: int = BATCH) -> Any:
    return kind(DATA, size, shuffle=True)


def train(directory: Path, loader: Any, until: int | None = None, **options: Any) -> list[Any]:
    torch.manual_seed(0)
    checkpointer = Checkpointer(directory, {"net": torch.nn.Linear(1, 1)}, save_interval_steps=1)
    checkpointer.resume(quiet=True, **options)
    batches: list[Any] = []
    for _ in checkpointer.epochs(1):
        for batch in checkpointer.batches(loader):
            batches.append(batch)
            checkpointer.step()
            if checkpointer.global_step == until:
                checkpointer.wait()
                return batches
    return batches


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "loader: " in line]


SOUND: dict[str, Callable[[], Any]] = {
    "own": Own,
    "replacing": Replacing,
    "labelled": Labelled,
    "torchdata": lambda: shuffling(StatefulDataLoader),
    "torchdata of another size": lambda: shuffling(StatefulDataLoader, size=3),
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("stop", [1, 6, 15])
def test_a_sound_one_is_not_doubted(tmp_path: Path, name: str, stop: int, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, SOUND[name](), stop)
    train(tmp_path, SOUND[name]())
    assert told(capsys) == []


@pytest.mark.parametrize(("kind", "stop"), [(Deaf, 1), (Deaf, 6), (Deaf, 15), (Behind, 6), (Behind, 15)])
def test_a_batch_that_comes_again_is_refused_before_it_is_trained_on(
    tmp_path: Path, kind: type[Own], stop: int, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, kind(), stop)
    with pytest.raises(MismatchError):
        train(tmp_path, kind())
    assert told(capsys) == []
    assert len(train(tmp_path, kind(), allow_mismatch=["progress"])) >= BATCHES - stop
    assert len(told(capsys)) >= 1


def test_batches_that_are_left_out_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, Ahead(), 6)
    assert len(train(tmp_path, Ahead())) == BATCHES - 7
    assert len(told(capsys)) == 1


@pytest.mark.parametrize("kind", [Reshuffled, ReshuffledLabelled])
def test_another_order_is_told_by_samples_that_come_again(
    tmp_path: Path, kind: type[Own], capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, kind(), 8)
    train(tmp_path, kind())
    assert len(told(capsys)) == 1
