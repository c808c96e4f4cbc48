"""Components are one mapping of names to live objects; anything else is refused before a run begins."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ckptfmt
import ckptfmt.torch
from ckptfmt.torch import Checkpointer, UsageError, restore

NET = nn.Linear(2, 2)
OPTIMIZER = torch.optim.AdamW(NET.parameters())


def test_a_component_may_have_the_name_of_an_option(tmp_path: Path) -> None:
    with Checkpointer(tmp_path, {"codec": nn.Linear(1, 1), "signals": nn.Linear(1, 1)}, codec="zstd") as ckpt:
        ckpt.resume(quiet=True)
        ckpt.save()
        saved = ckpt.wait()
    assert saved is not None
    other = nn.Linear(1, 1)
    report = restore(saved.path, {"codec": other, "signals": nn.Linear(1, 1)})
    assert [part.name for part in report.components] == ["codec", "signals"]
    with ckptfmt.torch.open(saved.path) as checkpoint:
        assert torch.equal(checkpoint["codec"].load()["weight"], other.weight)


def test_both_arguments_can_be_given_by_name(tmp_path: Path) -> None:
    assert Checkpointer(train_url=tmp_path, components={"net": NET}).train_url == str(tmp_path)


NO_NAMES = ["rng", "progress", "ünï", "a/b", "_root", "_a", ".hidden", "aux", "", "x" * 149, 3]


@pytest.mark.parametrize("name", NO_NAMES)
def test_names_that_components_cannot_have(tmp_path: Path, name: Any) -> None:
    with pytest.raises(UsageError):
        Checkpointer(tmp_path, {name: NET})


def test_names_that_differ_in_case_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Checkpointer(tmp_path, {"net": NET, "Net": nn.Linear(1, 1)})


@pytest.mark.parametrize(
    "component",
    [
        nn.Linear,
        random.SystemRandom(),
        3,
        0.5,
        "text",
        NET.state_dict(),
        OPTIMIZER.state_dict(),
    ],
    ids=lambda it: type(it).__name__,
)
def test_what_nothing_can_be_restored_into_is_no_component(tmp_path: Path, component: Any) -> None:
    with pytest.raises(UsageError, match="'part'"):
        Checkpointer(tmp_path, {"part": component})
    with pytest.raises(UsageError, match="'part'"):
        restore(tmp_path / "a", {"part": component})


@pytest.mark.parametrize(
    "components", [None, NET, [NET], "net", NET.state_dict(), OPTIMIZER.state_dict()], ids=lambda it: type(it).__name__
)
def test_components_that_are_no_mapping_of_names_to_objects(tmp_path: Path, components: Any) -> None:
    with pytest.raises(UsageError):
        Checkpointer(tmp_path, components)
    with pytest.raises(UsageError):
        restore(tmp_path / "a", components)


def test_components_as_keywords_are_told_as_the_mapping_to_write(tmp_path: Path) -> None:
    options: dict[str, Any] = {"net": NET, "optimizer": OPTIMIZER}
    for call in (Checkpointer, restore):
        with pytest.raises(UsageError) as failure:
            call(tmp_path / "a", **options)
        assert '{"net": net, "optimizer": optimizer}' in str(failure.value)
    with pytest.raises(UsageError) as failure:
        Checkpointer(tmp_path, {"ema": NET}, **options)
    assert '{"ema": ema, "net": net, "optimizer": optimizer}' in str(failure.value)


def test_a_misspelled_option_is_told_with_the_one_that_is_meant(tmp_path: Path) -> None:
    options: dict[str, Any] = {"keep_lst": 3}
    with pytest.raises(UsageError, match="keep_last"):
        Checkpointer(tmp_path, {}, **options)
    with pytest.raises(UsageError, match="verify_first"):
        restore(tmp_path / "a", {}, verify=True)  # type: ignore[arg-type]  # that is the mistake


def test_swapped_arguments_are_told(tmp_path: Path) -> None:
    state: Any = {"net": {"w": torch.ones(1)}}
    path: Any = tmp_path / "a"
    for save in (ckptfmt.save, ckptfmt.torch.save):
        with pytest.raises(UsageError, match=r"save\((state|obj), path\)"):
            save(path, state)
    swapped: Any = NET
    with pytest.raises(UsageError, match=r"warm_start\(path, model\)"):
        ckptfmt.torch.warm_start(swapped, path)


@pytest.mark.parametrize("path", [3, None, {"w": 1}], ids=lambda it: type(it).__name__)
def test_what_is_no_path_is_told(path: Any) -> None:
    state: Any = {"net": {"w": torch.ones(1)}}
    for call in (
        lambda: ckptfmt.save(state, path),
        lambda: ckptfmt.torch.save(state, path),
        lambda: ckptfmt.load(path),
        lambda: ckptfmt.torch.load(path),
        lambda: restore(path, {"net": NET}),
        lambda: ckptfmt.torch.warm_start(path, NET),
        lambda: Checkpointer(path, {}),
    ):
        with pytest.raises(UsageError):
            call()
