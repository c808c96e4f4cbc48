"""`restore`: what lands in live objects, what is refused before anything changes, and what a damaged file leaves."""

from __future__ import annotations

import copy
import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ckptfmt.torch
from ckptfmt import IntegrityError, MismatchError
from ckptfmt._core.torch.live_objects.generators import StatefulGenerator
from ckptfmt._core.torch.state.capture import capture_components
from ckptfmt.torch import UsageError, restore
from tests.torch.same import same
from tests.torch.training import Parts, adam, dense_net, places, train, trained


def save(path: Path, codec: str = "none", **components: Any) -> None:
    ckptfmt.torch.save(capture_components(components), path, step=7, epoch=2, codec=codec)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_everything_lands_in_the_memory_that_is_there(tmp_path: Path, codec: str) -> None:
    net, optimizer = trained(0)
    save(tmp_path / "a", codec, net=net, optimizer=optimizer)
    other, its = trained(1)
    before = places(other, its)
    report = restore(tmp_path / "a", {"net": other, "optimizer": its})
    assert same(other.state_dict(), net.state_dict())
    assert same(its.state_dict(), optimizer.state_dict())
    assert places(other, its) == before
    assert (report.step, report.epoch, report.unexpected) == (7, 2, ())
    assert [(part.name, part.restored) for part in report.components] == [("net", True), ("optimizer", True)]
    with ckptfmt.open(tmp_path / "a") as checkpoint:
        assert report.identity == checkpoint.identity


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=0.1),
    "momentum": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
    "adam": adam,
    "amsgrad": lambda net: torch.optim.AdamW(net.parameters(), amsgrad=True),
    "tensor lr": lambda net: torch.optim.Adam(net.parameters(), lr=torch.tensor(0.01), foreach=False),
    "capturable": lambda net: torch.optim.Adam(net.parameters(), fused=True),
    "rmsprop": lambda net: torch.optim.RMSprop(net.parameters(), momentum=0.5, centered=True),
    "adagrad": lambda net: torch.optim.Adagrad(net.parameters()),
    "asgd": lambda net: torch.optim.ASGD(net.parameters()),
    "rprop": lambda net: torch.optim.Rprop(net.parameters()),
    "nadam": lambda net: torch.optim.NAdam(net.parameters()),
    "adafactor": lambda net: torch.optim.Adafactor(net.parameters()),
    "lbfgs": lambda net: torch.optim.LBFGS(net.parameters(), max_iter=3),
    "groups": lambda net: torch.optim.AdamW(
        [{"params": [p], "lr": 0.1 * (n + 1)} for n, p in enumerate(net.parameters())]
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 2], ids=["a new optimizer", "one that has stepped"])
def test_training_goes_on_bit_for_bit(tmp_path: Path, name: str, steps: int) -> None:
    net, optimizer = trained(0, 3, OPTIMIZERS[name])
    save(tmp_path / "a", net=net, optimizer=optimizer)
    other, its = trained(1, steps, OPTIMIZERS[name])
    restore(tmp_path / "a", {"net": other, "optimizer": its})
    assert same(its.state_dict(), optimizer.state_dict())
    train(net, optimizer, range(3, 6))
    train(other, its, range(3, 6))
    assert same(other.state_dict(), net.state_dict())
    assert same(its.state_dict(), optimizer.state_dict())


def test_moments_keep_their_dtype(tmp_path: Path) -> None:
    net, optimizer = trained(0)
    net.to(torch.bfloat16)
    save(tmp_path / "a", net=net, optimizer=optimizer)
    other, its = trained(1)
    other.to(torch.bfloat16)
    for state in its.state.values():
        state["exp_avg"] = state["exp_avg"].to(torch.bfloat16)  # these cannot take what is saved
    restore(tmp_path / "a", {"net": other, "optimizer": its})
    assert same(its.state_dict(), optimizer.state_dict())
    assert {value.dtype for state in its.state.values() for value in state.values()} == {torch.float32}


def test_what_does_not_fit_is_told_at_once_and_nothing_changes(tmp_path: Path) -> None:
    net, optimizer = trained(0)
    save(tmp_path / "a", net=net, optimizer=optimizer)
    other = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 5))
    its = adam(other)
    before = copy.deepcopy((other.state_dict(), its.state_dict()))
    with pytest.raises(MismatchError) as caught:
        restore(tmp_path / "a", {"net": other, "optimizer": its, "more": dense_net(2)})
    assert caught.value.differences == (
        "net.2.weight: float32 [5, 3] in the model, float32 [2, 3] in the checkpoint",
        "net.2.bias: float32 [5] in the model, float32 [2] in the checkpoint",
        "optimizer.state[net.2.weight]: [5, 3] in the optimizer, [2, 3] in the checkpoint",
        "optimizer.state[net.2.bias]: [5] in the optimizer, [2] in the checkpoint",
        "more: not in the checkpoint",
    )
    assert same((other.state_dict(), its.state_dict()), before)


def test_what_is_waived_takes_what_fits(tmp_path: Path) -> None:
    net, optimizer = trained(0)
    save(tmp_path / "a", net=net, optimizer=optimizer, gone=dense_net(3))
    first, last = nn.Linear(4, 3), nn.Linear(3, 5)
    other = nn.Sequential(first, nn.Tanh(), last)
    kept = last.weight.detach().clone()
    report = restore(tmp_path / "a", {"net": other}, allow_mismatch=["net"])
    assert torch.equal(first.weight, net.get_parameter("0.weight"))
    assert torch.equal(last.weight, kept)
    assert len(report.components[0].differences) == 2
    assert report.unexpected == ("optimizer", "gone")


def damage(path: Path, component: str, tensor: str) -> None:
    with ckptfmt.open(path) as checkpoint:
        member, entry = checkpoint[component].tensor_member, checkpoint[component].tensors[tensor]
        assert member is not None
        header = member.parsed_header
        assert header is not None
        offset = member.offset + header.block_bytes + entry.begin
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_damage_is_told_with_the_tensors_and_the_objects_that_are_not_to_be_used(tmp_path: Path) -> None:
    net, optimizer = trained(0)
    save(tmp_path / "a", net=net, optimizer=optimizer)
    damage(tmp_path / "a", "net", "2.weight")
    damage(tmp_path / "a", "optimizer", "state.1.exp_avg_sq")
    other, its = trained(1)
    with pytest.raises(IntegrityError) as caught:
        restore(tmp_path / "a", {"net": other, "optimizer": its})
    assert [problem.tensor for problem in caught.value.problems] == ["2.weight", "state.1.exp_avg_sq"]
    assert caught.value.path == str(tmp_path / "a")
    assert all(name in caught.value.__notes__[0] for name in ("net", "optimizer"))


def test_with_verify_first_damage_changes_nothing(tmp_path: Path) -> None:
    net, optimizer = trained(0)
    save(tmp_path / "a", net=net, optimizer=optimizer)
    damage(tmp_path / "a", "optimizer", "state.1.exp_avg_sq")
    other, its = trained(1)
    before = copy.deepcopy((other.state_dict(), its.state_dict()))
    with pytest.raises(IntegrityError, match=r"state\.1\.exp_avg_sq") as caught:
        restore(tmp_path / "a", {"net": other, "optimizer": its}, verify_first=True)
    assert same((other.state_dict(), its.state_dict()), before)
    assert not hasattr(caught.value, "__notes__")
    restore(tmp_path / "a", {"net": other}, verify_first=True)
    assert same(other.state_dict(), net.state_dict())


class Tied(nn.Module):
    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.wte, self.head = nn.Linear(3, 4), nn.Linear(3, 4)
        if tied:
            self.head.weight = self.wte.weight


@pytest.mark.parametrize("there", [True, False], ids=["tied there", "two there"])
@pytest.mark.parametrize("here", [True, False], ids=["tied here", "two here"])
def test_tied_weights(tmp_path: Path, here: bool, there: bool) -> None:
    net, live = Tied(tied=there), Tied(tied=here)
    with torch.no_grad():
        net.head.weight.copy_(net.wte.weight)
    ckptfmt.torch.save({"net": dict(net.state_dict())}, tmp_path / "a")
    restore(tmp_path / "a", {"net": live})
    assert same(dict(live.state_dict()), dict(net.state_dict()))
    assert (live.head.weight is live.wte.weight) == here


@pytest.mark.parametrize("hooks", [False, True])
@pytest.mark.parametrize("left_out", [0, 1])
def test_one_name_of_tied_weights_is_enough(tmp_path: Path, left_out: int, hooks: bool) -> None:
    """As models of Hugging Face save them."""
    net, live = Tied(tied=True), Tied(tied=True)
    if hooks:
        live.register_load_state_dict_post_hook(lambda *_: None)  # type: ignore[no-untyped-call]  # PyTorch's own
    state = net.state_dict()
    del state[[name for name in state if state[name].data_ptr() == next(net.parameters()).data_ptr()][left_out]]
    ckptfmt.torch.save({"net": state}, tmp_path / "a")
    ckptfmt.torch.restore(tmp_path / "a", {"net": live})
    assert same(live.state_dict(), net.state_dict())
    with pytest.raises(MismatchError, match=r"net\.(head|wte)\.weight: "):
        ckptfmt.torch.restore(tmp_path / "a", {"net": Tied(tied=False)})


def test_two_weights_that_differ_do_not_fit_one(tmp_path: Path) -> None:
    ckptfmt.torch.save({"net": Tied(tied=False).state_dict()}, tmp_path / "a")
    with pytest.raises(MismatchError, match=r"head\.weight: .*wte\.weight"):
        restore(tmp_path / "a", {"net": Tied(tied=True)})


def test_memory_in_another_order_is_filled_rightly(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3))
    net(torch.randn(2, 3, 8, 8))
    ckptfmt.torch.save({"net": net.state_dict()}, tmp_path / "a")
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3))
    other.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub lacks this form
    restore(tmp_path / "a", {"net": other})
    assert same(dict(other.state_dict()), dict(net.state_dict()))
    assert not other.get_parameter("0.weight").is_contiguous()


def test_a_view_and_what_it_is_a_view_of(tmp_path: Path) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("whole", torch.randn(12))
            self.first = nn.Parameter(self.get_buffer("whole")[:4])

    net, other = Flat(), Flat()
    ckptfmt.torch.save({"net": net.state_dict()}, tmp_path / "a")
    restore(tmp_path / "a", {"net": other})
    assert same(dict(other.state_dict()), dict(net.state_dict()))


def test_modules_that_load_in_their_own_way_are_asked_to(tmp_path: Path) -> None:
    class Doubling(nn.Linear):
        def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
            super()._load_from_state_dict(state_dict, prefix, *args)
            with torch.no_grad():
                self.weight.mul_(2)

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count, self.seen = 0, ""
            self.weight = nn.Parameter(torch.randn(3))
            self.register_load_state_dict_pre_hook(self.look)  # type: ignore[no-untyped-call]  # it has no annotations

        def look(self, module: nn.Module, state_dict: Any, prefix: str, *args: Any) -> None:
            self.seen = f"{prefix}{state_dict[prefix + 'weight'].tolist()}"

        def get_extra_state(self) -> int:
            return self.count

        def set_extra_state(self, state: int) -> None:
            self.count = state

    def make() -> nn.Module:
        return nn.ModuleDict({"a": Doubling(2, 2), "b": Counting(), "c": nn.Linear(2, 2)})

    net, other = make(), make()
    net["b"].count = 5  # type: ignore[index]  # it is a dict of modules
    ckptfmt.torch.save({"net": net.state_dict()}, tmp_path / "a")
    restore(tmp_path / "a", {"net": other})
    expected = make()
    expected.load_state_dict(net.state_dict())
    assert same(dict(other.state_dict()), dict(expected.state_dict()))
    assert other["b"].seen == f"b.{net['b'].weight.tolist()}"  # type: ignore[index]  # they are dicts of modules


def test_optimizers_with_hooks_are_asked_to_load(tmp_path: Path) -> None:
    net, optimizer = trained(0)
    save(tmp_path / "a", net=net, optimizer=optimizer)
    other, its = trained(1)
    seen = []
    its.register_load_state_dict_post_hook(lambda loaded: seen.append(loaded))
    restore(tmp_path / "a", {"net": other, "optimizer": its})
    assert seen == [its]
    assert same(its.state_dict(), optimizer.state_dict())


def test_wrapped_models_and_other_components(tmp_path: Path) -> None:
    def make(seed: int) -> dict[str, Any]:
        net = dense_net(seed)
        optimizer = adam(net)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        for step in range(3 - seed):
            train(net, optimizer, [step])
            scheduler.step()
        ema = torch.optim.swa_utils.AveragedModel(net)
        return {"net": nn.DataParallel(net), "optimizer": optimizer, "scheduler": scheduler, "ema": ema}

    saved, live = make(0), make(1)
    captured = capture_components(saved)
    ckptfmt.torch.save(captured, tmp_path / "a")
    restore(tmp_path / "a", live)
    assert same(capture_components(live), captured)
    assert live["scheduler"].last_epoch == 3


def test_generators_are_restored(tmp_path: Path) -> None:
    saved, live = torch.Generator().manual_seed(3), torch.Generator()
    ckptfmt.torch.save({"draws": StatefulGenerator(saved).state_dict()}, tmp_path / "a")
    restore(tmp_path / "a", {"draws": live})
    assert torch.equal(torch.rand(3, generator=live), torch.rand(3, generator=saved))


def test_autograd_knows_that_the_parameters_have_changed(tmp_path: Path) -> None:
    net, _ = trained(0)
    ckptfmt.torch.save({"net": net.state_dict()}, tmp_path / "a")
    loss = net(torch.randn(2, 4)).sum()
    restore(tmp_path / "a", {"net": net})
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_model_without_memory_is_refused(tmp_path: Path) -> None:
    ckptfmt.torch.save({"net": nn.Linear(2, 2).state_dict()}, tmp_path / "a")
    with torch.device("meta"):
        net = nn.Linear(2, 2)
    with pytest.raises(MismatchError, match=r"to_empty.*\n  net\.weight: "):
        restore(tmp_path / "a", {"net": net})


def test_lazy_modules_take_their_shapes_from_the_checkpoint(tmp_path: Path) -> None:
    net = nn.Sequential(nn.LazyLinear(2))
    net(torch.ones(1, 3))
    ckptfmt.torch.save({"net": net.state_dict()}, tmp_path / "a")
    other = nn.Sequential(nn.LazyLinear(2))
    restore(tmp_path / "a", {"net": other})
    assert same(other.state_dict(), net.state_dict())


def test_what_is_no_component_is_refused(tmp_path: Path) -> None:
    ckptfmt.torch.save({"net": nn.Linear(2, 2).state_dict()}, tmp_path / "a")
    with pytest.raises(UsageError):
        restore(tmp_path / "a", {"net": 3})
    with pytest.raises(UsageError):
        restore(tmp_path / "a", {"net": nn.Linear(2, 2)}, allow_mismatch="net")


def test_progress_counts_every_byte_of_the_components(tmp_path: Path) -> None:
    net, optimizer = trained(0)
    save(tmp_path / "a", net=net, optimizer=optimizer)
    read: list[int] = []
    restore(tmp_path / "a", {"net": net}, progress=read.append)
    with ckptfmt.open(tmp_path / "a") as checkpoint:
        assert sum(read) == checkpoint["net"].logical_bytes


def _memory(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a moment")
@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_it_takes_less_than_64_mib_beside_the_objects(tmp_path: Path, codec: str) -> None:
    def make() -> Parts:
        net = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(16)))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for parameter in net.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
        return net, optimizer

    net, optimizer = make()
    save(tmp_path / "a", codec, net=net, optimizer=optimizer)
    del net, optimizer
    other, its = make()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    restore(tmp_path / "a", {"net": other, "optimizer": its})
    assert _memory("VmHWM") - before < 64 << 20
