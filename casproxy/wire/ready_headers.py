"""Owns header lists that are encoded once and sent as they are. Refuses to know what they say.

The two blocks of a good answer are the same on every call; encoding them each time costs 60 µs in h2 and hpack, a
seventh of a small call. A block that is sent again has to mean the same whatever came before it, so every field is
encoded as a literal that never enters the dynamic table (RFC 7541, 6.2.3), or as an entry of the static one. It is not
Huffman-coded: 20 bytes more a call are cheaper than unpacking them.

``H2.send_ready`` puts such a block on the wire. ``casproxy_tests/wire/test_ready_headers.py`` compares it with h2.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpack import Encoder

from casproxy.wire.events import RawHeaders


class ReadyHeaders(list[tuple[bytes, bytes]]):
    """A header list with its ``block``; where the block cannot be sent, the list still can. Not to be changed."""

    __slots__ = ("block",)

    def __init__(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        super().__init__(fields)
        self.block = _encoded(self)


def _encoded(fields: RawHeaders) -> bytes:
    return Encoder().encode([(name, value, True) for name, value in fields], huffman=False)  # True: never indexed
