"""Warm start: a new run with the weights of an earlier one. Everything is compared before anything is changed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ckptfmt._core.format.index import shown_name
from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.distributed.wrappers import plain_state
from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.live_objects.components import checked_components, name_list
from ckptfmt._core.torch.restore.modules import load_module
from ckptfmt._core.torch.restore.plan import RestorePlan, plan_restore
from ckptfmt._core.torch.restore.raising import named_when_compared, named_when_restored
from ckptfmt._core.torch.restore.weight_files import Origin, open_origin
from ckptfmt._core.torch.run.components import RNG, Run
from ckptfmt._core.torch.run.loop import Loop
from ckptfmt._core.torch.run.progress import Progress
from ckptfmt._core.torch.state.parameter_names import parameter_names
from ckptfmt._core.torch.warm_start.fit import Fit, Names, Rename, fit_weights
from ckptfmt._core.training.lineage import Ancestor
from ckptfmt._core.training.notices import show
from ckptfmt._core.training.report import labelled
from ckptfmt._core.training.stateful import Stateful
from ckptfmt._escaping import escape
from ckptfmt.errors import MismatchError, UsageError

__all__ = [
    "Mapped",
    "Request",
    "WarmStart",
    "WarmStartReport",
    "plan_warm_start",
    "render_warm_start",
    "warm_start",
    "warm_start_run",
]


@dataclass(frozen=True)
class Mapped:
    """Options for fitting saved weights into a similar model.

    Attributes:
        rename: New names for saved ones.
        strip_prefix: Prefix of saved names that the model's names do not have.
        partial: Tensors that may be missing.
        resize: Tensors of which only the common part is taken.
    """

    rename: Rename | None = None
    strip_prefix: str = ""
    partial: Names = False
    resize: Names = False

    def fit(self, live: Mapping[str, Any], saved: Mapping[str, Any]) -> Fit:
        """Return what a model takes; see `fit_weights`."""
        return fit_weights(
            live,
            saved,
            rename=self.rename,
            strip_prefix=self.strip_prefix,
            partial=self.partial,
            resize=self.resize,
        )


@dataclass(frozen=True)
class Request:
    """What a new run takes from a file.

    Attributes:
        path: The file.
        mapped: How weights are fitted.
        source: Component of the file to take weights from, if not the one with the module's name: for the only module,
            or by names of modules.
        also_restore: Names of other components to restore, `rng` among them.
        keep_counters: Whether to start with the step and epoch of the file instead of 0.
        inert: Names in pickles to keep as inert data (see `pth.reading.read_state`).
    """

    path: str | os.PathLike[str]
    mapped: Mapped
    source: str | Mapping[str, str] | None = None
    also_restore: Collection[str] = ()
    keep_counters: bool = False
    inert: Collection[str] = ()


@dataclass(frozen=True)
class WarmStartReport:
    """Report of a warm start.

    Attributes:
        path: The file.
        lineage: The file, then the one that its run started from, and so on.
        loaded: Names of the loaded tensors.
        converted: Tensors that were converted to another dtype, one line each.
        resized: Tensors of which only the common part was taken, one line each.
        kept: Tensors of the models that keep their initial values, one line each.
        unused: Tensors of the file that no model takes, one line each.
        restored: Names of the other components that were restored.
        fresh: Names of the components that start from their initial state.
        per_rank: Values that differ between the ranks of the file and were taken from rank 0, one line each.
        step: First value of the step counter.
        epoch: First value of the epoch counter.
    """

    path: str
    lineage: tuple[Ancestor, ...]
    loaded: tuple[str, ...]
    converted: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    per_rank: tuple[str, ...] = ()
    step: int = 0
    epoch: int = 0


@dataclass(frozen=True)
class WarmStart:
    """Plan of a warm start. Nothing is changed before `apply`.

    Attributes:
        report: Report of the plan, once applied.
        fits: What each model takes, with its name.
        others: Plan for the other components.
        random: States for the global generators; None: they stay unchanged.
    """

    report: WarmStartReport
    fits: tuple[tuple[str, nn.Module, Fit], ...]
    others: RestorePlan
    random: rng.RandomState | None = None

    def apply(self) -> WarmStartReport:
        """Apply the plan to the objects.

        Raises:
            RestoreError: One of them raised.
        """
        changed: list[str] = []
        for name, module, fit in self.fits:
            changed.append(name)
            with named_when_restored(self.report.path, name, changed):
                load_module(module, fit.state, strict=False)
        self.others.apply(self.report.path, changed)
        return self.report


def warm_start(
    path: str | os.PathLike[str],
    model: nn.Module | Mapping[str, nn.Module],
    *,
    source: str | Mapping[str, str] | None = None,
    rename: Rename | None = None,
    strip_prefix: str = "",
    partial: Names = False,
    resize: Names = False,
    inert: Collection[str] = (),
    quiet: bool = False,
) -> WarmStartReport:
    """Load the weights of a file into a model, as the start of new training.

    Every byte is verified as far as the format allows. Everything that does not fit is one error, raised before
    anything is changed. Nothing in the file is executed. Prefixes that wrappers add to names (DDP, `torch.compile`) are
    recognized.

    Args:
        path: A `.ckptfmt`, `.safetensors`, `.pth`, `.pt`, `.bin` or `.ckpt` file, whole pickled modules included, or a
            Hugging Face directory with all of its shards.
        model: The model, or several models by name.
        source: Component of the file to take the weights from; None: the only one that can belong to a model. For
            several models, a mapping of their names to components; models that it does not name take the component with
            their own name.
        rename: New names for saved ones. `{"transformer": "encoder", "lm_head": None}` renames tensors, or prefixes of
            names up to a dot, and omits those mapped to None. Or a function from name to name or None.
        strip_prefix: Prefix of saved names that the model's names do not have, such as `model.`.
        partial: Tensors that may be missing from the file or the model, or have another shape: True for all, or
            patterns such as `["head.*"]`. The model keeps its own values.
        resize: Tensors of which only the common part is taken where sizes differ, such as `["wte.weight"]` for a larger
            vocabulary: True for all, or patterns. The rest keeps its values.
        inert: Names that do not cause a pickle to be refused, spelled as in the error. Nothing is executed.
        quiet: Do not print the report to stderr.

    Raises:
        MismatchError: The file has no such weights, or they do not fit; lists every reason. Nothing was changed.
        UsageError: An argument makes no sense.
        CkptfmtError: The file cannot be read, is damaged, or is refused because of what it would run.
    """
    mapped = Mapped(rename, strip_prefix, partial, resize)
    request = Request(path, mapped, source, inert=inert)
    report = plan_warm_start(_models(path, model), request).apply()
    if not quiet:
        show(render_warm_start(report))
    return report


def warm_start_run(run: Run, loop: Loop, request: Request) -> WarmStartReport:
    """Start a new run from a file (see `Checkpointer.warm_start`). All ranks call it."""
    if not loop.new:
        raise UsageError(
            "warm_start() called on a run that is not new; call it right after a resume() that finds nothing"
        )
    plan = ranks.together(lambda: plan_warm_start(run.components, request))
    report = ranks.together(plan.apply)
    run.lineage = report.lineage
    loop.begin(Progress(report.step, report.epoch), plan.random)
    return report


def plan_warm_start(components: Mapping[str, Stateful], request: Request) -> WarmStart:
    """Compare the components of a new run with the file to start from.

    Args:
        components: The objects by name. Modules take weights.
        request: What to take.

    Raises:
        MismatchError: Something does not fit; lists every reason.
        UsageError: The request names something other than the components.
        CkptfmtError: The file cannot be read, is damaged, or is refused because of what it would run.
    """
    path, mapped = request.path, request.mapped
    also_restore, inert = name_list("also_restore", request.also_restore), name_list("inert", request.inert)
    modules = {name: part for name, part in components.items() if isinstance(part, nn.Module)}
    if not modules:
        raise UsageError("warm_start() needs a module to load weights into; add one to the components")
    sources = _sources(request.source, modules)
    unknown = [name for name in also_restore if name not in components and name != RNG]
    unknown += [name for name in sources if name not in modules]
    if unknown:
        raise UsageError(f"no component {', '.join(unknown)}; choose from: {', '.join(components)}")
    origin = open_origin(path, inert)
    sources_of: dict[str, str | None] = {}
    fits = {}
    for name, module in modules.items():
        with named_when_compared(os.fspath(path), name):
            fits[name], sources_of[name] = _fit(name, module, origin, mapped, sources, len(modules))
    others = {name: part for name, part in components.items() if name in also_restore and name not in modules}
    state = {name: origin.state(name) for name in others if name in origin.components}
    refused = origin.refused(name for name in others if name in state)
    plan = plan_restore(others, state, names=parameter_names(modules), refused=refused, path=os.fspath(path))
    random, lost = _random(origin) if RNG in also_restore else (None, [])
    differences = [line for name, fit in fits.items() for line in _prefixed(name, modules, fit.differences)]
    differences += [*plan.differences, *lost]
    if differences:
        advice = "use partial=, rename= or resize= for tensors that may be missing, renamed or cut"
        raise MismatchError(f"{path}: the weights do not fit; nothing was changed; {advice}", differences)
    facts = origin.metadata

    def lines(of: str) -> tuple[str, ...]:
        return tuple(line for name, fit in fits.items() for line in _prefixed(name, modules, getattr(fit, of)))

    report = WarmStartReport(
        path=os.fspath(path),
        lineage=origin.lineage,
        loaded=lines("state"),
        converted=lines("converted"),
        resized=lines("resized"),
        kept=lines("kept"),
        unused=lines("unused"),
        restored=(*others, *([RNG] if random is not None else [])),
        fresh=tuple(name for name in (*components, RNG) if name not in modules and name not in also_restore),
        per_rank=tuple(_taken_of_rank_0(origin, {*sources_of.values(), *others})),
        step=(facts.step or 0) if request.keep_counters else 0,
        epoch=(facts.epoch or 0) if request.keep_counters else 0,
    )
    return WarmStart(report, tuple((name, modules[name], fit) for name, fit in fits.items()), plan, random)


def _models(path: object, model: object) -> dict[str, Stateful]:
    """Return the models passed to `warm_start`, by name."""
    if isinstance(path, nn.Module):
        raise UsageError("the arguments are swapped; write warm_start(path, model)")
    models = checked_components(model if isinstance(model, Mapping) else {"model": model})
    others = [name for name, part in models.items() if not isinstance(part, nn.Module)]
    if others:
        raise UsageError(f"not a module: {', '.join(others)}; pass models only")
    return models


def _sources(source: str | Mapping[str, str] | None, modules: Collection[str]) -> Mapping[str, str]:
    if not isinstance(source, str):
        return source or {}
    if len(modules) > 1:
        raise UsageError(f"source is {source!r} for several modules; pass a mapping of their names to components")
    return dict.fromkeys(modules, source)


def _fit(
    name: str,
    module: nn.Module,
    origin: Origin,
    mapped: Mapped,
    sources: Mapping[str, str],
    count: int,
) -> tuple[Fit, str | None]:
    """Return what a module takes, and from which component; None if none."""
    source = sources.get(name)
    if source is None and name in origin.components:
        source = name
    if source is None and count > 1:
        line = f"{name}: not in the file, which has: {', '.join(map(shown_name, origin.components))}"
        return (Fit({}, kept=(line,)) if mapped.partial is True else Fit({}, differences=(line,))), None
    found, saved = origin.weights(source)
    return mapped.fit(plain_state(module), saved), found


def _random(origin: Origin) -> tuple[rng.RandomState | None, list[str]]:
    random = origin.state_of_rank(RNG, ranks.world())
    if random is None:
        return None, ["rng: the file has no random states for this process"]
    try:
        rng.check(random)
    except MismatchError as error:
        return None, list(error.differences)
    return random, []


def _taken_of_rank_0(origin: Origin, components: Collection[str | None]) -> Iterator[str]:
    """Yield a line for each value that differs between ranks."""
    for component, counts in origin.per_rank.items():
        for place, count in counts.items() if component in components else ():
            yield f"{place}: rank 0's value, which differs from those of {count - 1} others"


def _prefixed(name: str, modules: Mapping[str, object], lines: Collection[str]) -> Iterator[str]:
    """Yield lines with the name of the component, if there are several components."""
    return (line if len(modules) == 1 or line.startswith(f"{name}: ") else f"{name}.{line}" for line in lines)


def render_warm_start(report: WarmStartReport) -> str:
    """Return the report as lines of text, each ended by a line feed. Names are escaped: none can harm a terminal."""
    return "".join(f"{escape(line)}\n" for line in _lines(report))


def _lines(report: WarmStartReport) -> Iterator[str]:
    itself = report.lineage[0]
    facts = [f"run {itself.run_id}"] if itself.run_id is not None else []
    facts += [f"step {itself.step}"] if itself.step is not None else []
    yield f"ckptfmt: starts from {report.path}" + (f" ({', '.join(facts)})" if facts else "")
    yield f"  weights     {len(report.loaded)} tensors"
    yield from labelled("resized", report.resized)
    yield from labelled("converted", report.converted)
    yield from labelled("kept", report.kept)
    yield from labelled("unused", report.unused)
    yield from labelled("per rank", report.per_rank)
    if report.restored:
        yield f"  restored    {', '.join(report.restored)}"
    if report.fresh:
        yield f"  anew        {', '.join(report.fresh)}"
    if report.step or report.epoch:
        yield f"  place       step {report.step}; epochs finished: {report.epoch}"
