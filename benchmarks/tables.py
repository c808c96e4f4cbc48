"""Results as Markdown: medians, and how many times the floor of the same round they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.measuring import FLOOR, Sample
from benchmarks.workloads import WORKLOADS

__all__ = ["Results", "render_tables"]

_MINUTE = 60


@dataclass(frozen=True)
class Results:
    """All that was measured, and where.

    Attributes:
        machine: Facts about the machine.
        versions: Of the libraries.
        date: When it was measured.
        samples: The values.
    """

    machine: Mapping[str, str]
    versions: Mapping[str, str]
    date: str
    samples: tuple[Sample, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the results in JSON."""
        samples = [sample.to_json() for sample in self.samples]
        return {"date": self.date, "machine": self.machine, "versions": self.versions, "samples": samples}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Results:
        """Return the results that `to_json` returned."""
        samples = tuple(Sample(**sample) for sample in document["samples"])
        return cls(document["machine"], document["versions"], document["date"], samples)

    def values(self, workload: str, contender: str, metric: str) -> dict[int, float]:
        """Return the values of a metric by round."""
        return {
            sample.round: sample.value
            for sample in self.samples
            if (sample.workload, sample.contender, sample.metric) == (workload, contender, metric)
        }

    def contenders(self, workload: str, metric: str) -> list[str]:
        """Return who was measured, the floor left out."""
        found = (it.contender for it in self.samples if (it.workload, it.metric) == (workload, metric))
        return [name for name in dict.fromkeys(found) if name != FLOOR]

    def workloads(self) -> list[str]:
        """Return the names of the workloads."""
        return list(dict.fromkeys(sample.workload for sample in self.samples))

    def ratio(self, workload: str, contender: str, metric: str, floor_metric: str | None = None) -> float | None:
        """Return the median of a metric's ratio to the floor of the same round."""
        values = self.values(workload, contender, metric)
        floors = self.values(workload, FLOOR, floor_metric or metric)
        ratios = [values[number] / floors[number] for number in values if number in floors]
        return median(ratios) if ratios else None


def render_tables(results: Results) -> str:
    """Return all tables as Markdown."""
    lines = [f"Measured on {results.date}: {'; '.join(f'{key}: {value}' for key, value in results.machine.items())}."]
    lines += ["", f"Versions: {', '.join(f'{name} {version}' for name, version in results.versions.items())}.", ""]
    for workload in results.workloads():
        lines += [f"### {WORKLOADS[workload].title}", ""]
        lines += [
            line for table in (_files, _background, _resume, _loop, _commands) for line in table(results, workload)
        ]
    return "\n".join(lines)


def _files(results: Results, workload: str) -> Iterable[str]:
    names = results.contenders(workload, "restore_s")
    if not names:
        return []
    seconds = (("save_s", "durable save"), ("restore_s", "restore, warm"), ("cold_restore_s", "restore, cold"))
    header = [title for _, title in seconds] + ["extra memory: save", "restore", "file", "exact"]
    rows = []
    for name in (FLOOR, *names):
        row = [_with_ratio(results, workload, name, metric) for metric, _ in seconds]
        row += [_bytes(results, workload, name, metric) for metric in ("save_peak_bytes", "restore_peak_bytes")]
        row += [_bytes(results, workload, name, "file_bytes")]
        exact = results.values(workload, name, "exact")
        row += ["" if not exact else "yes" if all(exact.values()) else "**no**"]
        rows.append([name, *row])
    return [*_table(["", *header], rows), ""]


def _background(results: Results, workload: str) -> Iterable[str]:
    names = results.contenders(workload, "hold_s")
    rows = []
    for name in names:
        first, peak = (results.values(workload, name, it) for it in ("first_hold_s", "background_peak_bytes"))
        ratio = results.ratio(workload, name, "hold_s", f"hold_{name}_s")
        held = results.values(workload, name, "hold_s")
        row = [
            f"{_seconds(median(held.values()))} ({ratio:.2f}x)" if ratio else "",
            _seconds(next(iter(first.values()))),
        ]
        rows.append([name, *row, f"{next(iter(peak.values())) / 2**20:,.0f} MiB" if peak else ""])
    return (
        [*_table(["save in the background", "held (x one copy)", "held, first", "extra memory"], rows), ""]
        if rows
        else []
    )


def _resume(results: Results, workload: str) -> Iterable[str]:
    rows = []
    for name in results.contenders(workload, "resume_s"):
        seconds = median(results.values(workload, name, "resume_s").values())
        rows.append([name, _seconds(seconds), _bytes(results, workload, name, "resume_extra_bytes")])
    return [*_table(["restore in a new process, warm", "time", "memory beyond the state"], rows), ""] if rows else []


def _loop(results: Results, workload: str) -> Iterable[str]:
    rows = []
    for name in results.contenders(workload, "loop_s"):
        saving, bare = (results.values(workload, name, metric) for metric in ("loop_s", "loop_bare_s"))
        costs = sorted(saving[number] - bare[number] for number in saving if number in bare)
        low, high = (costs[len(costs) * part // 4] for part in (1, 3))
        spread = f"{_seconds(low)} to {_seconds(high)}"
        rows.append([name, _seconds(median(costs)), spread, f"{100 * median(costs) / _MINUTE:.1f} %"])
    header = ["training with saves", "a save costs", "half of them", "with a save each minute"]
    return [*_table(header, rows), ""] if rows else []


def _commands(results: Results, workload: str) -> Iterable[str]:
    titles = {"verify_s": "verify", "ls_s": "ls, 1,000 files", "inspect_s": "inspect", "start_s": "--version"}
    rows = []
    for metric, title in titles.items():
        values = results.values(workload, "ckptfmt", metric)
        if values:
            floor = f"{_seconds(min(values.values()))}"
            rows.append([f"ckptfmt {title}", _with_ratio(results, workload, "ckptfmt", metric), floor])
    header = ["whole command", "time (x the hash on all cores)", "least"]
    return [*_table(header, rows), ""] if rows else []


def _with_ratio(results: Results, workload: str, name: str, metric: str) -> str:
    values = results.values(workload, name, metric)
    if not values:
        return ""
    ratio = results.ratio(workload, name, metric)
    text = _seconds(median(values.values()))
    return text if ratio is None or name == FLOOR else f"{text} ({ratio:.2f}x)"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def _bytes(results: Results, workload: str, name: str, metric: str) -> str:
    values = results.values(workload, name, metric)
    return f"{median(values.values()) / 2**20:,.0f} MiB" if values else ""


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    align: Callable[[int], str] = lambda column: "---" if not column else "---:"  # noqa: E731 - it is one line long
    lines = [header, [align(column) for column in range(len(header))], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
