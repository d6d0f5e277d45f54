"""Owns what the stand-ins of Google's and Azure's stores have in common: values, orders to fail, and a port for both.

The stand-ins run as processes of their own; a test gives its orders over HTTP to a second port.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from casproxy_tests.cas import PLAIN


@dataclass(slots=True)
class Values:
    """``failing``: what every request is answered with instead, empty for none. ``logins``: tokens handed out."""

    secrets: dict[str, bytes] = field(default_factory=dict)
    failing: str = ""
    logins: int = 0


class Control:
    """The test's side."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def put(self, name: str, value: str | bytes) -> None:
        data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        self._order({"put": name, "value": data.hex()})

    def remove(self, name: str) -> None:
        self._order({"remove": name})

    def fail(self, status: str) -> None:
        """Answer every request with ``status``; empty: serve again."""
        self._order({"fail": status})

    def logins(self) -> int:
        """How many logins there were."""
        return int(self._order({})["logins"])

    def _order(self, order: dict[str, str]) -> dict[str, Any]:
        answer = httpx.post(self._url, json=order, verify=PLAIN, trust_env=False, timeout=30)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def serve_control(values: Values, port: int) -> None:
    """Take orders at ``port``, in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "put" in order:
                values.secrets[order["put"]] = bytes.fromhex(order["value"])
            if "remove" in order:
                values.secrets.pop(order["remove"], None)
            values.failing = order.get("fail", values.failing)
            body = json.dumps({"logins": values.logins}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever, daemon=True).start()
