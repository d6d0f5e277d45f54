"""A Sentry server: takes envelopes and keeps the events in them. Source: Sentry's envelope format."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class SentryServer:
    """``events`` is complete once the sender has flushed; ``raw`` is everything that came, as text."""

    dsn: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    raw: str = ""

    def take(self, envelope: bytes) -> None:
        self.raw += envelope.decode()
        lines = envelope.split(b"\n")
        items = zip(lines[1::2], lines[2::2], strict=False)
        self.events += [json.loads(body) for head, body in items if head and json.loads(head)["type"] == "event"]


@contextmanager
def sentry_server() -> Iterator[SentryServer]:
    server = SentryServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.dsn = f"http://public@127.0.0.1:{listening.server_address[1]}/42"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
