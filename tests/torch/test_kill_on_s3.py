"""SIGKILL at any request to an object store: the run still ends bit-identical, and no good checkpoint is lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch

import ckptfmt
from ckptfmt._core.runs.scan import scan
from ckptfmt.torch import Checkpointer
from tests.faulty_proxy import CUT, Proxy, Request, proxy
from tests.s3_server import S3Server
from tests.torch.tiny import final_state, run, shuffled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


@pytest.fixture
def faulty(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy(s3.endpoint) as running:
        yield running


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The end of a run in a directory that was left alone."""
    directory = tmp_path_factory.mktemp("calm")
    run(directory, shuffled)
    return final_state(directory)


def train(url: str, environment: dict[str, str], told: Connection) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    told.send("started")
    run(url, shuffled)


def train_until_killed(context: ForkServerContext, url: str, s3: S3Server, faulty: Proxy, at: int, when: str) -> bool:
    """Train, and kill the process before or after its request of this number is done; return whether it was killed."""
    here, there = context.Pipe()
    environment = {**s3.environment, "AWS_ENDPOINT_URL": faulty.endpoint}
    process = context.Process(target=train, args=(url, environment, there))

    def kill(request: Request) -> int | None:
        if request.number < at:
            return None
        process.kill()
        return CUT

    faulty.reset()
    setattr(faulty, when, kill)
    process.start()
    there.close()
    assert here.recv() == "started"
    process.join()
    here.close()
    return process.exitcode != 0


def newest_step(url: str) -> int:
    """Return the step of the newest checkpoint; every object that looks like one can be read to its last byte."""
    steps = [0]
    for file in scan(url):
        with ckptfmt.open(file.path) as checkpoint:
            assert checkpoint.verify() == ()
            steps.append(checkpoint.metadata.step or 0)
    return max(steps)


def kill_at(
    context: ForkServerContext, s3: S3Server, faulty: Proxy, calm: dict[str, str], requests: range, when: str
) -> None:
    """Kill a run at one request after the other, counted from the start of its process, until it comes to its end."""
    url = f"{s3.new_bucket()}/runs/digits"
    newest = 0
    for at in requests:
        if not train_until_killed(context, url, s3, faulty, at, when):
            break
        assert newest_step(url) >= newest
        newest = newest_step(url)
    run(url, shuffled)
    assert final_state(url) == calm


@pytest.mark.parametrize(("when", "first"), [("before", 22), ("after", 25), ("before", 31), ("after", 38)])
def test_a_run_that_is_killed_at_requests_ends_bit_identical(
    context: ForkServerContext, s3: S3Server, faulty: Proxy, calm: dict[str, str], when: str, first: int
) -> None:
    kill_at(context, s3, faulty, calm, range(first, first + 28, 7), when)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 8))
def test_a_run_that_is_killed_at_any_request_ends_bit_identical(
    context: ForkServerContext, s3: S3Server, faulty: Proxy, calm: dict[str, str], when: str, step: int
) -> None:
    kill_at(context, s3, faulty, calm, range(step, 150, 7), when)


def test_requests_that_fail_for_a_while_are_made_again(
    s3: S3Server, faulty: Proxy, calm: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.endpoint)
    answers = {5: 503, 11: CUT, 23: 500, 37: 503, 38: 503, 61: CUT}
    faulty.before = lambda request: answers.get(request.number)
    faulty.after = lambda request: CUT if request.number % 29 == 0 else None
    url = f"{s3.new_bucket()}/runs/digits"
    run(url, shuffled)
    assert len(faulty.requests) > max(answers)
    assert final_state(url) == calm
    assert newest_step(url) == 6


def test_without_permission_to_delete_every_checkpoint_is_kept_and_training_goes_on(
    s3: S3Server, faulty: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.endpoint)
    faulty.before = lambda request: 403 if request.method == "DELETE" or "?delete" in request.path else None
    url = f"{s3.new_bucket()}/runs/digits"
    ckpt = Checkpointer(url, {"net": torch.nn.Linear(1, 1)}, keep_last=1, on_failed_save="raise")
    ckpt.resume(quiet=True)
    for loss in (1.0, 2.0):
        ckpt.save(loss=loss)
        ckpt.wait()
    ckpt.close()
    assert ckpt.last_error is not None
    assert scan(url)[0].path in str(ckpt.last_error) or scan(url)[1].path in str(ckpt.last_error)
    assert len(scan(url)) == 2
