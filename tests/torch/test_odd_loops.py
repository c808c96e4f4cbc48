"""Loops of other shapes: early stopping, epochs without batches, several optimizers, odd evaluations, other loaders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import ckptfmt
from ckptfmt.torch import Checkpointer, UsageError
from tests.torch.directories import names
from tests.torch.tiny import Killed, final_state

Train = Callable[[Path, int | None], Any]


def killed_everywhere(tmp_path: Path, train: Train, kills: list[int], *, but: set[str] = frozenset()) -> None:  # type: ignore[assignment]  # it is empty
    """Check that a run that is killed after any of these steps ends as the one that is left alone."""
    calm = train(tmp_path / "calm", None)
    expected = final_state(tmp_path / "calm")
    for kill in kills:
        with pytest.raises(Killed):
            train(tmp_path / f"{kill}", kill)
        assert train(tmp_path / f"{kill}", None) == calm, kill
        ended = final_state(tmp_path / f"{kill}")
        assert {name for name in expected if ended[name] != expected[name]} <= but, kill


def made(directory: Path, components: Any, **options: Any) -> Checkpointer:
    return Checkpointer(directory, components, save_interval_steps=1, **options)


def kill_at(ckpt: Checkpointer, step: int | None) -> None:
    if ckpt.global_step == step:
        ckpt.close()
        raise Killed


# Early stopping


def early_stopping(directory: Path, kill: int | None, epochs: int = 9) -> int:
    ckpt = made(directory, {})
    state = ckpt.variables(best=math.inf, patience=2)
    ckpt.resume(quiet=True)
    for epoch in ckpt.epochs(epochs):
        for _ in ckpt.batches([1, 2]):
            ckpt.step()
            kill_at(ckpt, kill)
        loss = abs(epoch - 2)
        state.patience = 2 if loss < state.best else state.patience - 1
        state.best = min(state.best, loss)
        if state.patience <= 0:
            ckpt.stop()
        ckpt.end_epoch()
    return ckpt.epoch


def test_an_early_stop_is_final(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed_everywhere(tmp_path, early_stopping, [1, 4, 9, 10])
    capsys.readouterr()
    assert early_stopping(tmp_path / "calm", None) == 5
    assert early_stopping(tmp_path / "calm", None, epochs=7) == 5
    assert capsys.readouterr().err.count("nothing left to train: 5 of") == 2
    assert early_stopping(tmp_path / "calm", None, epochs=10) == 6  # more was asked for; the loop stops again


def test_a_stop_after_the_save_is_saved(tmp_path: Path) -> None:
    def train(kind: str) -> int:
        ckpt = made(tmp_path / kind, {})
        ckpt.resume(quiet=True)
        for number in getattr(ckpt, kind)(5):
            (ckpt.step if kind == "steps" else ckpt.end_epoch)()
            if number == 2:
                ckpt.stop()
        return max(ckpt.global_step, ckpt.epoch)

    for kind in ("steps", "epochs"):
        assert (train(kind), train(kind)) == (3, 3)


def test_steps_without_a_number_can_be_stopped(tmp_path: Path) -> None:
    def train(n: int | None = None) -> list[int]:
        ckpt = Checkpointer(tmp_path, {})
        ckpt.resume(quiet=True)
        seen = []
        for step in ckpt.steps(n):
            seen.append(step)
            if step >= 2:
                ckpt.stop()
        return seen

    assert (train(), train(), train(4), train(4)) == ([0, 1, 2], [], [3], [])


def test_a_break_after_a_stop_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ckpt = made(tmp_path, {})
    with pytest.raises(UsageError):
        ckpt.stop()
    ckpt.resume(quiet=True)
    with pytest.raises(UsageError):
        ckpt.stop()
    for _ in ckpt.epochs(3):
        ckpt.stop()
        break
    assert "stop()" in capsys.readouterr().err


# Random numbers after the save


def test_random_numbers_after_the_save_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def train(directory: Path, *, after_step: bool = False, after_epoch: bool = False) -> str:
        ckpt = made(directory, {})
        ckpt.resume(quiet=True)
        for _ in ckpt.epochs(2):
            torch.rand(1)
            for _ in ckpt.batches(DataLoader(torch.rand(4, 1), shuffle=True)):  # type: ignore[arg-type]  # it will do
                torch.rand(1)
                ckpt.step()
                if after_step:
                    torch.rand(1)
            torch.rand(1)
            ckpt.end_epoch()
            if after_epoch:
                torch.rand(1)
        return capsys.readouterr().err

    assert "random numbers" not in train(tmp_path / "neither")
    assert train(tmp_path / "step", after_step=True).count("random numbers") == 1
    assert train(tmp_path / "epoch", after_epoch=True).count("random numbers") == 1


def test_random_numbers_after_a_step_of_steps_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ckpt = Checkpointer(tmp_path, {}, save_interval_steps=3)
    ckpt.resume(quiet=True)
    for step in ckpt.steps(6):
        ckpt.step()
        if step == 1:
            torch.rand(1)  # nothing was saved
    assert "random numbers" not in capsys.readouterr().err
    for _ in ckpt.steps(12):
        ckpt.step()
        torch.rand(1)
    assert capsys.readouterr().err.count("random numbers") == 1


# Epochs without batches, and reinforcement learning


class Cart:
    """An environment that knows its own state."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.place = torch.zeros(2)

    def reset(self) -> torch.Tensor:
        self.place = torch.rand(2, generator=self.generator)
        return self.place

    def step(self, action: torch.Tensor) -> tuple[torch.Tensor, float, bool]:
        self.place = self.place + action + 0.1 * torch.rand(2, generator=self.generator)
        done = bool(self.place.norm() > 2)
        return self.reset() if done else self.place, -float(self.place.norm()), done


class RestorableCart(Cart):
    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]
        self.generator.set_state(state["generator"])


def policy_gradient(directory: Path, kill: int | None) -> list[float]:
    """Train a policy in rollouts that continue from update to update, several optimizer steps for each."""
    torch.manual_seed(0)
    env, policy = RestorableCart(), nn.Linear(2, 2)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.01)
    ckpt = made(directory, {"env": env, "policy": policy, "optimizer": optimizer})
    state = ckpt.variables(obs=env.reset(), returns=[])
    ckpt.resume(quiet=True)
    for _ in ckpt.steps(6):
        kept = []
        for _ in range(5):
            action = policy(state.obs) + 0.1 * torch.randn(2)
            state.obs, reward, _ = env.step(action.detach())
            kept.append((action, reward))
        state.returns = [*state.returns, sum(reward for _, reward in kept)]
        for _ in range(3):
            optimizer.zero_grad()
            loss = sum(((policy(state.obs) - action.detach()) ** 2).sum() * reward for action, reward in kept)
            loss.backward()
            optimizer.step()
        ckpt.step()
        kill_at(ckpt, kill)
    return list(state.returns)


def test_rollouts_that_continue_from_update_to_update(tmp_path: Path) -> None:
    killed_everywhere(tmp_path, policy_gradient, [1, 3, 5])


def test_an_environment_without_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="environment"):
        Checkpointer(tmp_path, {"env": Cart()})


def epochs_alone(directory: Path, kill: int | None) -> int:
    torch.manual_seed(0)
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    ckpt = made(directory, {"net": net, "optimizer": optimizer}, keep_last=2, keep_best=("loss", "min"))
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(4):
        for batch in DataLoader(torch.rand(6, 2), 2, shuffle=True):  # type: ignore[arg-type]  # it will do
            optimizer.zero_grad()
            loss = net(batch).mean()
            loss.backward()
            optimizer.step()
            ckpt.step(loss=loss)
            kill_at(ckpt, kill)
        ckpt.end_epoch(loss=loss)
    return ckpt.global_step


def test_steps_are_counted_in_epochs_without_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed_everywhere(tmp_path, epochs_alone, [1, 3, 5, 11])
    assert names(tmp_path / "calm")[-1] == "ckpt-00000012-e0004.ckptfmt"
    assert "without batches()" in capsys.readouterr().err


def test_steps_before_batches_are_refused(tmp_path: Path) -> None:
    ckpt = made(tmp_path, {})
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        ckpt.step()
        with pytest.raises(UsageError):
            ckpt.batches([1])


# Several optimizers


def gan(directory: Path, kill: int | None) -> int:
    """Train a critic at each step and a generator at every third one."""
    torch.manual_seed(0)
    generator, critic = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1))
    of_generator = torch.optim.Adam(generator.parameters(), lr=0.01)
    of_critic = torch.optim.RMSprop(critic.parameters(), lr=0.01)
    components = {"generator": generator, "critic": critic, "of_generator": of_generator, "of_critic": of_critic}
    ckpt = made(directory, components)
    fixed = torch.randn(4, 2)  # drawn before the resume, as the data
    loader: Any = DataLoader(torch.randn(10, 3), 2, shuffle=True)  # type: ignore[arg-type]  # it will do
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(2):
        for i, real in ckpt.enumerate(loader):
            critic.zero_grad()
            fake = generator(torch.randn(2, 2))
            (critic(fake.detach()).mean() - critic(real).mean()).backward()
            of_critic.step()
            if i % 3 == 0:
                generator.zero_grad()
                (-critic(fake).mean()).backward()
                of_generator.step()
            ckpt.step()
            kill_at(ckpt, kill)
        with torch.no_grad():
            generator(fixed)
        ckpt.end_epoch()
    return ckpt.global_step


def test_alternating_steps_of_two_optimizers(tmp_path: Path) -> None:
    killed_everywhere(tmp_path, gan, [1, 3, 4, 5, 8])


# Other loaders in other epochs, epochs that are cut short, evaluations


def curriculum(directory: Path, kill: int | None) -> list[list[float]]:
    torch.manual_seed(0)
    data = torch.arange(12.0).view(12, 1)
    ckpt = made(directory, {})
    state = ckpt.variables(seen=[])
    ckpt.resume(quiet=True)
    for epoch in ckpt.epochs(4):
        loader: Any = DataLoader(data[: 4 + 2 * epoch], 1 + epoch, shuffle=True)  # type: ignore[arg-type]  # it will do
        for batch in ckpt.batches(loader):
            state.seen = [*state.seen, batch.flatten().tolist()]
            ckpt.step()
            kill_at(ckpt, kill)
        if epoch % 2:  # an evaluation that draws
            torch.rand(3)
        ckpt.end_epoch()
    return list(state.seen)


def test_another_loader_in_each_epoch(tmp_path: Path) -> None:
    killed_everywhere(tmp_path, curriculum, [1, 4, 5, 7, 10], but={"progress"})


def cut_short(directory: Path, kill: int | None, where: str = "top") -> list[float]:
    torch.manual_seed(0)
    loader: Any = DataLoader(torch.arange(8.0).view(8, 1), shuffle=True)  # type: ignore[arg-type]  # it will do
    ckpt = made(directory, {})
    state = ckpt.variables(seen=[])
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(3):
        for i, batch in ckpt.enumerate(loader):
            if where == "top" and i == 5:
                break
            state.seen = [*state.seen, batch.item()]
            ckpt.step()
            kill_at(ckpt, kill)
            if where == "bottom" and i == 4:
                break
        ckpt.end_epoch()
    return list(state.seen)


def test_epochs_that_are_cut_short_by_a_break(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed_everywhere(tmp_path, cut_short, [1, 4, 5, 6, 12])
    assert "break" not in capsys.readouterr().err


def test_a_break_behind_a_saved_step_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that is resumed from this step would not break."""
    assert len(cut_short(tmp_path, None, "bottom")) == 15
    assert capsys.readouterr().err.count("by a break") == 1


def first_batches(directory: Path, kill: int | None) -> list[float]:
    torch.manual_seed(0)
    loader: Any = DataLoader(torch.arange(8.0).view(8, 1), shuffle=True)  # type: ignore[arg-type]  # it will do
    ckpt = made(directory, {})
    state = ckpt.variables(seen=[])
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(3):
        for batch in ckpt.batches(islice(loader, 5)):
            state.seen = [*state.seen, batch.item()]
            ckpt.step()
            kill_at(ckpt, kill)
    return list(state.seen)


def test_the_first_batches_of_a_loader(tmp_path: Path) -> None:
    killed_everywhere(tmp_path, first_batches, [1, 4, 5, 6, 12])


@pytest.mark.parametrize(
    ("wrap", "is_reported"),
    [
        (lambda batches: islice(batches, 4), True),
        (lambda batches: zip(range(6), batches, strict=False), True),
        (lambda batches: zip(batches, iter("abcdef"), strict=False), True),
        (lambda batches: zip(count(), batches, strict=False), True),
        (lambda batches: zip(count(batches.start), batches, strict=False), False),
        (lambda batches: batches, False),
    ],
)
def test_what_begins_anew_beside_resumed_batches_is_reported(
    tmp_path: Path, wrap: Callable[[Any], Iterator[Any]], is_reported: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(kill: int | None) -> None:
        ckpt = made(tmp_path, {})
        ckpt.resume(quiet=True)
        for _ in ckpt.epochs(1):
            for _ in wrap(ckpt.batches(range(6))):
                ckpt.step()
                kill_at(ckpt, kill)

    with pytest.raises(Killed):
        train(2)
    train(None)
    assert ("begins anew" in capsys.readouterr().err) == is_reported


class Refusing(type):
    """A metaclass of other code that answers no comparison."""

    __hash__ = type.__hash__

    def __eq__(cls, _: object) -> bool:
        raise ZeroDivisionError


class Refused(metaclass=Refusing):
    @property  # type: ignore[misc]  # read-only, as in proxies
    def __class__(self) -> Any:
        raise ZeroDivisionError

    def __iter__(self) -> Refused:
        return self

    def __next__(self) -> int:
        return 0


def test_no_object_of_the_process_ends_a_resume(tmp_path: Path) -> None:
    alive = Refused()

    def train(kill: int | None) -> None:
        ckpt = made(tmp_path, {})
        ckpt.resume(quiet=True)
        for _ in ckpt.epochs(1):
            for _ in zip(ckpt.batches(range(6)), alive, strict=False):
                ckpt.step()
                kill_at(ckpt, kill)

    with pytest.raises(Killed):
        train(2)
    train(None)


def test_a_cycle_beside_resumed_batches_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def train(kill: int | None) -> None:
        ckpt = made(tmp_path, {})
        ckpt.resume(quiet=True)
        more = ckpt.cycle("abc")
        for _ in ckpt.epochs(1):
            for _ in zip(ckpt.batches(range(6)), more, strict=False):
                ckpt.step()
                kill_at(ckpt, kill)

    with pytest.raises(Killed):
        train(2)
    train(None)
    assert "begins anew" not in capsys.readouterr().err
    with ckptfmt.open(max(tmp_path.glob("*.ckptfmt"))) as checkpoint:
        assert checkpoint.metadata.epoch == 1
