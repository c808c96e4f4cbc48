"""A web server that serves a directory by ranges, as hubs and object stores do."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

__all__ = ["web_server"]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@contextmanager
def web_server(directory: Path, *, ranges: bool = True) -> Iterator[str]:
    """Serve a directory, and yield its URL.

    Args:
        directory: The directory.
        ranges: Whether the server honours ranges; simple ones do not.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            path = directory / unquote(self.path).lstrip("/")
            if not path.is_file():
                self.reply(404, b"")
                return
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            if self.headers.get("If-Match", tag) != tag:
                self.reply(412, b"")
                return
            wanted = _RANGE.fullmatch(self.headers.get("Range", "")) if ranges else None
            if wanted is None:
                self.reply(200, content, {"ETag": tag})
                return
            first, last = wanted.groups()
            start = int(first) if first else max(0, len(content) - int(last))
            end = min(len(content), int(last) + 1) if first and last else len(content)
            told = {"ETag": tag, "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
            self.reply(206, content[start:end], told)

        def reply(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Last-Modified", self.date_time_string())
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    for method in ("GET", "HEAD"):
        setattr(Handler, f"do_{method}", Handler.answer)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Say nothing: clients leave."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
