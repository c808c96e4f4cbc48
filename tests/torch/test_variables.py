"""Values that a loop carries, dicts and dataclasses as components, and what is refused before the first save."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ckptfmt
from ckptfmt import MismatchError
from ckptfmt.torch import Checkpointer, UsageError
from tests.torch.same import same
from tests.torch.tiny import Killed, final_state

VALUES: dict[str, Any] = {
    "none": None,
    "flag": True,
    "count": 7,
    "best": -math.inf,
    "name": "é",
    "hidden": torch.tensor([[1.5, -2.0]]),
    "half": torch.tensor([1.0], dtype=torch.bfloat16),
    "array": np.arange(3),
    "batch": (torch.ones(2, 3), {"ids": [1, 2], "mask": None}),
    "curve": [0.5, 0.25],
    "seen": {1, 2},
}


def resumed(directory: Path, components: Any, **values: Any) -> Any:
    ckpt = Checkpointer(directory, components)
    state = ckpt.variables(**values)
    ckpt.resume("must", quiet=True)
    ckpt.close()
    return state


def saved(directory: Path, components: Any, **values: Any) -> None:
    ckpt = Checkpointer(directory, components)
    state = ckpt.variables(**dict.fromkeys(values))
    ckpt.resume(quiet=True)
    for name, value in values.items():
        setattr(state, name, value)
    ckpt.save()
    ckpt.close()


def test_every_kind_of_value_comes_back(tmp_path: Path) -> None:
    saved(tmp_path, {}, **VALUES)
    state = resumed(tmp_path, {}, **dict.fromkeys(VALUES))
    for name, value in VALUES.items():
        assert same(getattr(state, name), value), name
    with ckptfmt.open(next(tmp_path.glob("*.ckptfmt"))) as checkpoint:
        assert set(checkpoint["variables"].load()) == set(VALUES)


def test_tensors_and_lists_stay_the_objects_that_they_are(tmp_path: Path) -> None:
    saved(tmp_path, {}, latent=torch.ones(3), curve=[1.0, 2.0], parts={"a": [torch.ones(2)]})
    latent, curve, parts = nn.Parameter(torch.zeros(3)), [9.0], {"a": [torch.zeros(2)], "b": []}
    inner = parts["a"][0]
    state = resumed(tmp_path, {}, latent=latent, curve=curve, parts=parts)
    assert state.latent is latent
    assert latent.tolist() == [1, 1, 1]
    assert state.curve is curve == [1.0, 2.0]
    assert parts.keys() == {"a"}
    assert parts["a"][0] is inner
    assert inner.tolist() == [1, 1]


def test_a_tensor_with_a_graph_is_saved_without_it(tmp_path: Path) -> None:
    weight = torch.ones(2, requires_grad=True)
    saved(tmp_path, {}, hidden=weight * 2)
    assert not resumed(tmp_path, {}, hidden=None).hidden.requires_grad


def test_variables_that_differ_are_a_mismatch(tmp_path: Path) -> None:
    saved(tmp_path, {}, best=1, old=2)
    ckpt = Checkpointer(tmp_path, {})
    state = ckpt.variables(best=0, new=3)
    with pytest.raises(MismatchError) as refused:
        ckpt.resume(quiet=True)
    assert len(refused.value.differences) == 2
    assert (state.best, state.new) == (0, 3)
    ckpt = Checkpointer(tmp_path, {})
    state = ckpt.variables(best=0, new=3)
    report = ckpt.resume(quiet=True, allow_mismatch=["variables"])
    assert (state.best, state.new) == (1, 3)
    assert len(report.components[0].differences) == 2


def test_wrong_uses_of_variables(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {})
    for values in ({"_a": 1}, {"a": object()}, {"a": torch.nn.Linear(1, 1)}):
        with pytest.raises(UsageError):
            ckpt.variables(**values)
    state = ckpt.variables(a=1)
    with pytest.raises(UsageError):
        ckpt.variables(b=1)
    with pytest.raises(AttributeError):
        state.b = 1
    with pytest.raises(AttributeError):
        del state.a
    with pytest.raises(UsageError):
        state.a = object()
    assert state.a == 1
    ckpt.resume(quiet=True)
    with pytest.raises(UsageError):
        ckpt.variables(c=1)
    with pytest.raises(UsageError):
        Checkpointer(tmp_path, {"variables": nn.Linear(1, 1)}).variables(a=1)


@dataclasses.dataclass
class Meter:
    total: float = 0.0
    seen: int = 0


@dataclasses.dataclass
class Progress:
    best: float = math.inf
    meter: Meter = dataclasses.field(default_factory=Meter)
    average: torch.Tensor = dataclasses.field(default_factory=lambda: torch.zeros(2))


def test_dicts_and_dataclasses_are_restored_in_place(tmp_path: Path) -> None:
    progress, stats = Progress(0.5, Meter(3.0, 2), torch.ones(2)), {"loss": [1.0], "ema": torch.ones(1)}
    saved(tmp_path, {"progress_of_mine": progress, "stats": stats, "nothing": None})
    there = Progress()
    meter, average, others = there.meter, there.average, {"loss": [2.0, 3.0], "extra": 1}
    loss = others["loss"]
    resumed(tmp_path, {"progress_of_mine": there, "stats": others, "nothing": None})
    assert (there.best, there.meter, there.average.tolist()) == (0.5, Meter(3.0, 2), [1, 1])
    assert there.meter is meter
    assert there.average is average
    assert same(others, stats)
    assert others["loss"] is loss


def test_fields_that_differ_are_a_mismatch(tmp_path: Path) -> None:
    saved(tmp_path, {"it": Meter(1.0, 1)})
    with pytest.raises(MismatchError):
        resumed(tmp_path, {"it": Progress()})


def test_a_component_that_is_none_is_left_out(tmp_path: Path) -> None:
    net = nn.Linear(1, 1)
    ckpt = Checkpointer(tmp_path, {"net": net, "ema": None})
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.close()
    with ckptfmt.open(next(tmp_path.glob("*.ckptfmt"))) as checkpoint:
        assert set(checkpoint) == {"net", "rng", "progress"}


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: int = 1


class Plain:
    pass


NET = nn.Linear(1, 1)
ADAM = torch.optim.Adam(NET.parameters())
SCHEDULER = torch.optim.lr_scheduler.StepLR(ADAM, 1)


@pytest.mark.parametrize(
    "components",
    [
        {"it": Frozen()},
        {"it": Plain()},
        {"it": {"a": Plain()}},
        {"it": {1: 2}},
        {"it": NET.state_dict()},
        {"it": ADAM.state_dict()},
        {"it": SCHEDULER.state_dict()},
        {"it": torch.amp.GradScaler("cpu").state_dict()},
        {"net": NET, "save_interval_steps": 5},
        {"net": NET, "keep_lst": 5},
        {"net": NET, "scheduler": SCHEDULER},
        {"it": 0.5},
        {"it": [1]},
    ],
    ids=range(13),
)
def test_what_is_refused_at_once(tmp_path: Path, components: Any) -> None:
    with pytest.raises(UsageError):
        Checkpointer(tmp_path, components)


def test_errors_name_the_option_and_the_holder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="save_interval_steps"):
        Checkpointer(tmp_path, {"save_interval_step": 5})
    with pytest.raises(UsageError, match=r"ckpt\.variables"):
        Checkpointer(tmp_path, {"best": 5})


class Sharded:
    """A tensor that says that it is one of many shards."""

    def full_tensor(self) -> None: ...


def test_an_optimizer_of_shards_is_refused_at_once(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(NET.parameters(), lr=0.1)
    optimizer.param_groups[0]["params"] = [Sharded()]
    with pytest.raises(UsageError):
        Checkpointer(tmp_path, {"optimizer": optimizer})


def language_model(directory: Path, kill: int | None = None) -> dict[str, str]:
    """Train with a hidden state, a batch that is fetched ahead, a best value, and a sum over the epoch."""
    torch.manual_seed(0)
    net, head = nn.GRU(2, 4), nn.Linear(4, 1)
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.1)
    ckpt = Checkpointer(directory, {"net": net, "head": head, "optimizer": optimizer}, save_interval_steps=1)
    state = ckpt.variables(hidden=None, batch=None, best=math.inf, total=0.0, lr=0.1)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(3):
        if not ckpt.is_resumed_epoch:
            state.total = 0.0
        for number in ckpt.batches(range(4)):
            if state.batch is None:
                state.batch = torch.rand(3, 1, 2)
            out, hidden = net(state.batch, None if state.hidden is None else state.hidden.detach())
            state.hidden = hidden
            state.batch = torch.rand(3, 1, 2) + number
            loss = (head(out) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = state.lr
            optimizer.step()
            state.total += loss.item()
            ckpt.step()
            if ckpt.global_step == kill:
                ckpt.close()
                raise Killed
        if state.total > state.best:
            state.lr /= 2
        state.best = min(state.best, state.total)
        ckpt.end_epoch(total=state.total)
    return final_state(directory)


def test_a_loop_with_variables_is_killed_and_resumed(tmp_path: Path) -> None:
    expected = language_model(tmp_path / "calm")
    for kill in (1, 4, 6, 11):
        with pytest.raises(Killed):
            language_model(tmp_path / f"{kill}", kill)
        assert language_model(tmp_path / f"{kill}") == expected


def test_the_best_value_so_far(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {}, keep_last=1, keep_best=("loss", "min"))
    ckpt.resume(quiet=True)
    assert ckpt.best_metric() is None
    seen = []
    for epoch in ckpt.epochs(4):
        ckpt.end_epoch(loss=abs(epoch - 1) if epoch < 3 else math.nan)
        seen.append(ckpt.best_metric())
    assert seen == [1.0, 0.0, 0.0, 0.0]
    again = Checkpointer(tmp_path, {}, keep_last=1, keep_best=("loss", "min"))
    again.resume(quiet=True)
    assert again.best_metric() == 0.0
    with pytest.raises(UsageError):
        Checkpointer(tmp_path, {}).best_metric()
