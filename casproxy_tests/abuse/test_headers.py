"""Header blocks that cost more than they look: each limit is checked before the work it saves is done."""

from __future__ import annotations

import struct

import pytest
from hpack import Encoder
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from trio.testing import MockClock

from casproxy.rpc.api import ServerCall
from casproxy.wire.hpack_encoder import LARGEST_TABLE
from casproxy_tests.abuse.arena import arena
from casproxy_tests.rpc.world import CHAT, chat, to
from casproxy_tests.wire.frames import block, frame

ENHANCE_YOUR_CALM = 11
END_HEADERS, END_STREAM = 4, 1


def integer(number: int, mask: int, first: int = 0) -> bytes:
    """HPACK's integer."""
    if number < mask:
        return bytes([first | number])
    out = bytearray([first | mask])
    number -= mask
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def literal(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    return (b"\x40" if indexed else b"\0") + integer(len(name), 127) + name + integer(len(value), 127) + value


def headers(stream_id: int, encoded: bytes) -> bytes:
    """One header block in as few frames as the default frame size allows."""
    pieces = [encoded[at : at + 16_384] for at in range(0, len(encoded), 16_384)]
    first, rest = pieces[0], pieces[1:]
    frames = [frame(1, END_STREAM | (0 if rest else END_HEADERS), stream_id, first)]
    frames += [frame(9, 0 if rest[number + 1 :] else END_HEADERS, stream_id, one) for number, one in enumerate(rest)]
    return b"".join(frames)


LONG = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(b"a" * 50_000)
HOSTILE = {
    "a hundred CONTINUATION": (frame(1, 0, 1, block()) + frame(9, 0, 1) * 100, "header_block"),
    "nine CONTINUATION": (frame(1, 0, 1, block()) + frame(9, 0, 1) * 8 + frame(9, 4, 1), "header_block"),
    "a block of 1 MB": (headers(1, block() + literal(b"x", bytes(1_000_000))), "header_block"),
    "a block of 32 KiB and a byte": (headers(1, block().ljust(32 * 1024 + 1, b"\x88")), "header_block"),
    "a block of 1 MB in one frame": (frame(1, 4, 1, bytes(1_000_000)), "header_block"),
    "size updates": (headers(1, b"\x20" * 16_000 + block()), "table_size_updates"),
    "three size updates": (headers(1, b"\x20\x20\x20" + block()), "table_size_updates"),
    "a bomb": (headers(1, block() + literal(b"b", bytes(3900), indexed=True) + b"\xbe" * 9), "header_list"),
    "many small fields": (headers(1, block() + b"\x90" * 1000), "header_list"),
    "one large field": (headers(1, block() + literal(b"a", b"z" * 32_700)), "header_list"),
    "a length that lies": (headers(1, block() + b"\0\x01a" + integer(2**30, 127)), "header_list"),
    "a large field in Huffman code": (
        headers(1, block() + b"\0\x01a" + integer(len(LONG), 127, 128) + LONG),
        "header_list",
    ),
}


@pytest.mark.parametrize("attack", HOSTILE)
async def test_hostile_header_blocks(attack: str, mock_clock: MockClock) -> None:
    """Each ends its connection: what was not decoded would have changed the table for what follows."""
    wire, limit = HOSTILE[attack]
    async with arena((CHAT, chat)) as ring:
        attacker = await ring.attacker()
        await attacker.send(wire)
        assert ring.limits == [limit]
        assert attacker.closed
        code, text = attacker.goaway()
        assert code == ENHANCE_YOUR_CALM and text


async def test_what_the_limits_allow(mock_clock: MockClock) -> None:
    """8 CONTINUATION frames, 2 size updates and 31 KiB of fields are a request like any other."""
    encoded = b"\x20\x3f\xe1\x1f" + Encoder().encode([*to(CHAT), (b"k", b"v" * 31_000)])
    step = len(encoded) // 8
    pieces = [encoded[at : at + step] for at in range(0, len(encoded), step)][:9]
    async with arena((CHAT, chat)) as ring:
        attacker = await ring.attacker()
        wire = frame(1, END_STREAM, 1, pieces[0])
        for number, piece in enumerate(pieces[1:], 2):
            wire += frame(9, END_HEADERS if number == len(pieces) else 0, 1, piece)
        await attacker.send(wire)
        assert len(pieces) == 9
        assert attacker.peer.status(1) == 0
        assert not ring.limits


async def test_a_huge_table_offered_to_our_encoder(mock_clock: MockClock) -> None:
    """It keeps to 4096 bytes, so the ten thousandth answer costs what the first did."""

    async def handler(call: ServerCall) -> None:
        call.add_trailing_metadata("x-request-id", call.metadata.get("x-want") or "")

    async with arena((CHAT, handler)) as ring:
        attacker = await ring.attacker(settings={1: 2**32 - 1})
        for batch in range(10):
            for number in range(50):
                attacker.peer.open(to(CHAT, (b"x-want", b"%020d" % (batch * 50 + number))), end=True)
            await attacker.send(b"")
        assert attacker.peer.status(999) == 0
        sizes = [live._protocol._h2.encoder.header_table._current_size for live in ring.world.server._live]
        assert max(sizes) <= LARGEST_TABLE
        assert max(sizes) > LARGEST_TABLE // 2


async def test_changing_ones_mind_about_the_table_is_not_remembered(mock_clock: MockClock) -> None:
    """Two settings a frame, hundreds of frames, no call: the next answer begins with two updates at most."""
    async with arena((CHAT, chat)) as ring:
        attacker = await ring.attacker()
        for size in (100, 200) * 200:
            attacker.peer.output += frame(4, 0, 0, struct.pack(">HI", 1, size))
            await attacker.send(b"", passes=2)
        (changes,) = [
            encoder.table_size_changes
            for live in ring.world.server._live
            if (encoder := live._protocol._h2.encoder).table_size_changes
        ]
        assert changes == [100, 200]
        stream_id = attacker.peer.open(to(CHAT), end=True)
        await attacker.send(b"", passes=3000)  # the peer has been noisy
        assert attacker.peer.status(stream_id) == 0
