"""`ckptfmt doctor` names what a program forgets, and finds nothing in one that forgets nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import invoke

PROGRAM = Path(__file__).with_name("program.py")


def examine(tmp_path: Path, *arguments: str, options: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    target = tmp_path / "never-made"
    command = [sys.executable, str(PROGRAM), "--train_url", str(target), *arguments]
    result = invoke("doctor", "--json", *options, "--", *command)
    assert not target.exists(), "the directory of the program is not touched"
    return result.exit_code, json.loads(result.stdout) if result.stdout else {}


def causes(report: dict[str, Any]) -> set[tuple[str, str]]:
    return {(cause["kind"], cause["name"]) for case in report["cases"] for cause in case["causes"]}


ACCUMULATING = """
import torch
from ckptfmt.torch import Checkpointer
torch.manual_seed(0)
net = torch.nn.Linear(3, 3)
optimizer = torch.optim.AdamW(net.parameters())
data = torch.utils.data.DataLoader(torch.randn(64, 3), batch_size=4, shuffle=True)
ckpt = Checkpointer("unused", {"net": net, "optimizer": optimizer})
ckpt.resume(quiet=True)
total = 0.0
for epoch in ckpt.epochs(50):
    for i, batch in ckpt.enumerate(data):
        loss = net(batch).square().mean()
        loss.backward()
        total += loss.item()
        if i % 2 == 1:
            optimizer.step()
            optimizer.zero_grad()
        ckpt.step()
    print(total)
"""


def test_a_script_without_functions_that_accumulates_gradients(tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(ACCUMULATING)
    result = invoke("doctor", "--json", "--", sys.executable, str(program))
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["deterministic"], "generators that are not used need no seed"
    assert causes(report) == {("variable", "total in train.py")}
    assert not any(case["effects"] or case["tensors"] for case in report["cases"])


@pytest.mark.parametrize("loop", ["epochs", pytest.param("steps", marks=pytest.mark.slow)])
def test_nothing_is_found_in_a_program_that_forgets_nothing(tmp_path: Path, loop: str) -> None:
    code, report = examine(tmp_path, "--loop", loop)
    assert code == 0
    assert report["exact"]
    assert report["deterministic"]
    assert report["steps"] == 12
    assert len(report["cases"]) == 3


def test_all_that_a_program_forgets_is_named(tmp_path: Path) -> None:
    code, report = examine(tmp_path, "--without", "scheduler,ema,scaler,noise,best,variable")
    assert code == 1
    assert report["deterministic"]
    assert causes(report) == {
        ("scheduler", "scheduler in main()"),
        ("module", "ema in main()"),
        ("object", "scaler in main()"),
        ("generator", "noise in main()"),
        ("object", "best in main()"),
        ("variable", "hidden in main()"),
        ("variable", "seen in main()"),
    }
    for case in report["cases"]:
        seen = next(cause for cause in case["causes"] if cause["name"] == "seen in main()")
        assert (int(seen["expected"]), int(seen["found"])) == (seen["step"], 0)
        assert [effect["name"] for effect in case["effects"]][:1] == ["net"]
        assert case["effects"][0]["step"] == seen["step"] + 1
        assert any(name.startswith("net ") for name in case["tensors"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left_out", "kind", "name"),
    [
        ("net", "module", "net in main()"),
        ("optimizer", "optimizer", "optimizer in main()"),
        ("scheduler", "scheduler", "scheduler in main()"),
        ("ema", "module", "ema in main()"),
        ("scaler", "object", "scaler in main()"),
        ("noise", "generator", "noise in main()"),
        ("best", "object", "best in main()"),
        ("carried", "object", "carried in main()"),
        ("variable", "variable", "hidden in main()"),
    ],
)
def test_one_thing_that_a_program_forgets_is_named_first(tmp_path: Path, left_out: str, kind: str, name: str) -> None:
    code, report = examine(tmp_path, "--without", left_out)
    assert code == 1
    for case in report["cases"]:
        assert (case["causes"][0]["kind"], case["causes"][0]["name"]) == (kind, name)


def test_a_program_that_differs_by_itself_is_not_called_exact(tmp_path: Path) -> None:
    code, report = examine(tmp_path, "--without", "seed", options=("--steps", "3", "--epoch-batches", "2"))
    assert code == 3
    assert not report["deterministic"]
    assert report["cases"] == []
    assert ("random state", "torch") in {(finding["kind"], finding["name"]) for finding in report["noise"]}


def test_a_program_that_fails_is_shown(tmp_path: Path) -> None:
    result = invoke("doctor", "--", sys.executable, str(PROGRAM), "--without", "step")
    assert result.exit_code == 3
    assert "ZeroDivisionError: the program has a fault" in result.stderr


@pytest.mark.parametrize("command", ["pass", "import ckptfmt.torch", "import os; os._exit(1)"])
def test_a_program_without_a_checkpointer_is_refused(tmp_path: Path, command: str) -> None:
    assert invoke("doctor", "--", sys.executable, "-c", command).exit_code == 3


def test_a_command_that_cannot_be_started_is_a_usage_error(tmp_path: Path) -> None:
    assert invoke("doctor", "--", str(tmp_path / "missing")).exit_code == 2
    assert invoke("doctor").exit_code == 2


def test_a_program_that_takes_too_long_is_ended() -> None:
    code = "import time; time.sleep(600)"
    assert invoke("doctor", "--timeout", "1", "--", sys.executable, "-c", code).exit_code == 3


REFUSED = """
import sys, itertools, torch
from ckptfmt.torch import Checkpointer
net = torch.nn.Linear(1, 1)
batches = [torch.ones(1, 1) * number for number in range(8)]
orders = itertools.count()
class Loader:
    def __iter__(self):
        turn = next(orders)
        if turn == 0 and len(sys.argv) > 1 and __import__("pathlib").Path(sys.argv[1]).exists():
            turn = 5
        return iter(batches[turn:] + batches[:turn])
    def __len__(self):
        return 8
ckpt = Checkpointer("unused", {"net": net})
resumed = ckpt.resume(quiet=True).resumed
if resumed:
    batches.reverse()
for epoch in ckpt.epochs(3):
    for batch in ckpt.batches(Loader()):
        with torch.no_grad():
            net.weight += batch
        ckpt.step()
"""


def test_a_resume_that_is_refused_is_a_finding(tmp_path: Path) -> None:
    program = tmp_path / "refused.py"
    program.write_text(REFUSED)
    result = invoke("doctor", "--json", "--", sys.executable, str(program))
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert any("MismatchError" in case["failure"] for case in report["cases"])
