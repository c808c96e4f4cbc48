"""The text that people see, compared with files in `golden/`; `conftest.golden` says how to write them anew."""

from __future__ import annotations

import dataclasses
import math
from datetime import datetime, timedelta
from pathlib import Path

import click
import pytest

from ckptfmt._core.format.index import Metadata
from ckptfmt._core.interop.base import RankedValue
from ckptfmt._core.ops.directory.listing import EntryState, ListEntry, ListReport, Mark, MetricCurve, RunInfo
from ckptfmt._core.ops.directory.verify import FileVerdict, Verdict, VerifyReport
from ckptfmt._core.ops.inspection.component_roles import PlaceInfo, RandomInfo, Role, SchedulerInfo
from ckptfmt._core.ops.inspection.inspect import ComponentInfo, InspectReport, MemberInfo, StateInfo, TensorInfo
from ckptfmt._core.ops.inspection.module_tree import module_tree
from ckptfmt._core.ops.inspection.optimizers import GroupInfo, OptimizerInfo
from ckptfmt._core.ops.inspection.resumable import can_resume
from ckptfmt._core.storage.base import Writer
from ckptfmt.errors import Problem
from ckptfmt_cli.terminal import PLAIN, Terminal
from ckptfmt_cli.text import cells
from ckptfmt_cli.views.inspect import inspect_lines
from ckptfmt_cli.views.listing import list_lines
from ckptfmt_cli.views.tensors import tensor_lines, tree_lines
from ckptfmt_cli.views.verify import summary_line, verdict_line
from tests.cli.conftest import NOW, RUN, Golden

IDENTITY = "3fa9c1e0b2d4a7f1" * 4
HOSTILE = "\x1b[2Jnet\nok forged.ckptfmt\u202e"


def _component(name: str, tensors: list[TensorInfo], codec: str = "none") -> ComponentInfo:
    tensor_bytes = sum(tensor.nbytes for tensor in tensors)
    flat = name == "net"
    kinds = ["safetensors"] if flat else ["msgpack", "safetensors"] if tensors else ["msgpack"]
    logical = {"safetensors": 4096 + tensor_bytes, "msgpack": 310}
    stored = {kind: logical[kind] if codec == "none" else logical[kind] * 3 // 4 for kind in kinds}
    members = [MemberInfo(f"{name}.{kind}", kind, codec, 4096, stored[kind], logical[kind]) for kind in kinds]
    return ComponentInfo(
        name=name,
        kind="flat" if flat else "tree",
        role={"net": Role.WEIGHTS, "optimizer": Role.OPTIMIZER, "scheduler": Role.SCHEDULER, "rng": Role.RANDOM}[name],
        codec=codec,
        members=tuple(members),
        tensors=len(tensors),
        elements=sum(math.prod(tensor.shape) for tensor in tensors),
        logical_bytes=sum(logical[kind] for kind in kinds),
        stored_bytes=sum(stored.values()),
        text_metadata={},
    )


def _tensors(component: str, *facts: tuple[str, str, tuple[int, ...]]) -> list[TensorInfo]:
    widths = {"F32": 4, "BF16": 2, "I64": 8, "U8": 1}
    return [TensorInfo(component, name, dtype, shape, math.prod(shape) * widths[dtype]) for name, dtype, shape in facts]


NO_STATE = StateInfo((), (), (), (), can_resume({Role.WEIGHTS}))


def _report(
    metadata: Metadata, *parts: tuple[str, list[TensorInfo]], codec: str = "none", state: StateInfo = NO_STATE
) -> InspectReport:
    components = tuple(_component(name, tensors, codec) for name, tensors in parts)
    return InspectReport(
        path="runs/digits/last.ckptfmt",
        form="ckptfmt",
        file_bytes=1_472_896,
        version=(1, 0),
        identity=IDENTITY,
        required_features=(),
        metadata=metadata,
        components=components,
        opaque=(),
        tensors=tuple(tensor for _, tensors in parts for tensor in tensors),
        state=state,
    )


def adam_state() -> StateInfo:
    """Return what the trees of a usual training tell."""
    decayed: dict[str, object] = {
        "lr": 0.001,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.01,
        "amsgrad": False,
    }
    groups = (GroupInfo(3, None, decayed), GroupInfo(1, None, {**decayed, "weight_decay": 0.0}))
    return StateInfo(
        optimizers=(OptimizerInfo("optimizer", "AdamW", groups, 4, {"exp_avg": 4, "exp_avg_sq": 4}, (1200, 1200)),),
        schedulers=(SchedulerInfo("scheduler", "StepLR", 3, (0.001, 0.001), {"step_size": 10, "gamma": 0.1}),),
        random=(RandomInfo("rng", ("python", "numpy MT19937", "torch", "cuda of 2 devices")),),
        places=(PlaceInfo("progress", 1200, 3, 150, 350),),
        resume=can_resume(set(Role) - {Role.OTHER, Role.SCALER}),
        per_rank=tuple(RankedValue(f"net.norm.buffer_{number}", 8) for number in range(10)),
    )


def small_report(codec: str = "none") -> InspectReport:
    net = _tensors(
        "net",
        ("conv.weight", "F32", (16, 1, 3, 3)),
        ("conv.bias", "F32", (16,)),
        ("norm.num_batches_tracked", "I64", ()),
        ("head.weight", "BF16", (10, 1024)),
    )
    optimizer = _tensors(
        "optimizer", ("state.0.exp_avg", "F32", (16, 1, 3, 3)), ("state.0.exp_avg_sq", "F32", (16, 1, 3, 3))
    )
    facts = Metadata(
        run_id=RUN,
        step=1200,
        epoch=3,
        metrics={"val_loss": 0.31251234, "accuracy": 0.912, "grad_norm": math.nan},
        created=NOW - timedelta(hours=3),
        parent=bytes(range(32)),
        producer="ckptfmt 1.0.0",
        user={"lr": 0.001, "note": "first try", "hosts": ["a", "b"]},
    )
    parts = [
        ("net", net),
        ("optimizer", optimizer),
        ("scheduler", []),
        ("rng", _tensors("rng", ("torch", "U8", (5056,)))),
    ]
    return _report(facts, *parts, codec=codec, state=adam_state())


def large_report() -> InspectReport:
    """Return the report of a GPT-2 in training: 148 weights and two moments of each."""
    blocks = (
        "ln_1.weight",
        "attn.c_attn.weight",
        "attn.c_attn.bias",
        "attn.c_proj.weight",
        "mlp.c_fc.weight",
        "ln_2.bias",
    )
    names = [f"transformer.h.{layer}.{name}" for layer in range(24) for name in blocks] + ["wte.weight"] * 4
    net = _tensors("net", *((name, "F32", (768, 3072)) for name in names))
    moments = [f"state.{number}.{moment}" for number in range(148) for moment in ("exp_avg", "exp_avg_sq")]
    optimizer = _tensors("optimizer", *((name, "F32", (768, 3072)) for name in moments))
    return _report(Metadata(step=600_000), ("net", net), ("optimizer", optimizer))


def hostile_report() -> InspectReport:
    """Return the report of a file whose every text tries to steer the terminal, or is too long or too many."""
    tensors = _tensors("net", (HOSTILE, "F32", (1,)), ("w" * 5000, "F32", tuple([1] * 64)), ("重み" * 40, "F32", (2,)))
    facts = Metadata(
        run_id=HOSTILE,
        metrics={HOSTILE: 1.0, **{f"metric_{number}": float(number) for number in range(30)}},
        producer="p" * 5000,
        created=NOW + timedelta(days=1),
        user={HOSTILE: HOSTILE, "blob": b"\x00" * 500},
    )
    report = _report(facts, ("net", tensors))
    return dataclasses.replace(report, path=HOSTILE)


def shown(report: InspectReport, terminal: Terminal, now: datetime, *, all_tensors: bool) -> list[str]:
    return inspect_lines(report, terminal, now, tensor_lines(report.tensors, terminal, all_tensors=all_tensors))


def test_inspect(golden: Golden) -> None:
    golden("inspect.txt", shown(small_report(), PLAIN, NOW, all_tensors=False))


def test_inspect_shows_what_a_run_started_from(golden: Golden) -> None:
    lineage = [
        {"identity": IDENTITY, "name": "ckpt-90.ckptfmt", "run_id": "base", "step": 90},
        {"identity": "ab" * 32, "name": "resnet.pth", "step": None},
    ]
    facts = Metadata(parent=bytes.fromhex(IDENTITY), user={"lineage": lineage, "note": 1})
    golden("inspect-lineage.txt", shown(_report(facts), PLAIN, NOW, all_tensors=False))
    odd = shown(_report(Metadata(user={"lineage": [5, {"identity": [1]}, {}]})), PLAIN, NOW, all_tensors=False)
    assert all(line.isprintable() for line in odd)


def test_inspect_compressed(golden: Golden) -> None:
    golden("inspect-compressed.txt", shown(small_report("zstd"), PLAIN, NOW, all_tensors=False))


def test_inspect_in_colour_on_a_narrow_terminal_with_little_more_than_ascii(golden: Golden) -> None:
    terminal = Terminal(width=50, colour=True, unicode=False)
    golden("inspect-narrow-colour.txt", shown(small_report(), terminal, NOW, all_tensors=False))


def test_inspect_shows_the_first_tensors_of_a_large_model_and_says_how_many_more(golden: Golden) -> None:
    golden("inspect-large.txt", shown(large_report(), PLAIN, NOW, all_tensors=False))


def test_inspect_all_shows_all() -> None:
    report = large_report()
    text = "\n".join(shown(report, Terminal(width=200), NOW, all_tensors=True))
    assert all(f" {tensor.name} " in text for tensor in report.tensors)
    assert "--all" not in text


def test_inspect_of_an_empty_checkpoint(golden: Golden) -> None:
    golden("inspect-empty.txt", shown(_report(Metadata()), PLAIN, NOW, all_tensors=False))


@pytest.mark.parametrize("width", [80, 60, 120])
def test_a_hostile_file_moves_no_cursor_forges_no_line_and_breaks_no_table(golden: Golden, width: int) -> None:
    lines = shown(hostile_report(), Terminal(width=width), NOW, all_tensors=True)
    assert all(line.isprintable() for line in lines)
    assert all(cells(line) <= width for line in lines)
    if width == 80:
        golden("inspect-hostile.txt", lines)


def test_a_tree_folds_repeated_layers(golden: Golden) -> None:
    report = large_report()
    trees = [
        module_tree(part.name, [tensor for tensor in report.tensors if tensor.component == part.name])
        for part in report.components
    ]
    golden("tree.txt", tree_lines(trees, PLAIN))


def test_opaque_members_stand_beside_components() -> None:
    opaque = MemberInfo("dataset.arrow", "opaque", "none", 4096, 2048, 2048)
    report = dataclasses.replace(small_report(), opaque=(opaque,))
    lines = shown(report, PLAIN, NOW, all_tensors=False)
    (line,) = [line for line in lines if line.startswith("dataset.arrow")]
    assert line.split() == ["dataset.arrow", "opaque", "-", "-", "2.0", "KiB"]


def _entry(
    name: str, run: str | None, epoch: int | None, step: int | None, *marks: Mark, **metrics: float
) -> ListEntry:
    created = None if epoch is None else NOW - timedelta(hours=40 - 2 * epoch)
    facts = Metadata(run_id=run, epoch=epoch, step=step, metrics=metrics or None, created=created)
    return ListEntry(f"runs/digits/{name}", EntryState.OK, 1_472_896, facts, IDENTITY, marks=marks)


def list_report() -> ListReport:
    truncated = Problem("trailer-magic", "the trailer is missing: the write was not finished", offset=736_440)
    flipped = Problem("index-digest", "preamble, index or trailer is damaged")
    leftover = ".ckpt_25.ckptfmt.0123abcd-0123456789abcdef.tmp"
    entries = (
        _entry("export.ckptfmt", None, None, None),
        _entry("base.ckptfmt", "baseline", 9, 4500, Mark.NEWEST, Mark.BEST, val_loss=0.4, accuracy=0.88),
        _entry("ckpt_9.ckptfmt", RUN, 9, 4500, val_loss=0.51234567, accuracy=0.871),
        _entry("ckpt_10.ckptfmt", RUN, 10, 5000, Mark.BEST, val_loss=0.31, accuracy=0.9),
        _entry("ckpt_15.ckptfmt", RUN, 15, 1_234_567, Mark.NEWEST, Mark.PINNED, val_loss=math.nan),
        ListEntry(f"runs/digits/{leftover}", EntryState.INCOMPLETE, 5000, writer=Writer.NONE),
        ListEntry("runs/digits/.now.ckptfmt.0123abcd-00.tmp", EntryState.INCOMPLETE, 700_000, writer=Writer.LIVING),
        ListEntry("runs/digits/cut.ckptfmt", EntryState.INCOMPLETE, 736_448, problems=(truncated,)),
        ListEntry("runs/digits/flipped.ckptfmt", EntryState.DAMAGED, 1_472_896, problems=(flipped,)),
        ListEntry(
            "runs/digits/secret.ckptfmt", EntryState.UNREADABLE, None, error="cannot be opened: permission denied"
        ),
    )
    total = sum(entry.file_bytes or 0 for entry in entries)
    return ListReport("runs/digits", entries, _runs(entries), total)


def _runs(entries: tuple[ListEntry, ...]) -> tuple[RunInfo, ...]:
    groups: dict[str | None, list[ListEntry]] = {}
    for entry in entries:
        if entry.state is EntryState.OK:
            groups.setdefault(entry.metadata.run_id, []).append(entry)
    return tuple(_run(run_id, group) for run_id, group in groups.items())


def _run(run_id: str | None, group: list[ListEntry]) -> RunInfo:
    values = [value for entry in group for value in (entry.metadata.metrics or {}).values()][::2]
    best = next((entry.path for entry in group if Mark.BEST in entry.marks), None)
    curve = MetricCurve("val_loss", "min", tuple(values), best) if values else None
    return RunInfo(run_id, tuple(entry.path for entry in group), group[-1].path, curve)


def test_ls(golden: Golden) -> None:
    golden("ls.txt", list_lines(list_report(), PLAIN, NOW))


def test_ls_says_which_metrics_a_narrow_terminal_has_no_room_for(golden: Golden) -> None:
    golden("ls-narrow.txt", list_lines(list_report(), Terminal(width=60), NOW))


def long_report(count: int = 60) -> ListReport:
    """Return the report of a long run: one row in ten is special."""
    marks = {17: (Mark.BEST,), 30: (Mark.PINNED,), 31: (Mark.PINNED,), count - 1: (Mark.RESUME, Mark.NEWEST)}
    entries = tuple(
        _entry(
            f"ckpt-{500 * number:08d}.ckptfmt",
            RUN,
            None,
            500 * number,
            *marks.get(number, ()),
            val_loss=1 / (1 + number),
        )
        for number in range(count)
    )
    others = tuple(
        ListEntry(f"runs/digits/bad-{number:02d}.ckptfmt", EntryState.DAMAGED, 7, error="no checkpoint")
        for number in range(25)
    )
    return ListReport("runs/digits", (*entries, *others), _runs(entries), sum(it.file_bytes or 0 for it in entries))


def test_ls_folds_long_runs(golden: Golden) -> None:
    golden("ls-long.txt", list_lines(long_report(), PLAIN, NOW))
    text = "\n".join(list_lines(long_report(), PLAIN, NOW, everything=True))
    assert all(entry.name in text for entry in long_report().entries)


def test_ls_folds_no_single_row() -> None:
    entries = list_lines(long_report(20), PLAIN, NOW)
    assert all(entry.name in "\n".join(entries) for entry in long_report(20).entries[:20])


def test_ls_shows_values_that_are_not_finite_in_red() -> None:
    lines = list_lines(list_report(), Terminal(colour=True), NOW)
    assert sum(click.style("nan", fg="red", bold=True) in line for line in lines) == 2  # in the curve and the table


def test_ls_is_not_fooled_by_names() -> None:
    entries = (
        _entry(HOSTILE, HOSTILE, 1, 2, **{HOSTILE: 1.0}),
        ListEntry(HOSTILE, EntryState.UNREADABLE, None, error=f"{HOSTILE}: gone"),
    )
    lines = list_lines(ListReport(HOSTILE, entries, _runs(entries)), PLAIN, NOW)
    assert all(line.isprintable() for line in lines)


def verify_report() -> VerifyReport:
    def damaged(*tensors: str) -> tuple[Problem, ...]:
        return tuple(Problem("chunk-digest", "a byte has changed", "net.safetensors", name, 8192) for name in tensors)

    message = "the trailer is missing: the write was not finished"
    files = (
        FileVerdict("runs/a.ckptfmt", Verdict.SOUND, file_bytes=1_472_896, identity=IDENTITY),
        FileVerdict("runs/b.ckptfmt", Verdict.DAMAGED, damaged("conv.weight"), file_bytes=1_472_896),
        FileVerdict("runs/c.ckptfmt", Verdict.DAMAGED, damaged("a", "b", "b", "c"), file_bytes=1_472_896),
        FileVerdict("runs/d.ckptfmt", Verdict.DAMAGED, damaged(*map(str, range(444))), file_bytes=1_472_896),
        FileVerdict(
            "runs/e.ckptfmt",
            Verdict.DAMAGED,
            (*damaged("conv.bias"), Problem("padding", "a padding byte is not zero", offset=100)),
            file_bytes=1_472_896,
        ),
        FileVerdict("runs/f.ckptfmt", Verdict.TRUNCATED, (Problem("trailer-magic", message, offset=5),), file_bytes=77),
        FileVerdict("runs/g.ckptfmt", Verdict.UNREADABLE, error="cannot be opened: permission denied"),
        FileVerdict(HOSTILE, Verdict.DAMAGED, damaged(HOSTILE), file_bytes=9),
    )
    return VerifyReport(files)


def test_verify(golden: Golden) -> None:
    report = verify_report()
    golden("verify.txt", [*(verdict_line(file, PLAIN) for file in report.files), summary_line(report)])


def test_a_damaged_file_stands_out_in_colour() -> None:
    (sound, damaged, *_) = verify_report().files
    assert verdict_line(sound, Terminal(colour=True)) == "runs/a.ckptfmt: \x1b[32mok\x1b[0m"
    assert click.style("damaged", fg="red", bold=True) in verdict_line(damaged, Terminal(colour=True))


def test_every_golden_file_is_used() -> None:
    names = {path.name for path in (Path(__file__).parent / "golden").iterdir()}
    source = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert all(f'golden("{name}"' in source for name in names)
