"""A server that speaks S3, started by the tests: moto's, in a thread of this process."""

from __future__ import annotations

import itertools
import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["S3Server", "s3_server"]


class S3Server:
    """A running server.

    Args:
        endpoint: URL of the server.

    Attributes:
        endpoint: URL of the server.
        environment: What programs need in their environment to reach it.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
        self._numbers = itertools.count(1)

    def new_bucket(self) -> str:
        """Create a bucket, and return its URL."""
        name = f"bucket-{next(self._numbers)}"
        self.request("PUT", name)
        return f"s3://{name}"

    def request(self, method: str, path: str) -> bytes:
        """Make a request, and return the answer."""
        request = urllib.request.Request(f"{self.endpoint}/{path}", method=method)
        with urllib.request.urlopen(request) as response:
            content: bytes = response.read()
        return content


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Start a server, and stop it in the end."""
    from moto.server import ThreadedMotoServer  # importing it takes half a second

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()
