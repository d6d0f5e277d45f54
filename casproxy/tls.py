"""Owns TLS on a byte stream, many records per wake-up. Refuses to know what the bytes mean.

``trio.SSLStream`` returns one record (16 KiB at most) per call and costs 2.9 to 4.0 CPU seconds per GB. Here one read
of the socket goes to OpenSSL in parts of ``FEED_SIZE``, and every record that is complete is decrypted in front of it,
into the same buffer::

    scratch():  │ _CARRIED │ ciphertext as it was read …                 │
                │ plaintext … ──▶          what comes out is never more than what went in, and at most one
                                           record was left in OpenSSL from the read before

So OpenSSL's own memory, which it keeps for the life of the connection, stays at about ``FEED_SIZE`` each way.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, cast

import trio

from casproxy.sockets import (
    READ_SIZE,
    Buffer,
    Received,
    given_out,
    read_into,
    receive_some,
    scratch,
    send_gathered,
    wait_readable,
)

FEED_SIZE: Final = 64 * 1024
"""Bytes given to OpenSSL at once: what its buffers grow to, and what stays in a core's cache."""
MOST_BATCHED: Final = 256 * 1024
"""Bytes encrypted for one write to a socket that takes them at once; ``FEED_SIZE`` for one that makes us wait."""
_CARRIED: Final = 18 * 1024
"""Room for a record that began in the read before: 2^14 + 256 bytes and its header (RFC 8446, 5.2), rounded up."""
_MOST_READ: Final = READ_SIZE - _CARRIED


class TlsStream(trio.abc.Stream):
    """One end of a TLS connection over ``transport``; ``handshake`` first. One task receives, one task sends.

    Cancelled in ``receive``: nothing is lost. Cancelled in a send or in ``handshake``: it can only be closed.
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
        self._socket = transport if isinstance(transport, trio.SocketStream) else None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._sending = trio.Lock()  # reading may have to answer too (key update)
        self._batch = FEED_SIZE
        self.failure: ssl.SSLError | None = None
        """What broke TLS after the handshake. In TLS 1.3 that is also where a server refuses a client's certificate."""

    async def handshake(self) -> None:
        """Complete the handshake."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                self._feed(await receive_some(self.transport_stream, FEED_SIZE))
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

    # -- receiving --------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Part of ``trio.abc.ReceiveStream``."""
        return bytes(await self.receive(max_bytes or READ_SIZE))

    async def receive(self, max_bytes: int = READ_SIZE) -> Received:
        """What has arrived, at most ``min(max_bytes, READ_SIZE)`` bytes; ``b""`` when the peer has closed.

        It never changes afterwards, and keeps at most twice its size alive.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._outgoing.pending and not self._sending.locked():  # else whoever sends takes it along
            with suppress(trio.BrokenResourceError):  # a peer that hung up may have said why: read on
                await self._flush()
        if (received := self._decrypted(None, max_bytes)) is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
        while received is None:
            received = await self._receive_more(max_bytes)
        return received

    def receive_nowait(self, max_bytes: int = READ_SIZE) -> Received | None:
        """What has arrived, as ``receive`` would give it; None when that would have to wait, or cannot be told."""
        if (received := self._decrypted(None, max_bytes)) is not None:
            return received
        return None if self._socket is None else self._read_nowait(self._socket, max_bytes)

    async def _receive_more(self, max_bytes: int) -> Received | None:
        if self._socket is None:
            return self._decrypted(await self.transport_stream.receive_some(min(max_bytes, _MOST_READ)), max_bytes)
        await wait_readable(self._socket)
        return self._read_nowait(self._socket, max_bytes)

    def _read_nowait(self, stream: trio.SocketStream, max_bytes: int) -> Received | None:
        room = scratch()[_CARRIED:][:max_bytes]
        size = read_into(stream, room)
        return None if size is None else self._decrypted(room[:size], max_bytes)

    def _decrypted(self, ciphertext: Buffer | None, max_bytes: int) -> Received | None:
        """What is complete, ``b""`` at the end; None when nothing is.

        ``ciphertext``: what was read, empty at its end; None when nothing was.
        """
        room = scratch()[:max_bytes]
        if ciphertext is None:
            size, ended = self._drain(room, 0)
        else:
            size, view = 0, memoryview(ciphertext)
            for start in range(0, len(view) or 1, FEED_SIZE):
                self._feed(view[start : start + FEED_SIZE])
                size, ended = self._drain(room, size)
        return given_out(room[:size]) if size or ended else None

    def _feed(self, ciphertext: Buffer) -> None:
        if ciphertext:
            self._incoming.write(ciphertext)
        else:
            self._incoming.write_eof()

    def _drain(self, room: memoryview, size: int) -> tuple[int, bool]:
        """Decrypt what is complete into ``room`` behind its first ``size`` bytes; how many then, and if that is all."""
        try:
            while size < len(room):
                taken = cast(int, self._tls.read(len(room) - size, room[size:]))  # its type speaks of bytes only
                if not taken:
                    return size, True
                size += taken
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return size, True
        except ssl.SSLError as error:
            if not size:  # what is whole counts; the error comes again with the next call
                self.failure = error.with_traceback(None)  # which would hold this stream
                raise trio.BrokenResourceError(f"TLS failed: {error.reason or error}") from error
        return size, False

    # -- sending ----------------------------------------------------------------------------------

    async def send_all(self, data: Buffer) -> None:
        """Part of ``trio.abc.SendStream``."""
        await self.send_gathered([data])

    async def send_gathered(self, buffers: Sequence[Buffer], *, patience: float = math.inf) -> None:
        """Encrypt and send all of ``buffers`` in order.

        Raises ``trio.TooSlowError`` when the peer takes nothing for ``patience`` seconds (``FEED_SIZE`` where the
        transport is no socket).
        """
        await self._become_sender()
        try:
            encrypted, size = [], 0
            for buffer in buffers:
                view = memoryview(buffer)
                for start in range(0, len(view), FEED_SIZE):
                    encrypted.append(self._encrypted(view[start : start + FEED_SIZE]))
                    size += len(encrypted[-1])
                    if size >= self._batch:
                        await self._send(encrypted, patience)
                        encrypted, size = [], 0
            if encrypted:
                await self._send(encrypted, patience)
        finally:
            self._sending.release()

    def _encrypted(self, plaintext: memoryview) -> bytes:
        try:
            self._tls.write(plaintext)
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(f"TLS failed: {error.reason or error}") from error
        return self._outgoing.read()

    async def _become_sender(self) -> None:
        try:
            self._sending.acquire_nowait()  # ``acquire`` gives up its turn even when nobody else sends
        except trio.WouldBlock:
            await self._sending.acquire()

    async def _send(self, encrypted: list[bytes], patience: float) -> None:
        if self._socket is None:
            with trio.fail_after(patience):
                await self.transport_stream.send_all(b"".join(encrypted))
            return
        at_once = await send_gathered(self._socket, encrypted, patience=patience)
        self._batch = min(2 * self._batch, MOST_BATCHED) if at_once else FEED_SIZE

    async def _flush(self) -> None:
        await self._become_sender()
        try:
            if answer := self._outgoing.read():
                await self._send([answer], math.inf)
        finally:
            self._sending.release()

    # -- the end ----------------------------------------------------------------------------------

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


def socket_beneath(stream: trio.abc.Stream) -> trio.SocketStream | None:
    """The socket that carries ``stream``, with TLS or without; None for a stream in memory."""
    inner = stream.transport_stream if isinstance(stream, TlsStream) else stream
    return inner if isinstance(inner, trio.SocketStream) else None
