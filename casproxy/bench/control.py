"""Owns the few questions a run asks the bench's own server, one JSON line each way. Refuses to know what they measure.

``reset``   forget lag and releases so far             -> {}
``report``  {"lag_ms": {"p50": …, "p99": …, "max": …}, "released": {hex digest: monotonic seconds}, "tasks": …}
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import trio

from casproxy.client.address import Address

_MAX_LINE = 64 << 20


async def ask(address: Address, question: str) -> Any:
    """The answer to one question. Raises ``OSError`` when there is no such server."""
    stream = await trio.open_tcp_stream(address.host, address.port)
    async with stream:
        await stream.send_all(question.encode() + b"\n")
        answer = bytearray()
        while part := await stream.receive_some():
            answer += part
        return json.loads(answer)


async def serve_questions(listeners: list[trio.SocketListener], answers: Callable[[str], object]) -> None:
    """Answer until cancelled; one question per connection."""

    async def handle(stream: trio.SocketStream) -> None:
        question = b""
        while b"\n" not in question and len(question) < 100:
            part = await stream.receive_some(100)
            if not part:
                return
            question += part
        await stream.send_all(json.dumps(answers(question.decode().strip())).encode())

    await trio.serve_listeners(handle, listeners)
