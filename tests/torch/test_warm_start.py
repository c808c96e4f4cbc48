"""New runs that begin with the weights of earlier ones: what is taken, what is refused, and what is written down."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import ckptfmt.torch
from ckptfmt import CkptfmtError, FormatError, MismatchError, StorageError, UnsafeInputError
from ckptfmt._core.torch.warm_start.fit import fit_weights, map_names
from ckptfmt._core.torch.warm_start.plan import render_warm_start
from ckptfmt.torch import Checkpointer, UsageError, WarmStartReport, warm_start
from tests.torch.same import same
from tests.torch.training import dense_net, train


def clone(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def trained(directory: Path, *, epochs: int = 2, run_id: str | None = None, **components: Any) -> Path:
    """Train for some steps and return the last checkpoint."""
    net = components.setdefault("net", dense_net(0))
    optimizer = components.setdefault("optimizer", torch.optim.AdamW(net.parameters(), lr=0.05))
    with Checkpointer(directory, components, run_id=run_id) as ckpt:
        ckpt.resume(quiet=True)
        for epoch in ckpt.epochs(epochs):
            for _ in ckpt.batches(range(3)):
                train(net, optimizer, [epoch])
                ckpt.step()
        assert ckpt.last_saved is not None
        return Path(ckpt.last_saved.path)


def checkpoint_of(generator: torch.Generator) -> dict[str, Any]:
    """Return the state of a generator as a checkpoint has it."""
    return {"kind": "torch.cpu", "state": generator.get_state()}


class TestFiles:
    """Every kind of file that weights come in."""

    def check(self, path: Path, expected: dict[str, torch.Tensor], **options: Any) -> WarmStartReport:
        net = dense_net(7)
        report = warm_start(path, net, quiet=True, **options)
        assert same(net.state_dict(), expected)
        assert set(report.loaded) == set(expected)
        return report

    def test_a_checkpoint_of_a_run(self, tmp_path: Path) -> None:
        net = dense_net(0)
        path = trained(tmp_path, net=net, run_id="old")
        report = self.check(path, clone(net))
        assert (report.lineage[0].run_id, report.lineage[0].step, report.lineage[0].epoch) == ("old", 6, 2)

    @pytest.mark.parametrize("codec", ["none", "zstd"])
    def test_a_bare_state_dict(self, tmp_path: Path, codec: str) -> None:
        net = dense_net(0)
        ckptfmt.torch.save(net.state_dict(), tmp_path / "any.name", codec=codec)
        self.check(tmp_path / "any.name", clone(net))

    @pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.bin", "a.ckpt"])
    def test_a_state_dict_of_torch_save(self, tmp_path: Path, name: str) -> None:
        net = dense_net(0)
        torch.save(net.state_dict(), tmp_path / name)
        self.check(tmp_path / name, clone(net))

    def test_a_checkpoint_of_the_documented_loop(self, tmp_path: Path) -> None:
        net = dense_net(0)
        optimizer = torch.optim.AdamW(net.parameters())
        train(net, optimizer, range(2))
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
        torch.save(state, tmp_path / "ckpt_best_3.pth")
        self.check(tmp_path / "ckpt_best_3.pth", clone(net))

    def test_a_checkpoint_of_lightning(self, tmp_path: Path) -> None:
        net = dense_net(0)
        state = {f"model.{name}": value for name, value in net.state_dict().items()}
        torch.save({"epoch": 3, "global_step": 9, "state_dict": state, "callbacks": {}}, tmp_path / "last.ckpt")
        self.check(tmp_path / "last.ckpt", clone(net), strip_prefix="model.")

    def test_safetensors(self, tmp_path: Path) -> None:
        net = dense_net(0)
        save_file(net.state_dict(), tmp_path / "a.safetensors")
        self.check(tmp_path / "a.safetensors", clone(net))

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
    def test_names_that_a_wrapper_left(self, tmp_path: Path, prefix: str) -> None:
        net = dense_net(0)
        torch.save({prefix + name: value for name, value in net.state_dict().items()}, tmp_path / "a.pth")
        self.check(tmp_path / "a.pth", clone(net))

    def test_one_of_several_models_is_named(self, tmp_path: Path) -> None:
        first, second = dense_net(0), dense_net(1)
        ckptfmt.torch.save({"net": first.state_dict(), "ema": second.state_dict()}, tmp_path / "a.ckptfmt")
        with pytest.raises(MismatchError, match="net, ema"):
            warm_start(tmp_path / "a.ckptfmt", dense_net(2))
        self.check(tmp_path / "a.ckptfmt", clone(second), source="ema")
        with pytest.raises(MismatchError, match=r"'emma'.*net, ema"):
            warm_start(tmp_path / "a.ckptfmt", dense_net(2), source="emma")

    def test_a_generator_is_not_taken_for_weights(self, tmp_path: Path) -> None:
        path = trained(tmp_path / "run", shuffling=torch.Generator().manual_seed(1), draws=random.Random(1))
        with ckptfmt.torch.open(path) as checkpoint:
            weights = checkpoint["net"].load()
        self.check(path, weights)
        torch.save({"net": weights, "shuffling": checkpoint_of(torch.Generator())}, tmp_path / "a.pth")
        self.check(tmp_path / "a.pth", weights)

    def test_several_models_take_each_its_own(self, tmp_path: Path) -> None:
        first, second = dense_net(0), dense_net(1)
        ckptfmt.torch.save({"net": first.state_dict(), "ema": second.state_dict()}, tmp_path / "a.ckptfmt")
        net, ema = dense_net(2), dense_net(3)
        report = warm_start(tmp_path / "a.ckptfmt", {"net": net, "ema": ema}, quiet=True)
        assert same([net.state_dict(), ema.state_dict()], [first.state_dict(), second.state_dict()])
        assert len(report.loaded) == 2 * len(first.state_dict())
        warm_start(tmp_path / "a.ckptfmt", {"net": net, "ema": ema}, source={"net": "ema"}, quiet=True)
        assert same(net.state_dict(), second.state_dict())
        with pytest.raises(UsageError):
            warm_start(tmp_path / "a.ckptfmt", {"net": net, "ema": ema}, source="ema")
        models: Any = {"net": net, "optimizer": torch.optim.SGD(net.parameters())}
        with pytest.raises(UsageError):
            warm_start(tmp_path / "a.ckptfmt", models)


class TestRefusals:
    """Files that are no source of weights. Nothing of the model changes."""

    @pytest.fixture
    def net(self) -> Any:
        net = dense_net(3)
        before = clone(net)
        yield net
        assert same(net.state_dict(), before)

    def test_a_damaged_tensor_is_named(self, tmp_path: Path, net: nn.Module) -> None:
        path = trained(tmp_path)
        with ckptfmt.open(path) as checkpoint:
            member = checkpoint["net"].tensor_member
            assert member is not None
            offset = member.offset + member.segments[-1].offset
            name = member.segments[-1].tensor
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        path.write_bytes(data)
        with pytest.raises(FormatError, match=str(name)):
            warm_start(path, net)

    @pytest.mark.parametrize("name", ["a.ckptfmt", "a.pth", "a.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 5000], ids=len)
    def test_junk(self, tmp_path: Path, net: nn.Module, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CkptfmtError, match=name):
            warm_start(tmp_path / name, net)

    @pytest.mark.parametrize("name", ["a.ckptfmt", "a.pth", "a.safetensors"])
    def test_a_file_that_is_not_there(self, tmp_path: Path, net: nn.Module, name: str) -> None:
        with pytest.raises(StorageError, match=name):
            warm_start(tmp_path / name, net)

    def test_a_file_that_would_run_code(self, tmp_path: Path, net: nn.Module) -> None:
        canary = tmp_path / "canary"

        class Attack:
            def __reduce__(self) -> Any:
                return (open, (str(canary), "w"))

        torch.save({"net": net.state_dict(), "attack": Attack()}, tmp_path / "a.pth")
        (tmp_path / "b.pth").write_bytes(pickle.dumps(Attack()))
        for name in ("a.pth", "b.pth"):
            with pytest.raises(CkptfmtError) as caught:
                warm_start(tmp_path / name, net)
            assert isinstance(caught.value, UnsafeInputError | FormatError)
        assert not canary.exists()

    def test_what_holds_no_weights(self, tmp_path: Path, net: nn.Module) -> None:
        torch.save([1, 2], tmp_path / "list.pth")
        torch.save({"epoch": 3, "losses": [0.1]}, tmp_path / "facts.pth")
        for name in ("list.pth", "facts.pth"):
            with pytest.raises(MismatchError, match=name):
                warm_start(tmp_path / name, net)


class TestFitting:
    """Models that are like the saved one, and not the same."""

    LIVE = {"body.weight": torch.zeros(4, 3), "body.bias": torch.zeros(4), "head.weight": torch.zeros(5, 4)}  # noqa: RUF012 - never changed

    def test_all_differences_at_once(self, tmp_path: Path) -> None:
        saved = {"body.weight": torch.ones(4, 2), "body.bias": torch.ones(4), "old.weight": torch.ones(1)}
        torch.save(saved, tmp_path / "a.pth")
        net = nn.ModuleDict({"body": nn.Linear(3, 4), "head": nn.Linear(4, 5, bias=False)})
        with pytest.raises(MismatchError) as caught:
            warm_start(tmp_path / "a.pth", net)
        assert caught.value.differences == (
            "body.weight: [4, 3] in the model, [4, 2] in the file",
            "head.weight: in the model, not in the file",
            "old.weight: in the file, not in the model",
        )

    def test_parts_may_be_left_out(self) -> None:
        saved = {"body.weight": torch.ones(4, 3), "body.bias": torch.ones(4), "head.weight": torch.ones(9, 4)}
        fit = fit_weights(self.LIVE, saved, partial=["head.*"])
        assert set(fit.state) == {"body.weight", "body.bias"}
        assert fit.kept == ("head.weight: [5, 4] in the model, [9, 4] in the file",)
        assert fit.differences == ()
        fit = fit_weights(self.LIVE, {"body.bias": torch.ones(4), "x": torch.ones(1)}, partial=True)
        assert set(fit.state) == {"body.bias"}
        assert (len(fit.kept), fit.unused, fit.differences) == (2, ("x: in the file, not in the model",), ())

    @given(st.tuples(st.integers(0, 4), st.integers(0, 4)), st.tuples(st.integers(0, 4), st.integers(0, 4)))
    def test_the_common_part_of_two_sizes(self, here: tuple[int, int], there: tuple[int, int]) -> None:
        """Each element that both have is the saved one, each other one the model's own."""
        live = {"w": torch.full(here, -1.0)}
        saved = {"w": torch.arange(there[0] * there[1], dtype=torch.float64).view(there)}
        fit = fit_weights(live, saved, resize=["w"])
        taken = fit.state["w"]
        assert taken.shape == here
        for row in range(here[0]):
            for column in range(here[1]):
                common = row < there[0] and column < there[1]
                assert taken[row, column] == (saved["w"][row, column] if common else -1.0)
        assert bool(fit.resized) == (here != there)

    def test_another_number_of_dimensions_is_never_resized(self) -> None:
        fit = fit_weights({"w": torch.zeros(4)}, {"w": torch.zeros(4, 1)}, resize=True)
        assert fit.differences == ("w: [4] in the model, [4, 1] in the file",)

    def test_dtypes_are_converted_and_told(self, tmp_path: Path) -> None:
        net, other = dense_net(0), dense_net(1)
        torch.save({name: value.bfloat16() for name, value in net.state_dict().items()}, tmp_path / "a.pth")
        report = warm_start(tmp_path / "a.pth", other, quiet=True)
        assert "0.weight: bfloat16 -> float32" in report.converted
        for name, value in other.state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, net.state_dict()[name].bfloat16().float())

    def test_names_are_mapped(self) -> None:
        saved = {"transformer.h.0.w": 1, "transformer.hx": 2, "lm_head.w": 3, "lm_head": 4, "rest": 5}
        rename = {"transformer.h": "layers", "transformer": "encoder", "lm_head": None}
        assert map_names(saved, rename) == {"layers.0.w": 1, "encoder.hx": 2, "rest": 5}
        assert map_names(saved, lambda name: name.upper() if "." in name else None) == {
            "TRANSFORMER.H.0.W": 1,
            "TRANSFORMER.HX": 2,
            "LM_HEAD.W": 3,
        }
        assert map_names({"model.a": 1, "b": 2}, {"a": "c"}, "model.") == {"c": 1, "b": 2}
        assert map_names({"backbone.a": 1}, {"backbone": ""}) == {"a": 1}

    def test_two_names_that_become_one_are_refused(self) -> None:
        with pytest.raises(UsageError, match=r"'a'.*'b'.*'c'"):
            map_names({"a": 1, "b": 2}, {"a": "c", "b": "c"})

    def test_tied_weights_that_were_saved_once(self, tmp_path: Path) -> None:
        def tied(seed: int) -> nn.Module:
            torch.manual_seed(seed)
            net = nn.ModuleDict({"wte": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
            net["head"].weight = net["wte"].weight
            return net

        net, other = tied(0), tied(1)
        save_file({"wte.weight": net["wte"].weight.detach()}, tmp_path / "a.safetensors")  # type: ignore[index]  # a ModuleDict
        warm_start(tmp_path / "a.safetensors", other, quiet=True)
        assert same(other.state_dict(), net.state_dict())


class TestRuns:
    """New runs of a Checkpointer."""

    def start(self, directory: Path, path: Path, **options: Any) -> tuple[Checkpointer, nn.Module, torch.optim.AdamW]:
        net = dense_net(5)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        ckpt = Checkpointer(directory, {"net": net, "optimizer": optimizer})
        assert not ckpt.resume(quiet=True).resumed
        ckpt.warm_start(path, quiet=True, **options)
        return ckpt, net, optimizer

    def test_weights_alone_by_default_and_counting_from_zero(self, tmp_path: Path) -> None:
        old = dense_net(0)
        path = trained(tmp_path / "old", net=old)
        ckpt, net, optimizer = self.start(tmp_path / "new", path)
        assert same(net.state_dict(), old.state_dict())
        assert optimizer.state_dict()["state"] == {}
        assert (ckpt.global_step, ckpt.epoch) == (0, 0)
        assert list(ckpt.epochs(2)) == [0, 1]

    def test_optimizer_and_random_states_on_request_and_counting_on(self, tmp_path: Path) -> None:
        old = dense_net(0)
        old_optimizer = torch.optim.AdamW(old.parameters(), lr=0.05)
        path = trained(tmp_path / "old", net=old, optimizer=old_optimizer)
        ckptfmt_rng = ckptfmt.torch.load(path)["rng"]["torch"]
        torch.rand(9)
        ckpt, _, optimizer = self.start(tmp_path / "new", path, also_restore=["optimizer", "rng"], keep_counters=True)
        assert same(optimizer.state_dict(), old_optimizer.state_dict())
        assert torch.equal(torch.get_rng_state(), ckptfmt_rng)
        assert (ckpt.global_step, ckpt.epoch) == (6, 2)
        assert list(ckpt.epochs(4)) == [2, 3]

    def test_the_lineage_is_in_every_checkpoint_that_follows(self, tmp_path: Path) -> None:
        first = trained(tmp_path / "1", run_id="first")
        ckpt, _, _ = self.start(tmp_path / "2", first)
        assert list(ckpt.epochs(1)) == [0]
        second = tmp_path / "2" / "ckpt-00000000-e0001.ckptfmt"
        ckpt, _, _ = self.start(tmp_path / "3", second)
        assert list(ckpt.epochs(1)) == [0]
        again = Checkpointer(
            tmp_path / "3", {"net": dense_net(1), "optimizer": torch.optim.AdamW(dense_net(1).parameters())}
        )
        report = again.resume("must", allow_mismatch=["optimizer"], quiet=True)  # a resumed run keeps it
        assert list(again.epochs(2)) == [1]
        with ckptfmt.open(first) as one, ckptfmt.open(second) as two:
            assert two.metadata.parent is not None
            assert two.metadata.parent.hex() == one.identity
            assert report.parent == two.identity
            expected: list[dict[str, Any]] = [
                {"identity": two.identity, "name": second.name, "run_id": two.metadata.run_id, "step": 0, "epoch": 1},
                {"identity": one.identity, "name": first.name, "run_id": "first", "step": 6, "epoch": 2},
            ]
        for path in (tmp_path / "3").glob("*.ckptfmt"):
            with ckptfmt.open(path) as three:
                assert three.metadata.parent is not None
                assert three.metadata.parent.hex() == expected[0]["identity"]
                assert three.metadata.user == {"lineage": expected}

    def test_the_parent_of_another_format_is_the_digest_of_its_bytes(self, tmp_path: Path) -> None:
        from blake3 import blake3

        torch.save(dense_net(0).state_dict(), tmp_path / "a.pth")
        ckpt, _, _ = self.start(tmp_path / "new", tmp_path / "a.pth")
        assert ckpt.parent == blake3((tmp_path / "a.pth").read_bytes()).hexdigest()

    def test_several_modules_take_each_its_own(self, tmp_path: Path) -> None:
        path = trained(tmp_path / "old", critic=dense_net(1))
        net, critic = dense_net(5), dense_net(6)
        ckpt = Checkpointer(tmp_path / "new", {"net": net, "critic": critic})
        ckpt.resume(quiet=True)
        ckpt.warm_start(path, quiet=True, source={"net": "critic"})
        assert same(net.state_dict(), dense_net(1).state_dict())
        assert same(critic.state_dict(), dense_net(1).state_dict())
        ckpt.close()

    def test_a_component_that_the_file_lacks_is_a_difference(self, tmp_path: Path) -> None:
        path = trained(tmp_path / "old")
        other = dense_net(8)
        before = clone(other)
        ckpt = Checkpointer(tmp_path / "new", {"net": dense_net(5), "other": other})
        ckpt.resume(quiet=True)
        with pytest.raises(MismatchError, match="other: "):
            ckpt.warm_start(path, quiet=True)
        report = ckpt.warm_start(path, quiet=True, partial=True)
        assert report.kept[0].startswith("other: ")
        assert same(other.state_dict(), before)
        ckpt.close()

    @pytest.mark.parametrize(
        "options", [{"also_restore": ["scheduler"]}, {"source": {"x": "net"}}, {"also_restore": "rng"}], ids=str
    )
    def test_names_that_are_none(self, tmp_path: Path, options: dict[str, Any]) -> None:
        path = trained(tmp_path / "old")
        with pytest.raises(UsageError):
            self.start(tmp_path / "new", path, **options)

    def test_only_a_new_run_can_be_started(self, tmp_path: Path) -> None:
        path = trained(tmp_path / "old")
        ckpt = Checkpointer(tmp_path / "new", {"net": dense_net(0)})
        with pytest.raises(UsageError):
            ckpt.warm_start(path)
        ckpt, _, _ = self.start(tmp_path / "new", path)
        for _ in ckpt.epochs(1):
            with pytest.raises(UsageError):
                ckpt.warm_start(path)
        again = Checkpointer(tmp_path / "new", {"net": dense_net(0)})
        again.resume(quiet=True)
        with pytest.raises(UsageError):
            again.warm_start(path)
        again.close()

    def test_random_states_that_the_file_lacks_are_a_difference(self, tmp_path: Path) -> None:
        torch.save(dense_net(0).state_dict(), tmp_path / "a.pth")
        with pytest.raises(MismatchError, match="rng: "):
            self.start(tmp_path / "new", tmp_path / "a.pth", also_restore=["rng"])


def test_the_report_as_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = trained(tmp_path / "old", run_id="r0")
    ckpt = Checkpointer(tmp_path / "new", {"net": dense_net(5)})
    ckpt.resume(quiet=True)
    report = ckpt.warm_start(path)
    ckpt.close()
    assert capfd.readouterr().err == render_warm_start(report)
    assert render_warm_start(report) == (
        f"ckptfmt: starts from {path} (run r0, step 6)\n  weights     4 tensors\n  anew        rng\n"
    )
