"""A proxy in front of a server that lets chosen requests fail, or something happen at them."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["CUT", "Proxy", "Request", "proxy"]

CUT = 0
"""Instead of a status: the connection is cut without an answer."""

_OWN_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "server", "date"})


class Request(NamedTuple):
    """A request.

    Attributes:
        number: Its number, from 1.
        method: GET, PUT and so on.
        path: Path and query.
    """

    number: int
    method: str
    path: str


class Proxy:
    """A running proxy.

    Attributes:
        endpoint: URL of the proxy.
        requests: The requests so far.
        before: Called before a request is passed on. Returns None to pass it on, or the status to answer, or `CUT`.
        after: Called after the server has answered, before the answer is passed on. Returns as `before` does.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.requests: list[Request] = []
        self.before: Callable[[Request], int | None] = lambda _: None
        self.after: Callable[[Request], int | None] = lambda _: None
        self._lock = threading.Lock()

    def note(self, method: str, path: str) -> Request:
        """Count a request."""
        with self._lock:
            request = Request(len(self.requests) + 1, method, path)
            self.requests.append(request)
        return request

    def reset(self) -> None:
        """Forget all requests, and let none fail."""
        self.requests.clear()
        self.before = self.after = lambda _: None


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """Start a proxy in front of a server, and stop it in the end.

    Args:
        target: URL of the server.
    """
    host = urlsplit(target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = state.note(self.command, self.path)
            status = state.before(request)
            if status is None:
                server = http.client.HTTPConnection(host)
                server.request(self.command, self.path, body, dict(self.headers.items()))
                found = server.getresponse()
                content, headers = found.read(), found.getheaders()
                server.close()
                status = state.after(request)
                if status is None:
                    self.reply(found.status, headers, content)
                    return
            if status == CUT:
                self.close_connection = True
                return
            self.reply(status, [], b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>")

        def reply(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status)
            length = next((value for name, value in headers if name.lower() == "content-length"), str(len(content)))
            for name, value in headers:
                if name.lower() not in _OWN_HEADERS:
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Say nothing: clients are killed."""

    server = Server(("127.0.0.1", 0), Handler)
    state = Proxy(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
