"""Measure, and write the results down: `make bench`, or `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks import system
from benchmarks.commands import measure_commands
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.measuring import (
    Sample,
    available,
    measure_background,
    measure_files,
    measure_loop,
    measure_resumes,
)
from benchmarks.tables import Results, render_tables
from benchmarks.workloads import WORKLOADS

_RESULTS = Path(__file__).parent / "results"
_PARTS = ("files", "background", "resume", "loop", "commands")
_LIBRARIES = ("torch", "safetensors", "ztensor", "tensorizer", "orbax-checkpoint", "moonclip", "numpy", "blake3")


def main() -> int:
    """Measure what the command line asks for; return the exit code."""
    args = _arguments()
    contenders, missing = available(args.contenders)
    for name, why in missing.items():
        _say(f"left out: {name}: {why}")
    begun = time.monotonic()
    samples: list[Sample] = []
    args.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=args.directory) as scratch:
        facts = system.machine(Path(scratch)) | {"load before": system.disturbance()}
        for sample in _measure(args, contenders, Path(scratch)):
            samples.append(sample)
            _say(f"{time.monotonic() - begun:6.0f} s  {_told(sample)}")
    facts["load after"] = system.disturbance()
    results = Results(facts, _versions(), f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", tuple(samples))
    args.output.mkdir(parents=True, exist_ok=True)
    if args.add:
        results = _added(results, args.output / "results.json")
    (args.output / "results.json").write_text(json.dumps(results.to_json(), indent=1) + "\n")
    tables = render_tables(results)
    (args.output / "results.md").write_text(tables)
    print(tables)
    try:
        from benchmarks.plots import draw
    except ImportError:
        _say("no plot: matplotlib is not installed")
    else:
        draw(results, args.output)
    return 0


def _added(results: Results, path: Path) -> Results:
    """Return the results with those of an earlier run that were not measured anew."""
    if not path.exists():
        return results
    earlier = Results.from_json(json.loads(path.read_text()))
    anew = {(sample.workload, sample.metric) for sample in results.samples}
    kept = [sample for sample in earlier.samples if (sample.workload, sample.metric) not in anew]
    return replace(results, samples=(*kept, *results.samples))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny states and one round: does the harness work?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="steps of training during which a save is to be done")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, help="default: gpt2 many bf16")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--add", action="store_true", help="keep what is in the results and is not measured now")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="where to save")
    parser.add_argument(
        "--output", type=Path, help=f"where the results go; default: {_RESULTS.name}/, of --quick beside what is saved"
    )
    args = parser.parse_args()
    if args.output is None:
        args.output = args.directory / "ckptfmt-bench-quick" if args.quick else _RESULTS
    if args.quick:
        args.rounds, args.steps = 1, 2
    if args.workloads is None:
        args.workloads = ["tiny", "few"] if args.quick else ["gpt2", "many", "bf16"]
    return args


def _measure(args: argparse.Namespace, contenders: dict[str, Contender], scratch: Path) -> Iterator[Sample]:
    for name in args.workloads:
        workload = WORKLOADS[name]
        trains = name in ("gpt2", "tiny")  # the loop is that of a language model
        if "files" in args.parts:
            yield from measure_files(workload, contenders, args.rounds, scratch, _say)
        if "background" in args.parts:
            yield from measure_background(workload, contenders, args.rounds, scratch)
        if "resume" in args.parts:
            yield from measure_resumes(workload, contenders, min(args.rounds, 2), scratch, _say)
        if "commands" in args.parts and trains and "ckptfmt" in contenders:
            for who, metric, number, value in measure_commands(workload, min(args.rounds, 3), scratch):
                yield Sample(name, who, metric, number, value)
        if "loop" in args.parts and trains:
            yield from measure_loop(workload, contenders, 2 * args.rounds, args.steps, scratch)


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _told(sample: Sample) -> str:
    in_mib = sample.metric.endswith("_bytes")
    value = f"{sample.value / 2**20:.1f} MiB" if in_mib else f"{sample.value:.4f}"
    return f"{sample.workload:6} {sample.round + 1}  {sample.contender:14} {sample.metric:22} {value:>14}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
