"""Our header decoder against hpack's own, on valid, damaged and random blocks; its limits; our encoder's table.

Both decoders see the same sequence of blocks, as on one connection: same fields or both refuse, and after each block
the same dynamic table. What hpack lets pass and we do not (a third size update) is tested by name.
"""

from __future__ import annotations

import contextlib
import os
import random
from concurrent.futures import ProcessPoolExecutor

import pytest
from hpack import Decoder, Encoder, HPACKError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from casproxy.wire.guard import TooMuch
from casproxy.wire.hpack_decoder import REMEMBERED_BYTES, LeanDecoder
from casproxy.wire.hpack_encoder import LARGEST_TABLE, CappedEncoder

BLOCKS = 5_000_000 if os.environ.get("CASPROXY_SOAK") else 100_000
PARTS = 20
LIMIT = 9_000

_NAMES = [b"x-a", b"x-b", b"grpc-timeout", b"cookie", b"authorization", b":path", b"user-agent", b"a" * 40]
_SIZES = [*[0, 1, 1, 5, 5, 30, 30, 30] * 6, 300, 3000]
_REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/b"), (b"te", b"trailers")]
_COMMON = [b"gzip", b"Bearer eyJhbGciOiJFUzUxMiJ9", b"1S"]


def _fields(rnd: random.Random) -> list[tuple[bytes, bytes, bool]]:
    def value() -> bytes:
        return rnd.choice(_COMMON) if rnd.random() < 0.5 else rnd.randbytes(rnd.choice(_SIZES))

    extra = [(rnd.choice(_NAMES), value(), rnd.random() < 0.2) for _ in range(rnd.randint(0, 3))]
    return [(name, value, False) for name, value in _REQUEST] + extra


def _damage(block: bytes, rnd: random.Random) -> bytes:
    damaged = bytearray(block)
    for _ in range(rnd.randint(1, 3)):
        damaged[rnd.randrange(len(damaged))] = rnd.choice([rnd.randrange(256), 0xFF, 0x3F, 0x80, 0])
    return bytes(damaged[: rnd.randrange(len(damaged) + 1)] if rnd.random() < 0.3 else damaged)


def _block(encoder: Encoder, rnd: random.Random) -> bytes:
    if rnd.random() < 0.05:
        encoder.header_table_size = rnd.choice([0, 100, 2000, 4096])
    block = encoder.encode(_fields(rnd), huffman=rnd.random() < 0.4)
    kind = rnd.random()
    return block if kind < 0.85 else _damage(block, rnd) if kind < 0.95 else rnd.randbytes(rnd.randint(0, 40))


def _same(block: bytes, plain: Decoder, lean: LeanDecoder) -> bool:
    """Both take ``block`` alike; False when they refused it, which ends a connection."""
    wanted = got = refusal = None
    with contextlib.suppress(HPACKError):
        wanted = [tuple(field) for field in plain.decode(block, raw=True)]
    try:
        got = list(lean.decode(block))
    except HPACKError:
        pass
    except TooMuch as error:
        refusal = error.limit
    if refusal == "table_size_updates":
        return False
    assert got == wanted, block.hex()
    assert list(lean.header_table.dynamic_entries) == list(plain.header_table.dynamic_entries) or got is None
    assert lean.header_table_size == plain.header_table_size or got is None
    return got is not None


def _run_part(part: int) -> int:
    done = 0
    seed = part << 32
    while done < BLOCKS // PARTS:
        rnd = random.Random(seed)
        plain, lean, encoder = Decoder(LIMIT), LeanDecoder(), Encoder()
        lean.max_header_list_size = LIMIT
        for _ in range(rnd.randint(1, 30)):
            done += 1
            try:
                if not _same(_block(encoder, rnd), plain, lean):
                    break
            except Exception as error:
                raise AssertionError(f"seed {seed}") from error
        seed += 1
    return done


@pytest.mark.timeout(3600)
def test_it_decodes_as_hpack_does() -> None:
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        assert sum(pool.map(_run_part, range(PARTS))) >= BLOCKS


def _refused(block: bytes, *, limit: int = LIMIT) -> str:
    decoder = LeanDecoder()
    decoder.max_header_list_size = limit
    with pytest.raises(TooMuch) as refusal:
        decoder.decode(block)
    return refusal.value.limit


def test_two_table_size_updates_pass_and_a_third_does_not() -> None:
    assert list(LeanDecoder().decode(b"\x20\x3f\xe1\x1f\x82")) == [(b":method", b"GET")]
    assert _refused(b"\x20\x20\x20") == "table_size_updates"


def test_a_string_is_refused_from_its_length_alone() -> None:
    """Nothing of it has to be there yet, let alone be decoded."""
    length = b"\xff" + _seven_bits(2**31 - 127)
    assert _refused(b"\x00\x01a" + length) == "header_list"
    assert _refused(b"\x00" + length) == "header_list"


def _seven_bits(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def test_a_bomb_is_refused_when_the_list_passes_the_limit() -> None:
    """One entry of 3 KiB and a byte for each further mention of it."""
    entry = b"\x40\x01b\x7f" + _seven_bits(3000 - 127) + b"z" * 3000
    decoder = LeanDecoder()
    decoder.max_header_list_size = LIMIT
    assert len(list(decoder.decode(entry + b"\xbe"))) == 2
    with pytest.raises(TooMuch, match="9000 bytes"):
        decoder.decode(b"\xbe" * 16_000)


def test_the_memory_for_huffman_strings_is_bounded() -> None:
    """Whatever comes, and what is too large to keep is decoded all the same."""
    encoder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    decoder = LeanDecoder()
    for number in range(200):
        value = str(number).encode() * (1 + number % 40 * 30)
        coded = encoder.encode(value)
        block = b"\x00\x01a" + (
            bytes([0x80 | len(coded)]) if len(coded) < 127 else b"\xff" + _seven_bits(len(coded) - 127)
        )
        assert list(decoder.decode(block + coded)) == [(b"a", value)]
        kept = decoder._remembered
        assert sum(len(coded) + len(plain) for coded, plain in kept.items()) <= REMEMBERED_BYTES


def test_our_table_is_capped_whatever_the_peer_offers() -> None:
    encoder = CappedEncoder()
    encoder.header_table_size = 2**32 - 1
    for number in range(2000):
        encoder.encode([(b"x-request-id", b"%020d" % number)])
    assert encoder.header_table._current_size <= LARGEST_TABLE
    assert list(Decoder().decode(encoder.encode([(b"a", b"b")]), raw=True)) == [(b"a", b"b")]


@pytest.mark.parametrize(
    ("sizes", "announced"),
    [
        ([4096], b""),
        ([2**32 - 1], b""),
        ([100], b"\x3f\x45"),
        ([100, 100], b"\x3f\x45"),
        ([0, 2**32 - 1], b"\x20\x3f\xe1\x1f"),
        ([300, 100, 200], b"\x3f\x45\x3f\xa9\x01"),
        ([100, 0, 200, 0], b"\x20"),
        ([1, 2] * 5000, b"\x21\x22"),
    ],
    ids=str,
)
def test_a_changed_table_is_announced_by_its_smallest_and_last_size(sizes: list[int], announced: bytes) -> None:
    encoder = CappedEncoder()
    for size in sizes:
        encoder.header_table_size = size
    assert encoder.encode([(b":method", b"GET")]) == announced + b"\x82"
    assert encoder.encode([(b":method", b"GET")]) == b"\x82"


def test_a_repeated_block_means_what_the_table_says_now() -> None:
    decoder, encoder = LeanDecoder(), Encoder()
    first = [(b"a", b"1"), (b":method", b"POST")]
    assert list(decoder.decode(encoder.encode(first))) == first
    block = encoder.encode(first)
    assert len(block) == 2, "all of it is indexes"
    for value in (b"2", b"3"):
        for _ in range(3):
            assert list(decoder.decode(block)) == first
        first = [(b"a", value), (b":method", b"POST")]
        decoder.decode(encoder.encode([first[0]]))  # one more entry: the same index names another
    with pytest.raises(HPACKError):
        decoder.decode(b"\x20" + block)  # the table is emptied
    with pytest.raises(HPACKError):
        LeanDecoder().decode(block)
