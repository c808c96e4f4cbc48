"""What several directories of tests need."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext

import pytest
from hypothesis import settings

from tests.s3_server import S3Server, s3_server

# The same examples in every default run, new and many more in `make fuzz`. No deadlines: how long an example takes says
# more of the machine than of the code.
settings.register_profile("default", derandomize=True, deadline=None)
settings.register_profile("fuzz", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A shell that starts this in the background may have it ignore SIGINT, and all processes of the tests would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """A server that speaks S3, named by the environment."""
    for name, value in _s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return _s3_server


@pytest.fixture(scope="session")
def context() -> ForkServerContext:
    """Give processes that have imported PyTorch already, so that each of many starts takes milliseconds.

    `torch._dynamo` is what building the first optimizer imports.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.torch.tiny", "torch._dynamo"])
    return context
