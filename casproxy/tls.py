"""Owns TLS on a byte stream, many records per wake-up. Refuses to know what the bytes mean.

``trio.SSLStream`` returns one record (16 KiB at most) per call and costs 2.9 to 4.0 CPU seconds per GB; reading all
that has arrived into OpenSSL's memory buffer and draining every complete record brings that to 1.9. Writes are cut at
64 KiB, so that what OpenSSL encrypts fits its buffer and the cache.
"""

from __future__ import annotations

import ssl
from contextlib import suppress

import trio

from casproxy.sockets import READ_SIZE, receive_some

RECORD_SIZE = 16 * 1024
"""The most one TLS record carries; asking for more at once only allocates more."""
WRITE_SIZE = 64 * 1024


class TlsStream(trio.abc.Stream):
    """One end of a TLS connection over ``transport``; ``handshake`` first. One task receives, one task sends.

    Cancelled in ``receive_some``: nothing is lost. Cancelled in ``send_all`` or ``handshake``: it can only be closed.
    Errors of TLS itself are ``trio.BrokenResourceError`` with the ``ssl.SSLError`` as cause.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self.transport_stream = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._sending = trio.Lock()  # reading may have to answer too (key update)
        self.failure: ssl.SSLError | None = None
        """What broke TLS after the handshake. In TLS 1.3 that is also where a server refuses a client's certificate."""

    async def handshake(self) -> None:
        """Complete the handshake."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                await self._flush()  # the alert tells the peer why
                raise trio.BrokenResourceError(f"TLS handshake failed: {error.reason or error}") from error
            else:
                await self._flush()
                return

    @property
    def alpn(self) -> str | None:
        """The protocol both sides agreed on."""
        return self._tls.selected_alpn_protocol()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Everything that has arrived, up to ``max_bytes``; ``b""`` when the peer has closed."""
        limit = max_bytes or READ_SIZE
        while True:
            records, size, ended = self._drain(limit)
            if self._outgoing.pending:
                with suppress(trio.BrokenResourceError):  # a peer that hung up may have said why: read on
                    await self._flush()
            if size or ended:
                await trio.lowlevel.checkpoint_if_cancelled()
                return records[0] if len(records) == 1 else b"".join(records)
            await self._fill()

    def _drain(self, limit: int) -> tuple[list[bytes], int, bool]:
        """Decrypted records that are here, their size, and whether the peer has closed."""
        records: list[bytes] = []
        size = 0
        while size < limit:
            try:
                record = self._tls.read(min(RECORD_SIZE, limit - size))
            except ssl.SSLWantReadError:
                return records, size, False
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return records, size, True
            except ssl.SSLError as error:
                if records:  # what is whole counts; the error comes again with the next call
                    return records, size, False
                self.failure = error.with_traceback(None)  # which would hold this stream
                raise trio.BrokenResourceError(f"TLS failed: {error.reason or error}") from error
            if not record:
                return records, size, True
            records.append(record)
            size += len(record)
        return records, size, False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        view = memoryview(data)
        for start in range(0, len(view), WRITE_SIZE):
            try:
                self._tls.write(view[start : start + WRITE_SIZE])
            except ssl.SSLError as error:
                raise trio.BrokenResourceError(f"TLS failed: {error.reason or error}") from error
            await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        """Part of ``trio.abc.SendStream``."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say goodbye and send no more; the transport, which must be able to, sends its end as well."""
        with suppress(ssl.SSLError):  # it wants the peer's goodbye too
            self._tls.unwrap()
        await self._flush()
        assert isinstance(self.transport_stream, trio.abc.HalfCloseableStream)  # noqa: S101 - promised by the caller
        await self.transport_stream.send_eof()

    async def aclose(self) -> None:
        """Say goodbye if that is possible at once, then close."""
        with suppress(ssl.SSLError):  # it wants the peer's goodbye too, which nobody waits for
            self._tls.unwrap()
        try:
            with trio.move_on_after(1.0), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._flush()
        finally:  # also when cancelled, which is how aclose_forcefully closes
            await self.transport_stream.aclose()

    async def _fill(self) -> None:
        data = await receive_some(self.transport_stream)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        async with self._sending:
            data = self._outgoing.read()
            if data:
                await self.transport_stream.send_all(data)


def socket_beneath(stream: trio.abc.Stream) -> trio.SocketStream | None:
    """The socket that carries ``stream``, with TLS or without; None for a stream in memory."""
    inner = stream.transport_stream if isinstance(stream, TlsStream) else stream
    return inner if isinstance(inner, trio.SocketStream) else None
