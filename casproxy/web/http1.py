"""Owns what Hypercorn's HTTP/1.1 leaves undone. Refuses to know applications.

* ``100 Continue`` is sent when the application asks for the body, not before: a client that is refused, or whose
  artifact is stored already, then never sends it (RFC 9110, section 10.1.1).
* An ``Upgrade: h2c`` is ignored (RFC 9113 took it out); HTTP/2 comes with prior knowledge.
* The reader waits when an application holds more than ``_HELD_BYTES`` of its body.
"""

from __future__ import annotations

import h11
from hypercorn.protocol.h11 import H2ProtocolAssumedError, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream

from casproxy.web.inbox import Inbox

_HELD_BYTES = 256 * 1024


class _LazyContinue(h11.Connection):
    they_are_waiting_for_100_continue = False
    """Hypercorn answers at once when this is true; the truth is in ``client_is_waiting_for_100_continue``."""


class Http1(H11Protocol):
    """One HTTP/1.1 connection: a mended ``H11Protocol``."""

    connection: h11.Connection

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.connection = _LazyContinue(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)

    async def _create_stream(self, request: h11.Request) -> None:
        await super()._create_stream(request)
        inbox = self.stream.app_put if isinstance(self.stream, HTTPStream) else None
        if isinstance(inbox, Inbox):  # before its application had a chance to run
            inbox.high_water = _HELD_BYTES
            inbox.taken = self._continue

    async def _continue(self, _taken: int) -> None:
        if self.connection.client_is_waiting_for_100_continue and self.connection.our_state is h11.SEND_RESPONSE:
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))

    async def _check_protocol(self, event: h11.Request) -> None:
        if event.method == b"PRI" and event.target == b"*" and event.http_version == b"2.0":
            raise H2ProtocolAssumedError(b"PRI * HTTP/2.0\r\n\r\n" + self.connection.trailing_data[0])
