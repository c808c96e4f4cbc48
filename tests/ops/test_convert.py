"""Conversion of all that is no pickle, of directories, and what is reported of it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import ckptfmt
import ckptfmt.torch
from ckptfmt import PerRank
from ckptfmt._core.container.numpy_adapter import NUMPY_ADAPTERS
from ckptfmt._core.container.planning import MemberPlan, fixed_part, plan_save
from ckptfmt._core.container.writer import write_plan
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.ops.conversion.convert_tree import convert_tree, plan_tree
from ckptfmt._core.ops.progress import Progress
from ckptfmt.errors import CkptfmtError, IntegrityError, StateError, StorageError, UnsafeInputError
from ckptfmt.torch import Checkpointer
from tests.ops.conftest import save_run
from tests.pth import legacy_files
from tests.pth.attacks import call, zip_of
from tests.torch.same import same

WEIGHTS = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "a.bias": torch.ones(3, dtype=torch.bfloat16),
    "n": torch.tensor(7),
}


def converted(source: Path, **options: Any) -> Any:
    target = source.parent / "converted.ckptfmt"
    ckptfmt.convert(source, target, check=True, **options)
    return ckptfmt.torch.load(target)


def test_a_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(WEIGHTS, path, metadata={"format": "pt"})
    assert same(
        converted(path),
        dict(sorted(WEIGHTS.items(), key=lambda item: list(safetensors.torch.load_file(path)).index(item[0]))),
    )
    with ckptfmt.open(tmp_path / "converted.ckptfmt") as checkpoint:
        assert checkpoint["_root"].text_metadata == {"format": "pt"}
        assert checkpoint.metadata.user == {"converted_from": "a.safetensors", "form": "safetensors"}


def test_an_npz_file(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "a": np.arange(6.0).reshape(2, 3),
        "big": np.arange(4, dtype=">i4"),
        "f": np.asfortranarray(np.eye(3, 2)),
        "c": np.array([1 + 2j]),
    }
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "a.npz", **arrays)
        target = tmp_path / "a.ckptfmt"
        ckptfmt.convert(tmp_path / "a.npz", target, check=True)
        found = ckptfmt.load(target)
        assert list(found) == list(arrays)
        assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([{"an": "object"}], dtype=object)])
def test_arrays_that_are_no_numbers_are_refused(tmp_path: Path, array: Any) -> None:
    np.savez(tmp_path / "a.npz", x=array)
    with pytest.raises((StateError, UnsafeInputError), match="x"):
        ckptfmt.convert(tmp_path / "a.npz", tmp_path / "a.ckptfmt")
    assert not (tmp_path / "a.ckptfmt").exists()


def test_a_checkpoint_of_ours_is_written_anew(tmp_path: Path) -> None:
    ckptfmt.torch.save({"net": WEIGHTS, "epoch": 2}, tmp_path / "a.ckptfmt", step=9, metrics={"loss": 0.5})
    ckptfmt.convert(tmp_path / "a.ckptfmt", tmp_path / "b.ckptfmt", codec="zstd", check=True)
    with ckptfmt.open(tmp_path / "a.ckptfmt") as a, ckptfmt.open(tmp_path / "b.ckptfmt") as b:
        assert a.metadata == b.metadata
        assert a["net"].identity == b["net"].identity
        assert b["net"].codec == "zstd"


def test_members_that_belong_to_no_component_are_kept(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000
    plan = plan_save({"net": {"a": np.ones(3)}}, NUMPY_ADAPTERS, metadata=Metadata())
    members = (*plan.members, MemberPlan("notes.txt", "none", None, [fixed_part(content)]))
    write_plan(tmp_path / "a.ckptfmt", replace(plan, members=members))
    ckptfmt.convert(tmp_path / "a.ckptfmt", tmp_path / "b.ckptfmt", codec="zstd", check=True)
    with ckptfmt.open(tmp_path / "b.ckptfmt") as checkpoint:
        assert checkpoint.read_opaque("notes.txt") == content
        assert checkpoint.verify() == ()


def test_the_report_tells_what_a_person_wants_to_know(tmp_path: Path) -> None:
    path = legacy_files.save(legacy_files.documented(epoch=4), tmp_path / "ckpt_best_4.pth")
    seen: list[Progress] = []
    report = ckptfmt.convert(path, tmp_path / "a.ckptfmt", progress=seen.append)
    assert (report.form, report.target_form) == ("pth zip", "ckptfmt")
    assert (report.epoch, report.step) == (5, None)
    assert report.components == ("net", "optimizer", "epoch")
    assert report.source_bytes == path.stat().st_size
    assert report.target_bytes == (tmp_path / "a.ckptfmt").stat().st_size
    assert report.tensor_bytes == seen[-1].done_bytes == seen[-1].total_bytes
    document = json.loads(json.dumps(report.to_json()))
    assert document["report"] == "convert/1"
    assert document["epoch"] == 5
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert checkpoint.identity == report.identity
        assert checkpoint.metadata.epoch == 5
        assert checkpoint.metadata.user["converted_from"] == "ckpt_best_4.pth"  # type: ignore[index]  # it has notes


def test_another_run_counts_its_own_generations(tmp_path: Path) -> None:
    source = save_run(tmp_path / "a.ckptfmt", run_id="r", generation=3, step=7)
    found = []
    for run_id in (None, "r", "other"):
        ckptfmt.convert(source, tmp_path / "b.ckptfmt", run_id=run_id)
        with ckptfmt.open(tmp_path / "b.ckptfmt") as checkpoint:
            found.append((checkpoint.metadata.run_id, checkpoint.metadata.generation))
    assert found == [("r", 3), ("r", 3), ("other", None)]


def test_nothing_is_at_the_target_after_an_interrupt(tmp_path: Path) -> None:
    path = legacy_files.save(
        {"net": {str(number): torch.randn(1000, 1000) for number in range(8)}, "epoch": 1}, tmp_path / "a.pth"
    )

    def interrupt(progress: Progress) -> None:
        if progress.done_bytes > progress.total_bytes // 2:
            raise KeyboardInterrupt

    target = tmp_path / "a.ckptfmt"
    target.write_bytes(b"what was there")
    with pytest.raises(KeyboardInterrupt):
        ckptfmt.convert(path, target, progress=interrupt)
    assert target.read_bytes() == b"what was there"
    assert sorted(child.name for child in tmp_path.iterdir()) == ["a.ckptfmt", "a.pth"]


def test_check_finds_a_value_that_changed_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is changed while it is converted, which only the second look can notice."""
    path = legacy_files.save(WEIGHTS, tmp_path / "a.pth", stream=True)
    data = bytearray(path.read_bytes())
    data[data.index(WEIGHTS["a.weight"].numpy().tobytes())] ^= 1

    def disturb(progress: Progress) -> None:
        if progress.done_bytes == progress.total_bytes // 3:
            path.write_bytes(data)

    with pytest.raises(IntegrityError, match=r"a\.weight"):
        ckptfmt.convert(path, tmp_path / "a.ckptfmt", check=True, progress=disturb)


def test_the_source_is_no_target(tmp_path: Path) -> None:
    path = legacy_files.save(WEIGHTS, tmp_path / "a.pth")
    with pytest.raises(StorageError, match=path.name):
        ckptfmt.convert(path, path)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(StorageError, match="link"):
        ckptfmt.convert(path, tmp_path / "link")


def test_a_training_goes_on_from_a_converted_checkpoint(tmp_path: Path) -> None:
    path = legacy_files.save(legacy_files.documented(epoch=4), tmp_path / "ckpt_best_4.pth")
    run = tmp_path / "run"
    run.mkdir()
    ckptfmt.convert(path, run / "from-pth.ckptfmt", run_id="digits")
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.3)
    checkpointer = Checkpointer(run, {"net": net, "optimizer": optimizer})
    report = checkpointer.resume(allow_mismatch=["rng"], quiet=True)
    assert report.run_id == "digits"
    assert report.epoch == 5
    assert next(iter(checkpointer.epochs(9))) == 5
    saved = legacy_files.documented(epoch=4)
    assert same(dict(net.state_dict()), dict(saved["net"]))
    assert same(optimizer.state_dict()["state"], saved["optimizer"]["state"])
    assert optimizer.param_groups[0]["lr"] == 0.01


def trainer_directory(path: Path, *, ranks: int = 1, sharded: bool = False) -> dict[str, Any]:
    """Make what the Trainer of Transformers leaves in `checkpoint-N`; return what a conversion has to give."""
    path.mkdir()
    state = legacy_files.documented()
    net = {name: tensor.clone() for name, tensor in state["net"].items()}
    if sharded:
        names = list(net)
        shards = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
        for shard, inside in shards.items():
            safetensors.torch.save_file({name: net[name] for name in inside}, path / shard, metadata={"format": "pt"})
        weight_map = {name: shard for shard, inside in shards.items() for name in inside}
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    else:
        safetensors.torch.save_file(net, path / "model.safetensors", metadata={"format": "pt"})
    torch.save(state["optimizer"], path / "optimizer.pt")
    scheduler = {"base_lrs": [0.01], "last_epoch": 500, "_step_count": 501, "_last_lr": [0.001]}
    torch.save(scheduler, path / "scheduler.pt")
    random_states = []
    for rank in range(ranks):
        random_state = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
        random_states.append(random_state)
        torch.save(random_state, path / ("rng_state.pth" if ranks == 1 else f"rng_state_{rank}.pth"))
    trainer_state = {"global_step": 500, "epoch": 2.5, "log_history": [{"step": 500, "loss": 0.25, "eval_f1": 0.5}]}
    (path / "trainer_state.json").write_text(json.dumps(trainer_state))
    (path / "config.json").write_text('{"hidden_size": 6}')
    (path / "tokenizer.json").write_text("{}")
    renamed = [{"torch" if key == "cpu" else key: value for key, value in item.items()} for item in random_states]
    return {
        "net": net,
        "config": {"hidden_size": 6},
        "optimizer": state["optimizer"],
        "scheduler": scheduler,
        "rng": renamed[0] if ranks == 1 else PerRank(tuple(renamed)),
        "trainer_state": trainer_state,
    }


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_trainer_checkpoint(tmp_path: Path, ranks: int, sharded: bool) -> None:
    expected = trainer_directory(tmp_path / "checkpoint-500", ranks=ranks, sharded=sharded)
    found = converted(tmp_path / "checkpoint-500")
    assert found.keys() == expected.keys()
    assert same({**found, "net": None}, {**expected, "net": None})
    assert found["net"].keys() == expected["net"].keys()
    assert all(same(found["net"][name], tensor) for name, tensor in expected["net"].items())
    with ckptfmt.open(tmp_path / "converted.ckptfmt") as checkpoint:
        assert (checkpoint.metadata.step, checkpoint.metadata.epoch) == (500, 2)
        assert checkpoint.metadata.metrics == {"loss": 0.25, "eval_f1": 0.5}


def test_a_training_goes_on_from_a_trainer_checkpoint(tmp_path: Path) -> None:
    trainer_directory(tmp_path / "checkpoint-500")
    report = ckptfmt.convert(tmp_path / "checkpoint-500", tmp_path / "a.ckptfmt")
    assert report.form == "hf trainer"
    assert [item.what for item in report.findings.dropped] == ["tokenizer.json"]
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.3)
    checkpointer = Checkpointer(tmp_path / "run", {"net": net, "optimizer": optimizer})
    resumed = checkpointer.resume(tmp_path / "a.ckptfmt", quiet=True)
    assert set(resumed.restored) >= {"net", "optimizer", "rng"}
    assert (resumed.step, resumed.epoch) == (500, 2)


@pytest.mark.parametrize("binary", [False, True])
def test_a_state_of_accelerate(tmp_path: Path, binary: bool) -> None:
    path = tmp_path / "state"
    path.mkdir()
    state = legacy_files.documented()
    if binary:
        torch.save(state["net"], path / "pytorch_model.bin")
    else:
        safetensors.torch.save_file(dict(state["net"]), path / "model.safetensors")
    safetensors.torch.save_file({"ema": torch.ones(2)}, path / "model_1.safetensors")
    torch.save(state["optimizer"], path / "optimizer.bin")
    torch.save({"last_epoch": 1}, path / "scheduler.bin")
    torch.save({"scale": 2.0}, path / "scaler.pt")
    torch.save({"any": 1}, path / "custom_checkpoint_0.pkl")
    states = {
        "step": 0,
        "random_state": random.getstate(),
        "numpy_random_seed": np.random.get_state(),
        "torch_manual_seed": torch.get_rng_state(),
    }
    torch.save(states, path / "random_states_0.pkl")
    found = converted(path)
    assert list(found) == ["net", "net_1", "custom_checkpoint_0", "optimizer", "scheduler", "scaler", "rng"]
    assert same(found["optimizer"], state["optimizer"])
    assert same(found["rng"]["torch"], states["torch_manual_seed"])
    assert same(found["rng"]["python"], states["random_state"])


def test_a_directory_that_asks_for_code_is_refused_whole(tmp_path: Path) -> None:
    trainer_directory(tmp_path / "checkpoint-500")
    (tmp_path / "checkpoint-500" / "optimizer.pt").write_bytes(zip_of(call("os", "system", "x")))
    with pytest.raises(UnsafeInputError, match=r"optimizer\.pt.*os\.system"):
        ckptfmt.convert(tmp_path / "checkpoint-500", tmp_path / "a.ckptfmt")
    assert not (tmp_path / "a.ckptfmt").exists()


INDEXES = [
    ("{", "JSON"),
    ("[]", "weight_map"),
    ('{"weight_map": {}}', "weight_map"),
    ('{"weight_map": {"a": 1}}', "weight_map"),
    ('{"weight_map": {"a": "../model.safetensors"}}', r"\.\./model\.safetensors"),
    ('{"weight_map": {"a": "/etc/passwd"}}', "/etc/passwd"),
    ('{"weight_map": {"a": "gone.safetensors"}}', r"gone\.safetensors"),
    ('{"weight_map": {"b": "model-1.safetensors"}}', "'b'"),
    ("[" * 100_000, "JSON"),
]


@pytest.mark.parametrize(("text", "named"), INDEXES)
def test_a_wrong_index_of_shards_is_one_error(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "model"
    path.mkdir()
    safetensors.torch.save_file({"a": torch.ones(1)}, path / "model-1.safetensors")
    (path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CkptfmtError, match=named):
        ckptfmt.convert(path, tmp_path / "a.ckptfmt")
    assert not (tmp_path / "a.ckptfmt").exists()


def test_a_directory_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(CkptfmtError, match="--recursive"):
        ckptfmt.convert(tmp_path, tmp_path / "a.ckptfmt")


def test_a_whole_directory_is_converted_past_what_cannot_be(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "sub" / "deep").mkdir(parents=True)
    legacy_files.save(legacy_files.documented(1), old / "ckpt_1.pth")
    legacy_files.save(legacy_files.documented(2), old / "sub" / "ckpt_2.pt", stream=True)
    legacy_files.save(WEIGHTS, old / "ckpt_1.bin")
    (old / "sub" / "deep" / "evil.pth").write_bytes(zip_of(call("os", "system", "x")))
    (old / "broken.pth").write_bytes(b"PK\x03\x04 and no more")
    (old / "notes.txt").write_text("no checkpoint")
    trainer_directory(old / "checkpoint-500")
    seen: list[object] = []
    report = convert_tree(plan_tree(old, new), done=seen.append)
    assert sorted(str(path.relative_to(new)) for path in new.rglob("*") if path.is_file()) == [
        *("checkpoint-500.ckptfmt", "ckpt_1.bin.ckptfmt", "ckpt_1.pth.ckptfmt", "sub/ckpt_2.ckptfmt")
    ]
    assert sorted(Path(failure.source).name for failure in report.failed) == ["broken.pth", "evil.pth"]
    assert len(seen) == 6
    assert json.loads(json.dumps(report.to_json()))["failed"][0]["kind"] in ("ForeignFileError", "UnsafeInputError")


MEMORY = """
import sys
import ckptfmt
ckptfmt.convert(sys.argv[1], sys.argv[2])
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]  # in KiB
print(peak)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak")
@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_tensors(tmp_path: Path, packed: bool) -> None:
    """A tensor of 240 MiB, and views that lie in it in other ways: half of the limit is what NumPy takes."""
    base = torch.zeros(60, 1 << 20)
    base[:, ::1000] = 1.5
    state = OrderedDict(whole=base, rows=base[10:40, : 1 << 19], last=base[59])
    path = legacy_files.save({"net": state, "epoch": 1}, tmp_path / "a.pth")
    if packed:
        legacy_files.repack(path, method=zipfile.ZIP_DEFLATED)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path), str(tmp_path / "a.ckptfmt")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 160 << 10
    with ckptfmt.torch.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert same(checkpoint["net"]["rows"], state["rows"])
