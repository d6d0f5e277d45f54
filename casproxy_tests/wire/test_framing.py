"""The message stream inside DATA: wire.md Behaviour 5 and 6, without a connection around it."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.wire.errors import BrokenMessage
from casproxy.wire.framing import MESSAGE_END, MessageDecoder, MessageStart, Part, encode_message
from casproxy.wire.status import StatusCode
from casproxy_tests.wire.peer import message

LIMIT = 1000
messages_of = st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=6)


def packed(payload: bytes, *, compressed: bool) -> bytes:
    return message(gzip.compress(payload), flags=1) if compressed else message(payload)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


class Collector:
    """Whole messages out of parts; checks the grammar START buffers END on the way."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self._open: list[bytes] | None = None

    def add(self, parts: list[Part]) -> None:
        for part in parts:
            if isinstance(part, MessageStart):
                assert self._open is None
                self._open = []
            elif part is MESSAGE_END:
                assert self._open is not None
                self.messages.append(b"".join(self._open))
                self._open = None
            else:
                assert self._open is not None
                assert len(part), "an empty buffer"
                self._open.append(bytes(part))


def decoded(data: bytes, cuts: list[int], *, max_size: int = LIMIT, pull: int = 1 << 20) -> list[bytes]:
    decoder, collector = MessageDecoder(max_size, gzip=True), Collector()
    for piece in split(data, cuts):
        decoder.push(piece)
        while parts := decoder.pull(pull):
            collector.add(parts)
    decoder.check_complete()
    assert decoder.consumed == len(data)
    return collector.messages


@given(messages_of, st.lists(st.integers(0, 10_000), max_size=20), st.sampled_from([1, 2, 7, 100, 1 << 20]))
def test_b05_any_split_of_any_messages(sent: list[tuple[bytes, bool]], cuts: list[int], pull: int) -> None:
    data = b"".join(packed(payload, compressed=compressed) for payload, compressed in sent)
    assert decoded(data, cuts, pull=pull) == [payload for payload, _ in sent]


@given(st.lists(st.binary(max_size=100), max_size=5), st.booleans())
def test_encoding_is_the_inverse(buffers: list[bytes], compressed: bool) -> None:
    data = b"".join(bytes(buffer) for buffer in encode_message(buffers, gzip=compressed))
    assert decoded(data, []) == [b"".join(buffers)]


def test_encoding_does_not_copy() -> None:
    payload = memoryview(bytes(100))
    prefix, *rest = encode_message([payload])
    assert bytes(prefix) == b"\0\0\0\0d"
    assert rest[0] is payload


def test_a_large_message_comes_in_pieces_without_copies() -> None:
    decoder = MessageDecoder(1 << 30)
    decoder.push(message(bytes(1 << 20))[:5])
    assert decoder.pull(100) == [MessageStart(1 << 20)]
    piece = random.Random(0).randbytes(1000)
    decoder.push(piece)
    first, second = decoder.pull(600), decoder.pull(600)
    assert isinstance(first[0], memoryview)
    assert first[0].obj is piece
    assert [len(part) for part in (*first, *second) if isinstance(part, bytes | memoryview)] == [600, 400]
    assert decoder.pull(600) == []


def test_b05_empty_messages_are_messages() -> None:
    assert decoded(message(b"") * 3, []) == [b"", b"", b""]


def test_b05_a_length_over_the_limit_is_refused_from_five_bytes_and_allocates_nothing() -> None:
    decoder = MessageDecoder(LIMIT)
    tracemalloc.start()
    try:
        decoder.push(b"\0\xff\xff\xff\xff")
        with pytest.raises(BrokenMessage, match="4294967295 bytes is larger than the limit of 1000") as caught:
            decoder.pull(1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED


def test_b05_a_message_of_exactly_the_limit_passes() -> None:
    assert decoded(message(bytes(LIMIT)), []) == [bytes(LIMIT)]


@given(st.binary(max_size=50), st.booleans(), st.integers(1, 10_000))
def test_b05_a_truncated_message_is_an_error(payload: bytes, compressed: bool, cut: int) -> None:
    data = packed(payload, compressed=compressed)
    decoder, collector = MessageDecoder(LIMIT, gzip=True), Collector()
    decoder.push(data[: cut % (len(data) - 1) + 1] if cut % len(data) else data[:1])
    collector.add(decoder.pull(1 << 20))
    assert collector.messages == []
    with pytest.raises(BrokenMessage, match="ended inside a message") as caught:
        decoder.check_complete()
    assert caught.value.code is StatusCode.INTERNAL


@pytest.mark.parametrize("flags", [2, 3, 128, 255])
def test_unknown_flags_are_internal(flags: int) -> None:
    decoder = MessageDecoder(LIMIT, gzip=True)
    decoder.push(message(b"x", flags=flags))
    with pytest.raises(BrokenMessage) as caught:
        decoder.pull(100)
    assert caught.value.code is StatusCode.INTERNAL


def test_b06_compressed_without_an_encoding_is_internal() -> None:
    decoder = MessageDecoder(LIMIT, gzip=False)
    decoder.push(packed(b"x", compressed=True))
    with pytest.raises(BrokenMessage, match="without grpc-encoding") as caught:
        decoder.pull(100)
    assert caught.value.code is StatusCode.INTERNAL


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no gzip",
        gzip.compress(b"x" * 100)[:-1],
        gzip.compress(b"x" * 100)[:-9],
        gzip.compress(b"x")[:-4] + b"1234",
        gzip.compress(b"x") + b"rest",
        gzip.compress(b"x") + gzip.compress(b"y"),
        zlib.compress(b"x"),
    ],
    ids=["nothing", "text", "cut", "no check", "wrong check", "rest", "two members", "zlib"],
)
def test_b06_corrupt_is_internal(body: bytes) -> None:
    for cuts in ([], [6], list(range(200))):
        with pytest.raises(BrokenMessage) as caught:
            decoded(message(body, flags=1), cuts)
        assert caught.value.code is StatusCode.INTERNAL


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=5))
def test_b06_any_bytes_end_in_messages_or_in_its_own_error(data: bytes, cuts: list[int]) -> None:
    try:
        decoded(data, cuts)
    except BrokenMessage as error:
        assert error.code in (StatusCode.INTERNAL, StatusCode.RESOURCE_EXHAUSTED)  # noqa: PT017 - most are broken


@pytest.mark.parametrize("size", [LIMIT + 1, 500_000])
def test_b06_a_bomb_is_inflated_to_one_byte_over_the_limit_at_most(size: int) -> None:
    decoder = MessageDecoder(LIMIT, gzip=True)
    decoder.push(packed(bytes(size), compressed=True))
    inflated = 0
    with pytest.raises(BrokenMessage, match="inflates to more than") as caught:
        while parts := decoder.pull(10):
            inflated += sum(len(part) for part in parts if isinstance(part, bytes | memoryview))
    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED
    assert LIMIT - 10 <= inflated <= LIMIT + 1


def test_b06_a_bomb_allocates_no_more_however_much_is_asked_for() -> None:
    decoder = MessageDecoder(LIMIT, gzip=True)
    decoder.push(packed(bytes(500_000), compressed=True))
    tracemalloc.start()
    try:
        with pytest.raises(BrokenMessage, match="inflates to more than"):
            decoder.pull(1 << 30)
        assert tracemalloc.get_traced_memory()[1] < 100_000  # zlib's own state is most of it
    finally:
        tracemalloc.stop()


def test_b06_a_message_that_inflates_to_exactly_the_limit_passes() -> None:
    assert decoded(packed(bytes(LIMIT), compressed=True), []) == [bytes(LIMIT)]


def test_b06_inflating_takes_no_more_than_was_asked_for() -> None:
    decoder = MessageDecoder(1 << 30, gzip=True)
    decoder.push(packed(bytes(10_000_000), compressed=True))
    while parts := decoder.pull(1000):
        assert sum(len(part) for part in parts if isinstance(part, bytes | memoryview)) <= 1000
    decoder.check_complete()
