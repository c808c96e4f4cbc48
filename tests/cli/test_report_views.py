"""Reports of `convert`, `inspect --pickle-imports`, `prune`, `pin`, `strip` and `plot` as text, beside golden files."""

from __future__ import annotations

from pathlib import Path

import ckptfmt
from ckptfmt._core.interop.dropped import Dropped
from ckptfmt._core.interop.findings import Findings
from ckptfmt._core.ops.conversion.convert_tree import Failure, TreeReport
from ckptfmt._core.ops.conversion.pickle_imports import PickleImportsReport
from ckptfmt._core.ops.conversion.report import Alias, ConvertReport
from ckptfmt._core.ops.directory.pins import PinChange
from ckptfmt._core.ops.directory.prune import apply_prune, plan_prune
from ckptfmt._core.ops.members.strip import StripReport
from ckptfmt._core.pth.audit import Audit, NameUse
from ckptfmt._core.pth.names.globals import Verdict
from ckptfmt._core.runs.retention import RetentionPolicy
from ckptfmt.errors import StorageError
from ckptfmt_cli.pinning import change_line
from ckptfmt_cli.terminal import PLAIN
from ckptfmt_cli.text import cells
from ckptfmt_cli.views.convert import convert_lines, converted_line, failed_line, tree_summary
from ckptfmt_cli.views.members import strip_lines
from ckptfmt_cli.views.pickle_imports import pickle_imports_lines
from ckptfmt_cli.views.prune import result_lines
from tests.cli.conftest import NOW, RUN, Golden, state

FINDINGS = Findings(
    producer="torch 2.13.0",
    inert={"argparse.Namespace": 1, "fairseq.Config": 3},
    unknown=("fairseq.Config",),
    modules={"models.Net": 1},
    dropped=(Dropped("net.hook", "it is code", 2),),
    notes=("epoch 4 is the last one finished",),
)
CONVERTED = ConvertReport(
    source="old/ckpt_best_4.pth",
    target="new/ckpt_best_4.ckptfmt",
    form="pth zip",
    source_bytes=1_472_896,
    target_form="ckptfmt",
    target_bytes=1_500_000,
    identity="3fa9c1e0b2d4a7f1" * 4,
    components=("net", "optimizer", "epoch"),
    tensors=5,
    tensor_bytes=1_400_000,
    epoch=5,
    step=None,
    aliases=(Alias("net", "wte.weight", 2),),
    findings=FINDINGS,
    compared=5,
)


def test_convert(golden: Golden) -> None:
    lines = convert_lines(CONVERTED, PLAIN)
    golden("convert.txt", lines)
    assert all(cells(line) <= 80 for line in lines[1:]), "paths alone are never shortened"


def test_convert_recursive(golden: Golden) -> None:
    failure = Failure("old/evil.pth", StorageError("old/evil.pth: cannot be read: permission denied"))
    tree = TreeReport((CONVERTED,), (failure,))
    golden("convert-tree.txt", [converted_line(CONVERTED, PLAIN), failed_line(failure, PLAIN), tree_summary(tree)])


def test_pickle_imports(golden: Golden) -> None:
    uses = (
        NameUse("data.pkl", "collections.OrderedDict", 3, called=True, verdict=Verdict.KNOWN, reason="is known"),
        NameUse("data.pkl", "fairseq.Config", 1, called=False, verdict=Verdict.UNKNOWN, reason="is of another package"),
        NameUse("data.pkl", "os.system", 1, called=True, verdict=Verdict.REFUSED, reason="runs a command"),
    )
    evil = PickleImportsReport("evil.pth", "zip", Audit(uses, ()), None, None)
    good = PickleImportsReport("good.pth", "zip", Audit(uses[:2], ()), None, FINDINGS)
    plain = PickleImportsReport("plain.pth", "zip", Audit((), ()), "the pickle ends early", None)
    lines = [line for report in (evil, good, plain) for line in (*pickle_imports_lines(report, PLAIN), "")]
    golden("pickle-imports.txt", lines)


def test_result_of_prune(golden: Golden, tmp_path: Path) -> None:
    for step in range(1, 5):
        ckptfmt.save(state(step), tmp_path / f"{step}.ckptfmt", run_id=RUN, step=step, created=NOW)
    planned = plan_prune(tmp_path, RetentionPolicy(keep_last=1))
    data = bytearray((tmp_path / "4.ckptfmt").read_bytes())
    data[data.index(state(4)["net"]["conv.weight"].tobytes())] ^= 1
    (tmp_path / "4.ckptfmt").write_bytes(data)
    lines = result_lines(apply_prune(planned), PLAIN)
    golden("prune-result.txt", [line.replace(str(tmp_path), "runs") for line in lines])


def test_pins_and_strip(golden: Golden) -> None:
    changes = [PinChange("a.ckptfmt", pinned, changed) for pinned in (True, False) for changed in (True, False)]
    report = StripReport("a.ckptfmt", "b.ckptfmt", "", 77_700, 254_000, ("net",), ("optimizer", "rng"))
    golden("pins-and-strip.txt", [*map(change_line, changes), "", *strip_lines(report)])
