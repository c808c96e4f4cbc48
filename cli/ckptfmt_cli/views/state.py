"""What a file records of training, as text: optimizer, scheduler, random states, position in the data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ckptfmt._core.format.index import shown_name
from ckptfmt._core.interop.base import RankedValue
from ckptfmt._core.ops.inspection.component_roles import PlaceInfo, SchedulerInfo
from ckptfmt._core.ops.inspection.inspect import StateInfo
from ckptfmt._core.ops.inspection.optimizers import OptimizerInfo
from ckptfmt._core.ops.inspection.resumable import Resumable, ResumeAnswer
from ckptfmt._core.ops.report_json import integer_json, tree_json
from ckptfmt_cli.text import count

__all__ = ["resume_text", "state_texts"]

# In this order, and only these; JSON has the rest.
_OPTIONS = ("lr", "momentum", "betas", "alpha", "rho", "eps", "weight_decay", "nesterov", "amsgrad")
_SHOWN_PLACES = 8
_UNREMARKABLE = {"momentum": 0, "weight_decay": 0, "nesterov": False, "amsgrad": False}


def state_texts(state: StateInfo) -> Iterator[tuple[str, str]]:
    """Yield the label and text of each fact, what training can do with the file last."""
    for optimizer in state.optimizers:
        yield shown_name(optimizer.component), _optimizer(optimizer)
        yield "", _progress_of(optimizer)
    for scheduler in state.schedulers:
        yield shown_name(scheduler.component), _scheduler(scheduler)
    for random in state.random:
        yield (
            shown_name(random.component),
            "states of " + _joined(random.generators) if random.generators else "no states",
        )
    for place in state.places:
        yield shown_name(place.component), _place(place)
    for ranks, places in _by_ranks(state.per_rank).items():
        yield "per rank", f"{_joined(_few(places))} of {count(ranks, 'rank')}"
    for problem in state.problems:
        yield "damaged", str(problem)
    yield "resume", resume_text(state.resume)


def resume_text(answer: ResumeAnswer) -> str:
    """Return what training can do with the file, and why."""
    lacks = _joined([f"no {role.value}" for role in answer.lacks])
    match answer.answer:
        case Resumable.EXACTLY:
            return f"can resume training exactly: has {_joined([role.value for role in answer.holds])}"
        case Resumable.INEXACTLY:
            return f"can resume training, but not exactly: {lacks}"
        case Resumable.WARM_START:
            return f"can warm-start training but not resume it: {lacks}"
        case Resumable.NO:
            return "cannot be used for training: no weights"


def _optimizer(info: OptimizerInfo) -> str:
    facts = [info.kind or "unknown kind"]
    for option in _OPTIONS:
        values = info.values(option)
        if values and values != (_UNREMARKABLE.get(option),):
            facts.append(f"{option} {_values(values)}")
    groups = f" in {count(len(info.groups), 'group')}" if len(info.groups) > 1 else ""
    return ", ".join([*facts, count(info.parameters, "parameter") + groups])


def _progress_of(info: OptimizerInfo) -> str:
    if info.with_state == 0:
        return "no state yet: no step taken"
    parts = []
    if info.steps is not None:
        first, last = info.steps
        parts.append(f"step {first}" if first == last else f"steps {first} to {last}")
    if info.moments:
        parts.append(f"{_joined(list(info.moments))} of {count(info.with_state, 'parameter')}")
    return ", ".join(parts) or f"state of {count(info.with_state, 'parameter')}"


def _scheduler(info: SchedulerInfo) -> str:
    facts = [info.kind or "unknown kind", f"last_epoch {_value(info.last_epoch)}"]
    if info.last_lr:
        facts.append(f"lr {_values(tuple(dict.fromkeys(info.last_lr)))}")
    facts += [f"{name} {_value(value)}" for name, value in info.options.items() if name != "base_lrs"]
    return ", ".join(facts)


def _place(info: PlaceInfo) -> str:
    facts = [f"step {info.step}"] if info.step is not None else []
    if info.epoch is not None:
        facts.append(f"{count(info.epoch, 'epoch')} finished")
    if info.batch is not None:
        of = f" of {info.batches:,}" if info.batches is not None else ""
        facts.append(f"{info.batch:,}{of} batches into the next")
    return ", ".join(facts) or "not recorded"


def _by_ranks(values: Sequence[RankedValue]) -> dict[int, list[str]]:
    places: dict[int, list[str]] = {}
    for value in values:
        places.setdefault(value.ranks, []).append(value.place)
    return places


def _few(words: list[str]) -> list[str]:
    left_out = len(words) - _SHOWN_PLACES
    return words if left_out <= 1 else [*words[:_SHOWN_PLACES], f"{left_out} more"]


def _values(values: Sequence[object]) -> str:
    return " or ".join(map(_value, values))


def _value(value: object) -> str:
    match value:
        case bool() | None:
            return str(value).lower()
        case int() | str():
            return str(integer_json(value) if isinstance(value, int) else value)
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            return f"({', '.join(map(_value, value))})"
    return json.dumps(tree_json(value), ensure_ascii=False)


def _joined(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
