"""What a file tells about the training: optimizer, scheduler, random states, place in the data, and what can go on."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt._core.ops.inspection.component_roles import Role
from ckptfmt._core.ops.inspection.inspect import InspectReport, inspect_file
from ckptfmt._core.ops.inspection.resumable import Resumable, can_resume
from tests.ops.conftest import Save, flip_byte

torch = pytest.importorskip("torch")
import ckptfmt.torch  # noqa: E402 - only where torch is


def report_of(path: Path, state: dict[str, Any]) -> InspectReport:
    ckptfmt.torch.save(state, path)
    report = inspect_file(path)
    json.dumps(report.to_json(), allow_nan=False)
    return report


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {},
    "AdamW": {},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {},
    "Adagrad": {},
    "Adadelta": {},
    "Adafactor": {},
    "ASGD": {},
    "RMSprop": {},
    "Rprop": {},
    "SGD": {"momentum": 0.9},
    "LBFGS": {},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_is_known_by_its_state(tmp_path: Path, name: str) -> None:
    net = torch.nn.Linear(4, 2)
    optimizer = getattr(torch.optim, name)(net.parameters(), lr=0.01, **OPTIMIZERS[name])

    def closure() -> Any:
        optimizer.zero_grad()
        loss = net(torch.ones(1, 4)).square().sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    (info,) = report_of(
        tmp_path / "a.ckptfmt", {"net": net.state_dict(), "opt": optimizer.state_dict()}
    ).state.optimizers
    assert (info.component, info.kind, info.parameters) == ("opt", name, 2)
    assert info.values("lr") == (0.01,)
    if name in ("Adam", "AdamW", "NAdam", "RAdam"):
        assert info.steps == (3, 3)
        assert info.moments == {"exp_avg": 2, "exp_avg_sq": 2}


def test_an_optimizer_that_has_made_no_step_has_no_state(tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    (info,) = report_of(tmp_path / "a.ckptfmt", {"optimizer": optimizer.state_dict()}).state.optimizers
    assert (info.kind, info.with_state, info.steps) == ("AdamW", 0, None)


def test_groups_with_different_rates_tell_all_of_them(tmp_path: Path) -> None:
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    optimizer = torch.optim.SGD([{"params": weights[:1], "lr": 0.1}, {"params": weights[1:], "lr": 0.01}])
    (info,) = report_of(tmp_path / "a.ckptfmt", {"optimizer": optimizer.state_dict()}).state.optimizers
    assert [group.parameters for group in info.groups] == [1, 2]
    assert info.values("lr") == (0.1, 0.01)


SCHEDULERS: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 3},
    "MultiStepLR": {"milestones": [3, 5]},
    "ExponentialLR": {"gamma": 0.9},
    "ConstantLR": {},
    "LinearLR": {},
    "PolynomialLR": {},
    "CosineAnnealingLR": {"T_max": 10},
    "CosineAnnealingWarmRestarts": {"T_0": 10},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 100},
    "ReduceLROnPlateau": {},
}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # there is no training here
@pytest.mark.parametrize("name", SCHEDULERS)
def test_each_scheduler_is_known_by_its_state(tmp_path: Path, name: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1, momentum=0.9)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **SCHEDULERS[name])
    for _ in range(4):
        scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
    (info,) = report_of(tmp_path / "a.ckptfmt", {"sched": scheduler.state_dict()}).state.schedulers
    assert (info.component, info.kind, info.last_epoch) == ("sched", name, 4)
    if name != "ReduceLROnPlateau":
        assert info.last_lr == pytest.approx(tuple(scheduler.get_last_lr()))


def test_what_a_checkpointer_saves_can_go_on_exactly(tmp_path: Path) -> None:
    net = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    data = torch.utils.data.DataLoader(torch.ones(8, 4), batch_size=2, shuffle=True)
    ckpt = ckptfmt.torch.Checkpointer(
        tmp_path, {"net": net, "optimizer": optimizer, "scheduler": scheduler}, save_interval_steps=3
    )
    ckpt.resume()
    for _ in ckpt.epochs(1):
        for batch in ckpt.batches(data):
            net(batch).sum().backward()
            optimizer.step()
            ckpt.step(loss=1.0)
        scheduler.step()
        ckpt.end_epoch(val_loss=0.5)
    paths = sorted(tmp_path.glob("*.ckptfmt"))
    assert len(paths) == 2
    for path in paths:
        state = inspect_file(path).state
        assert state.resume.answer is Resumable.EXACTLY
        assert [info.kind for info in state.optimizers] == ["AdamW"]
        assert [info.kind for info in state.schedulers] == ["CosineAnnealingLR"]
        (random,) = state.random
        assert "torch" in random.generators
    (middle, end) = (inspect_file(path).state.places for path in paths)
    assert (middle[0].step, middle[0].batch, middle[0].batches) == (3, 3, 4)
    assert (end[0].step, end[0].epoch, end[0].batch) == (4, 1, None)


@pytest.mark.parametrize(
    ("roles", "answer", "lacks"),
    [
        ({Role.WEIGHTS, Role.OPTIMIZER, Role.RANDOM, Role.PROGRESS}, Resumable.EXACTLY, ()),
        ({Role.WEIGHTS, Role.OPTIMIZER, Role.SCHEDULER}, Resumable.INEXACTLY, (Role.RANDOM, Role.PROGRESS)),
        ({Role.WEIGHTS, Role.RANDOM}, Resumable.WARM_START, (Role.OPTIMIZER, Role.PROGRESS)),
        ({Role.OPTIMIZER}, Resumable.NO, (Role.WEIGHTS, Role.RANDOM, Role.PROGRESS)),
        (set(), Resumable.NO, (Role.WEIGHTS, Role.OPTIMIZER, Role.RANDOM, Role.PROGRESS)),
    ],
)
def test_what_a_training_can_do_with_a_file(roles: set[Role], answer: Resumable, lacks: tuple[Role, ...]) -> None:
    found = can_resume(roles)
    assert (found.answer, found.lacks) == (answer, lacks)


ODD_TREES: list[Any] = [
    {"state": {}, "param_groups": []},
    {"state": {0: 5, 1: {"step": "x"}}, "param_groups": [{"params": 3}]},
    {"state": {0: {"step": float("nan")}}, "param_groups": [{"params": [], "lr": [1]}]},
    {"last_epoch": "x", "_last_lr": 5},
    {"last_epoch": None, "_last_lr": [[1]]},
    {"step": "x", "epoch": [], "pass": 3},
    {"python": 1, "numpy": {"bit_generator": 5}, "cuda": 3, "torch": None},
    [{"python": 1, "torch": 2}, 5, None],
    {"scale": 1, "_growth_tracker": {}},
    {1: 2, None: 3, b"x": 4},
    5,
    None,
    [],
]


@pytest.mark.parametrize("name", ["optimizer", "rng", "progress", "scheduler"])
@pytest.mark.parametrize("tree", ODD_TREES, ids=str)
def test_odd_states_are_looked_at_without_a_fault(save: Save, name: str, tree: Any) -> None:
    json.dumps(inspect_file(save(state={name: tree, "net": {"w": np.ones(1)}})).to_json(), allow_nan=False)


def test_a_tree_that_is_large_is_data_and_not_read(save: Save) -> None:
    path = save(state={"texts": [b"x" * (17 << 20), b"needle"], "net": {"w": np.ones(1)}})
    flip_byte(path, b"needle")
    report = inspect_file(path)
    assert report.state.problems == ()
    assert [part.role for part in report.components] == [Role.OTHER, Role.WEIGHTS]


def test_a_damaged_tree_is_named_and_the_rest_is_told(save: Save) -> None:
    path = save(state={"optimizer": {"state": {}, "param_groups": [{"lr": 0.125, "params": []}]}, "notes": "hello"})
    flip_byte(path, b"param_groups")
    report = inspect_file(path)
    assert [problem.member for problem in report.state.problems] == ["optimizer.msgpack"]
    assert [part.name for part in report.components] == ["optimizer", "notes"]


def generators() -> dict[str, Any]:
    """Return the states of generators as programs save them."""
    mersenne = torch.get_rng_state()
    python, numpy = random.getstate(), np.random.get_state()
    return {
        "trainer": {"python": python, "numpy": numpy, "cpu": mersenne},
        "accelerate": {"random_state": python, "numpy_random_seed": numpy, "torch_manual_seed": mersenne},
        "torch": mersenne,
        "cuda": [torch.zeros(16, dtype=torch.uint8)],
        "python": python,
        "numpy": numpy,
        "pcg": np.random.default_rng(1).bit_generator.state,
        "of a component": {"kind": "torch.cpu", "state": mersenne},
    }


@pytest.mark.parametrize("name", generators())
@pytest.mark.parametrize("form", ["ckptfmt", "pth"])
def test_states_of_generators_are_known_by_their_content(tmp_path: Path, name: str, form: str) -> None:
    state = {"net": {"w": torch.ones(2)}, "dice": generators()[name]}
    if form == "ckptfmt":
        ckptfmt.torch.save(state, tmp_path / "a")
    else:
        torch.save(state, tmp_path / "a")
    report = inspect_file(tmp_path / "a")
    assert [part.role for part in report.components] == [Role.WEIGHTS, Role.RANDOM]
    assert [info.component for info in report.state.random] == ["dice"]
    assert all(info.generators for info in report.state.random)


@pytest.mark.parametrize("name", ["trainer", "accelerate", "torch", "cuda"])
def test_a_file_of_generators_alone_holds_nothing_to_train_with(tmp_path: Path, name: str) -> None:
    torch.save(generators()[name], tmp_path / "rng_state.pth")
    report = inspect_file(tmp_path / "rng_state.pth")
    assert {part.role for part in report.components} == {Role.RANDOM}
    assert report.state.resume.answer is Resumable.NO


@pytest.mark.parametrize(
    "value",
    [torch.ones(3), (torch.ones(3), torch.ones(2)), [torch.ones(2)], 0.5, 3, "text", None, True],
    ids=lambda value: type(value).__name__,
)
def test_values_that_a_loop_carries_on_are_no_weights(tmp_path: Path, value: object) -> None:
    report = report_of(tmp_path / "a.ckptfmt", {"net": {"w": torch.ones(2)}, "it": value})
    assert [part.role for part in report.components] == [Role.WEIGHTS, Role.VARIABLES]


def test_the_component_of_variables_is_known_by_its_name(tmp_path: Path) -> None:
    report = report_of(tmp_path / "a.ckptfmt", {"variables": {"hidden": torch.ones(2)}, "net": {"w": torch.ones(2)}})
    assert [part.role for part in report.components] == [Role.VARIABLES, Role.WEIGHTS]
