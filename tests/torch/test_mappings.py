"""Mappings of other types than dict in a component's state: they come back as dicts, and that is said."""

from __future__ import annotations

from collections import Counter, OrderedDict, UserDict, defaultdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from ckptfmt.torch import Checkpointer


class Holder:
    """A component with any state."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


@pytest.mark.parametrize(
    "value",
    [Counter("aab"), defaultdict(int, a=1), MappingProxyType({"a": 1}), UserDict({"a": 1})],
    ids=lambda value: type(value).__name__,
)
def test_a_mapping_that_comes_back_as_a_dict_is_named_once(
    tmp_path: Path, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = Checkpointer(tmp_path, {"part": Holder({"deep": [value, value]})})
    ckpt.resume(quiet=True)
    for step in range(2):
        ckpt.save(step=step)
        ckpt.wait()
    (line,) = capsys.readouterr().err.splitlines()
    assert "part.deep[0]" in line
    assert type(value).__name__ in line
    other = Holder(None)
    Checkpointer(tmp_path, {"part": other}).resume(quiet=True)
    assert type(other.state["deep"][0]) is dict
    assert other.state["deep"][0] == dict(value)


def test_mappings_that_come_back_as_they_were_are_not_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 3])
    part = Holder(OrderedDict(b=1, a={"c": OrderedDict()}))
    ckpt = Checkpointer(tmp_path, {"net": net, "optimizer": optimizer, "scheduler": scheduler, "part": part})
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.close()
    assert capsys.readouterr().err == ""
