"""Which checkpoints a policy gives up, and which it never does."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt._core.format.index import Metadata
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.retention import RetentionPlan, RetentionPolicy, best_first, plan_retention
from ckptfmt._core.runs.scan import newest_first
from ckptfmt._core.storage.base import Entry, Version
from ckptfmt.errors import StorageError, UsageError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def file(
    name: str,
    step: int | None = None,
    *,
    run: str | None = "r",
    loss: float | None = None,
    age: timedelta | None = None,
    nbytes: int = 1000,
    inode: int | None = None,
    epoch: int | None = None,
    generation: int | None = None,
    link: bool = False,
    **more: Any,
) -> CheckpointReference:
    metrics = None if loss is None else {"loss": loss}
    created = None if age is None else NOW - age
    facts = Metadata(run_id=run, generation=generation, step=step, epoch=epoch, metrics=metrics, created=created)
    content_id = name if inode is None else str(inode)
    entry = Entry(f"{name}.ckptfmt", nbytes, Version(f"{content_id} {nbytes}"), content_id, link)
    return CheckpointReference(f"runs/{name}.ckptfmt", facts, "00" * 32, entry=entry, **more)


def usual(count: int = 10) -> list[CheckpointReference]:
    """Return checkpoints a day apart, the best one in the middle, named so that names tell nothing."""
    return [
        file(f"{(7 * number) % count}", number * 100, loss=abs(number - 5) / 10, age=(count - number) * DAY)
        for number in range(1, count + 1)
    ]


def steps(plan: RetentionPlan) -> list[int | None]:
    """Return the steps of what a plan keeps of the run, the newest first."""
    return [kept.metadata.step for kept in plan.kept]


def plan(files: Sequence[CheckpointReference], **policy: Any) -> RetentionPlan:
    return plan_retention(files, RetentionPolicy(**policy), now=NOW)


# Each rule alone.


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"keep_last": 3}, [1000, 900, 800]),
        ({"keep_last": 1}, [1000]),
        ({"keep_last": 99}, [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100]),
        ({"keep_best": ("loss", "min")}, [1000, 500]),
        ({"keep_best": ("loss", "min", 3)}, [1000, 600, 500, 400]),
        ({"keep_best": ("loss", "max", 1)}, [1000]),
        ({"keep_best": ("unknown", "min")}, [1000]),
        ({"keep_every_steps": 300}, [1000, 900, 600, 300]),
        ({"keep_every_steps": 250}, [1000, 800, 500, 300]),
        ({"keep_within": 2 * DAY}, [1000, 900, 800]),
        ({"max_bytes": 3500}, [1000, 900, 800]),
        ({"max_bytes": 1}, [1000]),
        ({"keep_last": 2, "keep_best": ("loss", "min")}, [1000, 900, 500]),
        ({"keep_last": 4, "keep_best": ("loss", "min"), "max_bytes": 2000}, [1000, 500]),
        ({"keep_last": 4, "keep_best": ("loss", "min"), "max_bytes": 3999}, [1000, 900, 500]),
    ],
)
def test_what_a_policy_keeps(policy: dict[str, Any], expected: list[int]) -> None:
    assert steps(plan(usual(), **policy)) == expected


def test_without_a_rule_everything_stays() -> None:
    assert RetentionPolicy().keeps_everything
    assert not plan(usual()).removed


def test_reasons_say_why() -> None:
    decisions = {
        decision.file.metadata.step: decision
        for decision in plan(usual(), keep_last=2, keep_best=("loss", "min"), keep_every_steps=500).decisions
    }
    kept, best, removed = (decisions[step] for step in (1000, 500, 400))
    assert (kept.keep, best.keep, removed.keep) == (True, True, False)
    newest, last, every = kept.reasons
    assert "2" in last
    assert "500" in every
    assert [newest in decision.reasons for decision in (best, removed)] == [False, False]
    metric, also = best.reasons
    assert "loss" in metric
    assert also == every
    (why,) = removed.reasons
    assert all(rule in why for rule in ("2", "loss", "500"))
    (why,) = plan(usual(), keep_last=2, max_bytes=1000).decisions[1].reasons
    assert "1 kB" in why
    assert last in why


def test_a_wrong_clock_keeps_more_rather_than_less() -> None:
    ahead = [file("new", 2, age=-300 * DAY), file("old", 1, age=timedelta())]
    assert steps(plan(ahead, keep_within=DAY)) == [2, 1]
    silent = [file("new", 2, age=timedelta()), file("old", 1)]
    assert steps(plan(silent, keep_within=DAY)) == [2, 1]


def test_a_metric_that_is_not_a_number_is_never_the_best() -> None:
    files = [file("a", 1, loss=0.5), file("b", 2, loss=float("nan")), file("c", 3, loss=float("-inf")), file("d", 4)]
    assert steps(plan(files, keep_best=("loss", "min"))) == [4, 1]


def test_of_equally_good_ones_the_newest_stays() -> None:
    files = [file("a", 1, loss=0.5), file("b", 2, loss=0.5), file("c", 3, loss=0.9)]
    assert steps(plan(files, keep_best=("loss", "min"))) == [3, 2]


def test_what_had_to_give_way_is_not_the_newest_however_far_it_is() -> None:
    """Generation 2 went on from step 200 while generation 1 was still alive."""
    first = [file(f"a{step}", step, generation=1) for step in (100, 200, 300, 400)]
    second = [file(f"b{step}", step, generation=2) for step in (250, 350)]
    files = [*first, *second, file("before", 900)]
    assert [kept.name for kept in plan(files, keep_last=1).kept] == ["b350.ckptfmt"]
    assert steps(plan(files, keep_last=3)) == [350, 250, 400]
    assert steps(plan(files, keep_every_steps=100)) == [350, 200, 100]
    (newest,) = (decision.file for decision in plan(files, max_bytes=1).decisions if decision.keep)
    assert newest.name == "b350.ckptfmt"


def test_what_stays_whatever_the_policy() -> None:
    files = [
        file("newest", 9),
        file("pinned", 8, pinned=True),
        file("target", 7, inode=77),
        file("link", 7, inode=77, link=True),
        file("broken", error=StorageError("no permission")),
        file("other", 6, run="other"),
        file("alone", 5, run=None),
        file("old", 4),
    ]
    decided = plan(files, keep_last=1, max_bytes=1, run_id="r")
    assert [gone.name for gone in decided.removed] == ["old.ckptfmt"]
    reasons = {decision.file.name.removesuffix(".ckptfmt"): decision.reasons for decision in decided.decisions}
    assert reasons["newest"] == ("newest", "last 1")
    assert reasons["pinned"] == ("pinned",)
    assert reasons["target"] == ("link.ckptfmt links to it",)
    assert [decision.file.name for decision in decided.decisions if not decision.concerned] == [
        *("alone.ckptfmt", "broken.ckptfmt", "link.ckptfmt", "other.ckptfmt"),
    ]


def test_those_of_no_run_can_be_meant_and_weights_from_elsewhere_are_not_among_them() -> None:
    files = [
        *(file(f"ckpt_{epoch}", run=None, epoch=epoch) for epoch in range(1, 12)),
        file("pretrained", run=None),
        file("of_a_run", 5),
    ]
    assert not plan(files, keep_last=2, run_id="r").removed
    decided = plan(files, keep_last=2, runless=True)
    assert [kept.metadata.epoch for kept in decided.kept] == [11, 10]
    left = [item.file.name for item in decided.decisions if not item.concerned]
    assert left == ["of_a_run.ckptfmt", "pretrained.ckptfmt"]


@pytest.mark.parametrize(
    "policy",
    [
        {"keep_last": 0},
        {"keep_last": True},
        {"keep_every_steps": -1},
        {"max_bytes": 0},
        {"keep_within": timedelta()},
        {"keep_best": ("loss", "least")},
        {"keep_best": ("loss", "min", 0)},
        {"keep_best": "loss"},
        {"run_id": "r", "runless": True},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RetentionPolicy(**policy)


# All rules together, on any directory.

FILES: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(
        dict,
        step=st.none() | st.integers(0, 40),
        epoch=st.none() | st.integers(0, 3),
        run=st.sampled_from(["r", "r", "r", "s", None]),
        generation=st.none() | st.integers(1, 3),
        loss=st.none() | st.sampled_from([0.1, 0.2, 0.3, float("nan"), float("inf")]),
        age=st.none() | st.integers(-2, 30).map(timedelta),
        nbytes=st.integers(1, 5000),
        pinned=st.booleans(),
        broken=st.integers(0, 5).map(lambda number: number == 0),
    ),
    max_size=12,
)
POLICIES = st.builds(
    RetentionPolicy,
    keep_last=st.none() | st.integers(1, 5),
    keep_best=st.none() | st.tuples(st.just("loss"), st.sampled_from(["min", "max"]), st.integers(1, 3)),
    keep_every_steps=st.none() | st.integers(1, 20),
    keep_within=st.none() | st.integers(1, 20).map(timedelta),
    max_bytes=st.none() | st.integers(1, 20_000),
    run_id=st.none() | st.just("r"),
) | st.builds(RetentionPolicy, keep_last=st.integers(1, 5), runless=st.just(True))


def directory(drawn: Sequence[dict[str, Any]]) -> list[CheckpointReference]:
    files = []
    for number, facts in enumerate(drawn):
        broken = facts.pop("broken", False)
        made = file(f"f{number}", **facts, inode=number)
        files.append(replace(made, metadata=Metadata(), identity=None, error=StorageError("x")) if broken else made)
    return files


@given(FILES, POLICIES, st.randoms(use_true_random=False))
def test_any_plan(drawn: list[dict[str, Any]], policy: RetentionPolicy, rng: random.Random) -> None:
    files = directory(drawn)
    decided = plan_retention(files, policy, now=NOW)
    kept = {decision.file.path for decision in decided.decisions if decision.keep}
    removed = {gone.path for gone in decided.removed}

    # Each file is decided on once, with a reason.
    assert sorted(decision.file.path for decision in decided.decisions) == sorted(found.path for found in files)
    assert all(decision.reasons and all(decision.reasons) for decision in decided.decisions)

    # What may never go.
    for found in files:
        if not found.usable or found.pinned or found.run_id != decided.run_id:
            assert found.path in kept
    ours = [found for found in newest_first(files, decided.run_id) if found.path in removed | kept]
    concerned = [decision.file for decision in decided.decisions if decision.concerned]
    if concerned:
        newest = next(found for found in ours if found in concerned)
        assert newest.path in kept
        assert decided.kept

    # What the rules ask for stays, if there is room.
    if policy.max_bytes is None:
        wanted = {found.path for found in concerned[: policy.keep_last or 0]}
        if policy.best is not None:
            wanted |= {found.path for found in best_first(concerned, *policy.best[:2])[: policy.best[2]]}
        assert wanted <= kept
    else:
        staying = [found for found in concerned if found.path in kept]
        total = sum(found.file_bytes or 0 for found in staying)
        assert total <= policy.max_bytes or all(found.pinned for found in staying[1:])

    # It is a plan for the directory, whatever the order in which it was read, and once is enough.
    shuffled = list(files)
    rng.shuffle(shuffled)
    assert plan_retention(shuffled, policy, now=NOW) == decided
    again = plan_retention([found for found in files if found.path in kept], policy, now=NOW)
    if decided.run_id == again.run_id:
        assert not again.removed


@given(FILES, st.integers(1, 5), st.integers(1, 5))
def test_to_keep_more_never_removes_more(drawn: list[dict[str, Any]], few: int, more: int) -> None:
    files = directory(drawn)
    little = {gone.path for gone in plan(files, keep_last=few).removed}
    much = {gone.path for gone in plan(files, keep_last=few + more).removed}
    assert much <= little
