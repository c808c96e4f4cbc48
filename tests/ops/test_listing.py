from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from ckptfmt._core.ops.directory.listing import EntryState, list_directory
from ckptfmt._core.storage.base import Writer
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt.errors import StorageError
from tests.ops.conftest import CREATED, Save, flip_byte, save_run

HAVE_LOCKS = sys.platform != "win32"


def _names(directory: Path) -> list[str]:
    return [entry.name for entry in list_directory(directory).entries]


def test_the_order_is_that_of_the_training_and_not_of_names_or_file_times(save: Save, tmp_path: Path) -> None:
    for epoch, name in [(10, "ckpt_10"), (9, "ckpt_9"), (11, "a_best")]:
        path = save(f"{name}.ckptfmt", run_id="r", epoch=epoch, step=epoch * 100)
        os.utime(path, (epoch, 1_000_000 - epoch))
    assert _names(tmp_path) == ["ckpt_9.ckptfmt", "ckpt_10.ckptfmt", "a_best.ckptfmt"]


def test_runs_stay_together_and_steps_order_them(save: Save, tmp_path: Path) -> None:
    save("1.ckptfmt", run_id="b", epoch=0, step=5)
    save("2.ckptfmt", run_id="a", epoch=1, step=20)
    save("3.ckptfmt", run_id="b", epoch=0, step=40)
    save("4.ckptfmt", run_id="a", epoch=0, step=19)
    save("5.ckptfmt", run_id="a", epoch=1, step=3)
    assert _names(tmp_path) == [f"{number}.ckptfmt" for number in (5, 4, 2, 1, 3)]


def test_generations_stay_together_and_the_latest_one_has_the_newest(tmp_path: Path) -> None:
    for name, generation, step in [("1", 2, 250), ("2", 1, 300), ("3", 1, 200), ("4", None, 900)]:
        save_run(tmp_path / f"{name}.ckptfmt", run_id="r", generation=generation, step=step)
    report = list_directory(tmp_path)
    assert [entry.name for entry in report.entries] == [f"{number}.ckptfmt" for number in (4, 3, 2, 1)]
    assert [Path(run.newest or "").name for run in report.runs] == ["1.ckptfmt"]


def test_facts_that_are_absent_come_first_and_ties_go_by_time_and_name(save: Save, tmp_path: Path) -> None:
    save("c.ckptfmt", run_id="r")
    save("b.ckptfmt", created=CREATED + timedelta(hours=1))
    save("d.ckptfmt")
    save("a.ckptfmt", created=CREATED + timedelta(hours=1))
    assert _names(tmp_path) == ["d.ckptfmt", "a.ckptfmt", "b.ckptfmt", "c.ckptfmt"]


def test_an_entry_says_what_is_written_inside(save: Save, tmp_path: Path) -> None:
    path = save(run_id="r", epoch=2, step=7, metrics={"acc": 0.5})
    (entry,) = list_directory(tmp_path).entries
    assert entry.path == str(path)
    assert entry.state is EntryState.OK
    assert entry.file_bytes == path.stat().st_size
    facts = entry.metadata
    assert (facts.run_id, facts.epoch, facts.step, facts.metrics, facts.created) == ("r", 2, 7, {"acc": 0.5}, CREATED)


def test_bad_files_are_listed_after_the_good_ones_and_marked(save: Save, tmp_path: Path) -> None:
    data = save("z.ckptfmt", run_id="r").read_bytes()
    (tmp_path / "cut.ckptfmt").write_bytes(data[:5000])
    (tmp_path / "empty.ckptfmt").write_bytes(b"")
    (tmp_path / "flipped.ckptfmt").write_bytes(data[:-65] + b"\x01" + data[-64:])
    (tmp_path / "other.ckptfmt").write_bytes(b"not a checkpoint" * 100)
    (tmp_path / "gone.ckptfmt").symlink_to(tmp_path / "nowhere")
    report = list_directory(tmp_path)
    assert [(entry.name, entry.state.value) for entry in report.entries] == [
        ("z.ckptfmt", "ok"),
        ("cut.ckptfmt", "incomplete"),
        ("empty.ckptfmt", "incomplete"),
        ("flipped.ckptfmt", "damaged"),
        ("gone.ckptfmt", "unreadable"),
        ("other.ckptfmt", "damaged"),
    ]
    assert report.count(EntryState.INCOMPLETE) == 2
    for entry in report.entries[1:]:
        assert entry.problems or entry.error


def test_data_are_not_read_so_damage_there_is_not_seen(save: Save, tmp_path: Path) -> None:
    flip_byte(save(), b"last_epoch")
    assert list_directory(tmp_path).entries[0].state is EntryState.OK


def test_other_files_and_directories_are_left_out(save: Save, tmp_path: Path) -> None:
    save()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".swap.tmp").write_text("x")
    (tmp_path / "sub.ckptfmt").mkdir()
    (tmp_path / "below").mkdir()
    save("below/b.ckptfmt")
    assert _names(tmp_path) == ["a.ckptfmt"]


@pytest.mark.skipif(not HAVE_LOCKS, reason="the system has no locks to tell by")
def test_a_checkpoint_that_is_being_written_is_incomplete_and_left_alone(tmp_path: Path) -> None:
    with AtomicFile(tmp_path / "a.ckptfmt") as file:
        file.write(b"x" * 100)
        (entry,) = list_directory(tmp_path).entries
        assert (entry.state, entry.writer) == (EntryState.INCOMPLETE, Writer.LIVING)
        file.commit()
    assert [entry.writer for entry in list_directory(tmp_path).entries] == [None]


@pytest.mark.skipif(not HAVE_LOCKS, reason="the system has no locks to tell by")
def test_what_a_dead_writer_left_is_incomplete(tmp_path: Path) -> None:
    program = f"""
import os
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
file = AtomicFile({str(tmp_path / "a.ckptfmt")!r})
file.__enter__()
file.write(b"x" * 100)
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    (entry,) = list_directory(tmp_path).entries
    assert (entry.state, entry.writer, entry.metadata.run_id) == (EntryState.INCOMPLETE, Writer.NONE, None)
    assert Path(entry.path).exists()


def test_a_directory_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing"):
        list_directory(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        list_directory(tmp_path / "file")


def test_the_json_form(save: Save, tmp_path: Path) -> None:
    save(run_id="r", metrics={"loss": float("-inf")})
    (tmp_path / "b.ckptfmt").write_bytes(b"")
    document = json.loads(json.dumps(list_directory(tmp_path).to_json(), allow_nan=False))
    assert list(document) == ["report", "directory", "checked", "entries", "runs", "total_bytes", "counts"]
    assert (document["report"], document["checked"]) == ("ls/1", "index")
    good, bad = document["entries"]
    assert list(good) == [
        *("path", "name", "state", "file_bytes", "identity", "metadata", "problems", "error", "writer", "marks"),
        "is_directory",
    ]
    assert good["marks"] == ["resume", "newest"]
    (run,) = document["runs"]
    assert run == {
        "run_id": "r",
        "paths": [good["path"]],
        "newest": good["path"],
        "curve": {"name": "loss", "mode": "min", "values": ["-Infinity"], "best": None},
    }
    assert good["metadata"]["metrics"] == {"loss": "-Infinity"}
    assert (bad["state"], bad["identity"], bad["problems"][0]["code"]) == ("incomplete", None, "too-short")
    assert document["counts"] == {"ok": 1, "incomplete": 1, "damaged": 0, "unreadable": 0}


def best_of(directory: Path) -> tuple[str, str] | None:
    """Return the metric that the only run is judged by, and the step of its best checkpoint."""
    (run,) = list_directory(directory).runs
    assert run.curve is not None
    return run.curve.name, Path(run.curve.best or "none").stem


def test_the_best_is_judged_by_what_the_run_records(save: Save, tmp_path: Path) -> None:
    for step, (loss, score) in enumerate([(0.1, 0.5), (0.3, 0.9), (0.2, 0.7)]):
        recorded = {"keep_best": ["quality", "max"]} if step else {"keep_best": ["val_loss", "min"]}
        save(f"{step}.ckptfmt", run_id="r", step=step, metrics={"val_loss": loss, "quality": score}, user=recorded)
    assert best_of(tmp_path) == ("quality", "1")  # as the newest has it
    report = list_directory(tmp_path, metric="val_loss")
    assert [Path(run.curve.best or "").stem for run in report.runs if run.curve is not None] == ["0"]
    (other,) = list_directory(tmp_path, mode="min").runs
    assert other.curve is not None
    assert Path(other.curve.best or "").stem == "0"


@pytest.mark.parametrize(
    "recorded", [["quality"], ["quality", "most"], "quality", {"quality": "max"}, ["absent", "max"]]
)
def test_a_record_of_another_form_does_not_count(save: Save, tmp_path: Path, recorded: object) -> None:
    save("a.ckptfmt", run_id="r", step=1, metrics={"val_loss": 0.5, "quality": 1.0}, user={"keep_best": recorded})
    assert best_of(tmp_path) == ("val_loss", "a")


def test_a_metric_of_ends_of_epochs_comes_before_one_of_steps(save: Save, tmp_path: Path) -> None:
    save("0.ckptfmt", run_id="r", step=2, epoch=0, metrics={"loss": 0.5})
    save("1.ckptfmt", run_id="r", step=3, epoch=1, metrics={"top1": 0.4})
    save("2.ckptfmt", run_id="r", step=5, epoch=1, metrics={"loss": 0.01})
    save("3.ckptfmt", run_id="r", step=6, epoch=2, metrics={"top1": 0.6})
    save("4.ckptfmt", run_id="r", step=7, epoch=2, metrics={"loss": 0.02})
    assert best_of(tmp_path) == ("top1", "3")


def test_a_step_at_which_an_epoch_ends_is_not_its_end(save: Save, tmp_path: Path) -> None:
    save("0.ckptfmt", run_id="r", step=6, epoch=2, metrics={"top1": 0.6})
    save("1.ckptfmt", run_id="r", step=12, epoch=3, metrics={"loss": 0.01})
    save("2.ckptfmt", run_id="r", step=12, epoch=4, metrics={"top1": 0.5})
    assert best_of(tmp_path) == ("top1", "0")


def test_of_metrics_of_steps_one_on_held_out_data_comes_first(save: Save, tmp_path: Path) -> None:
    for step, value in enumerate((0.5, 0.3, 0.4)):
        save(f"{step}.ckptfmt", run_id="r", step=step, metrics={"loss": 1 - value, "val_loss": value})
    assert best_of(tmp_path) == ("val_loss", "1")


def trainer_directory(path: Path, step: int, loss: float) -> None:
    """Write what the Trainer of Hugging Face keeps of a step."""
    path.mkdir()
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x")
    state = {"global_step": step, "epoch": step / 500, "log_history": [{"step": step, "eval_loss": loss}]}
    (path / "trainer_state.json").write_text(json.dumps(state))


def test_checkpoint_directories_of_hugging_face_are_entered(tmp_path: Path) -> None:
    for step, loss in ((1000, 0.2), (500, 0.4), (1500, 0.3)):
        trainer_directory(tmp_path / f"checkpoint-{step}", step, loss)
    (tmp_path / "checkpoint-2000").mkdir()  # begun, and no checkpoint yet
    (tmp_path / "checkpoint-500" / "below").mkdir()
    report = list_directory(tmp_path)
    assert [(entry.name, entry.is_directory) for entry in report.entries] == [
        ("checkpoint-500", True),
        ("checkpoint-1000", True),
        ("checkpoint-1500", True),
    ]
    assert report.entries[0].metadata.step == 500
    assert report.entries[0].metadata.metrics == {"eval_loss": 0.4}
    assert best_of(tmp_path) == ("eval_loss", "checkpoint-1000")
    assert [run.newest for run in report.runs] == [str(tmp_path / "checkpoint-1500")]
    assert report.total_bytes == sum(entry.file_bytes or 0 for entry in report.entries) > 0


def test_one_of_them_is_listed_as_itself_and_without_its_parts(tmp_path: Path) -> None:
    trainer_directory(tmp_path / "checkpoint-500", 500, 0.4)
    (tmp_path / "checkpoint-500" / "optimizer.pt").write_bytes(b"x")
    (entry,) = list_directory(tmp_path / "checkpoint-500").entries
    assert entry.path == str(tmp_path / "checkpoint-500")


def test_one_with_a_broken_part_is_unusable(tmp_path: Path) -> None:
    trainer_directory(tmp_path / "checkpoint-500", 500, 0.4)
    (tmp_path / "checkpoint-500" / "model.safetensors").write_bytes(b"x")
    (entry,) = list_directory(tmp_path).entries
    assert (entry.state, entry.is_directory) == (EntryState.DAMAGED, True)
