"""Optimizer state goes by the names of parameters: reordered, added, removed, regrouped and wrapped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ckptfmt.torch
from ckptfmt import MismatchError
from ckptfmt.torch import Checkpointer, ResumeReport
from tests.torch.same import same
from tests.torch.training import train

Optimizer = torch.optim.Optimizer


def model(*names: str, seed: int = 0) -> nn.ModuleDict:
    """Return a model with a layer for each name; all layers are of one shape, so that nothing but names tells them."""
    torch.manual_seed(seed)
    return nn.ModuleDict({name: nn.Linear(3, 3) for name in names})


def adam(module: nn.Module, lr: float = 0.1) -> Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=lr)


def loss(net: nn.Module, step: int) -> torch.Tensor:
    """Return a loss to which each layer contributes in a way of its own."""
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
    total = torch.zeros(())
    for number, (_, layer) in enumerate(sorted(net.named_children())):
        total = total + (number + 1) * layer(inputs).square().mean()
    return total


def moments(net: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Return the state of each parameter by its name."""
    return {name: optimizer.state[it] for name, it in net.named_parameters() if it in optimizer.state}


def saved(directory: Path, **components: Any) -> None:
    with Checkpointer(directory, components) as ckpt:
        ckpt.resume(quiet=True)
        ckpt.save()


def resumed(directory: Path, allow_mismatch: Iterable[str] = (), **components: Any) -> ResumeReport:
    with Checkpointer(directory, components) as ckpt:
        return ckpt.resume("must", quiet=True, allow_mismatch=list(allow_mismatch))


def test_layers_in_another_order_keep_their_moments(tmp_path: Path) -> None:
    net = model("a", "b", "c")
    optimizer = adam(net)
    train(net, optimizer, range(3), loss)
    saved(tmp_path, net=net, optimizer=optimizer)
    other = model("c", "a", "b", seed=1)
    other_optimizer = adam(other)
    resumed(tmp_path, net=other, optimizer=other_optimizer)
    assert same(
        moments(other, other_optimizer),
        {name: moments(net, optimizer)[name] for name in moments(other, other_optimizer)},
    )
    train(net, optimizer, range(3, 6), loss)
    train(other, other_optimizer, range(3, 6), loss)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in other.state_dict().items())


def test_layers_that_came_and_went_are_differences_and_the_rest_is_restored_if_they_are_waived(tmp_path: Path) -> None:
    net = model("a", "b", "c")
    optimizer = adam(net)
    train(net, optimizer, range(3), loss)
    saved(tmp_path, net=net, optimizer=optimizer)
    other = model("a", "new", "c", seed=1)
    other_optimizer = adam(other)
    with pytest.raises(MismatchError) as caught:
        resumed(tmp_path, net=other, optimizer=other_optimizer)
    expected = [
        "optimizer.state[net.new.weight]: in the optimizer, not in the checkpoint",
        "optimizer.state[net.new.bias]: in the optimizer, not in the checkpoint",
        "optimizer.state[net.b.weight]: in the checkpoint, not in the optimizer",
        "optimizer.state[net.b.bias]: in the checkpoint, not in the optimizer",
    ]
    assert [line for line in caught.value.differences if line.startswith("optimizer")] == expected
    assert moments(other, other_optimizer) == {}
    report = resumed(tmp_path, ["net", "optimizer"], net=other, optimizer=other_optimizer)
    found = moments(other, other_optimizer)
    assert set(found) == {"a.weight", "a.bias", "c.weight", "c.bias"}
    assert all(same(state, moments(net, optimizer)[name]) for name, state in found.items())
    detail = next(it for it in report.components if it.name == "optimizer")
    assert list(detail.differences) == expected


def test_a_layer_of_another_shape_starts_with_fresh_moments_if_waived(tmp_path: Path) -> None:
    net = model("a", "b")
    optimizer = adam(net)
    train(net, optimizer, range(2), loss)
    saved(tmp_path, net=net, optimizer=optimizer)
    other = model("a", "b", seed=1)
    other["b"] = nn.Linear(3, 5)
    other_optimizer = adam(other)
    with pytest.raises(MismatchError, match=r"optimizer\.state\[net\.b\.weight\]: .*\[5, 3\].*\[3, 3\]"):
        resumed(tmp_path, net=other, optimizer=other_optimizer)
    resumed(tmp_path, ["net", "optimizer"], net=other, optimizer=other_optimizer)
    assert set(moments(other, other_optimizer)) == {"a.weight", "a.bias"}


def test_parameters_in_other_groups_keep_their_moments_and_take_the_options_of_most(tmp_path: Path) -> None:
    net = model("a", "b", "c")
    groups = [{"params": list(net["a"].parameters()), "lr": 0.5}, {"params": list(net["b"].parameters()), "lr": 0.25}]
    optimizer = torch.optim.AdamW([*groups, {"params": list(net["c"].parameters()), "lr": 0.25}])
    train(net, optimizer, range(2), loss)
    saved(tmp_path, net=net, optimizer=optimizer)
    other = model("a", "b", "c", seed=1)
    regrouped = [
        {"params": [*other["c"].parameters(), *other["b"].parameters()]},
        {"params": list(other["a"].parameters())},
    ]
    other_optimizer = torch.optim.AdamW(regrouped, lr=9.0)
    report = resumed(tmp_path, net=other, optimizer=other_optimizer)
    assert [group["lr"] for group in other_optimizer.param_groups] == [0.25, 0.5]
    assert same(moments(other, other_optimizer), moments(net, optimizer))
    notes = next(it for it in report.components if it.name == "optimizer").notes
    assert any("param_groups[0]" in note and "group 1" in note for note in notes)


def test_another_kind_of_optimizer_is_a_difference(tmp_path: Path) -> None:
    net = model("a")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    train(net, optimizer, range(2), loss)
    saved(tmp_path, net=net, optimizer=optimizer)
    with pytest.raises(MismatchError, match=r"optimizer\.param_groups: .*AdamW"):
        resumed(tmp_path, net=net, optimizer=adam(net))


def test_without_names_shapes_and_counts_have_to_agree(tmp_path: Path) -> None:
    """An optimizer whose parameters are in no module, as in checkpoints that others saved."""
    net = model("a", "b")
    optimizer = adam(net)
    train(net, optimizer, range(2), loss)
    saved(tmp_path, optimizer=optimizer)
    same_shapes = adam(model("x", "y"))
    resumed(tmp_path, optimizer=same_shapes)
    assert same(same_shapes.state_dict(), optimizer.state_dict())
    with pytest.raises(MismatchError, match=r"\[2\].*\[4\]"):
        resumed(tmp_path, optimizer=adam(model("x")))
    other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(MismatchError, match=r"optimizer\.state\[0\]: .*\[2, 2\].*\[3, 3\]"):
        resumed(tmp_path, optimizer=adam(other))


def test_tied_weights_go_by_either_name(tmp_path: Path) -> None:
    def tied(first: str, second: str, seed: int) -> nn.ModuleDict:
        net = model(first, second, seed=seed)
        net[second].weight = net[first].weight
        return net

    net = tied("a", "b", 0)
    optimizer = adam(net)
    train(net, optimizer, range(2), loss)
    saved(tmp_path, net=net, optimizer=optimizer)
    other = tied("b", "a", 1)
    other_optimizer = adam(other)
    resumed(tmp_path, net=other, optimizer=other_optimizer)
    by_parameter = {id(it): optimizer.state[it] for it in net.parameters()}
    for name, parameter in other.named_parameters():
        assert same(other_optimizer.state[parameter], by_parameter[id(net.get_parameter(name))])


def test_a_model_that_was_tied_and_is_not_is_a_difference(tmp_path: Path) -> None:
    saved(tmp_path, net=model("a", "b"))
    net = model("a", "b", seed=1)
    net["b"].weight = net["a"].weight
    with pytest.raises(MismatchError, match=r"net\.b\.weight: .*\ba\.weight"):
        resumed(tmp_path, net=net)


class Compiled(nn.Module):
    """Wraps a module as `torch.compile` does, without the compiler."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module


def in_data_parallel(net: nn.Module) -> nn.Module:
    return nn.DataParallel(net)


def compiled(net: nn.Module) -> nn.Module:
    return Compiled(net)


def both(net: nn.Module) -> nn.Module:
    return nn.DataParallel(Compiled(net))


def part_compiled(net: nn.Module) -> nn.Module:
    net.a = Compiled(net.get_submodule("a"))
    return net


def plain(net: nn.Module) -> nn.Module:
    return net


WRAPPERS = [plain, in_data_parallel, compiled, both, part_compiled]


@pytest.mark.parametrize("before", WRAPPERS, ids=lambda it: it.__name__)
@pytest.mark.parametrize("after", WRAPPERS, ids=lambda it: it.__name__)
def test_a_wrapper_changes_no_name(tmp_path: Path, before: Any, after: Any) -> None:
    net = nn.Sequential()
    torch.manual_seed(0)
    net.a, net.b = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.Linear(3, 3)
    optimizer = adam(net)
    train(net, optimizer, range(2), lambda module, step: loss(nn.Sequential(module), step))
    state, expected = {name: it.clone() for name, it in net.state_dict().items()}, moments(net, optimizer)
    saved(tmp_path, net=before(net), optimizer=optimizer)
    with ckptfmt.torch.open(max(tmp_path.glob("*.ckptfmt"))) as checkpoint:
        assert list(checkpoint["net"].tensors) == list(state)
    other = nn.Sequential()
    torch.manual_seed(1)
    other.a, other.b = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.Linear(3, 3)
    names = {id(it): name for name, it in other.named_parameters()}
    other_optimizer = adam(other)
    inner = dict(other.named_parameters())
    resumed(tmp_path, net=after(other), optimizer=other_optimizer)
    assert all(torch.equal(inner[name], state[name]) for name in inner)
    assert same({names[id(it)]: value for it, value in other_optimizer.state.items()}, expected)
