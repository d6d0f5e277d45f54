"""The incremental reader agrees with protobuf on whole messages, however they are cut, and keeps the rules of Write."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from casproxy._proto.google.bytestream.bytestream_pb2 import WriteRequest
from casproxy.errors import InvalidRequest, InvalidResourceName
from casproxy.services.write_request import WriteRequestReader
from casproxy.storage.api import Piece
from casproxy.wire.framing import MESSAGE_END, MessageStart, Part


def parts_of(message: bytes, *cuts: int) -> list[Part]:
    """One message, its bytes cut at ``cuts``."""
    edges = [0, *sorted(cut % (len(message) + 1) for cut in cuts), len(message)]
    runs: list[Part] = [message[start:end] for start, end in itertools.pairwise(edges) if end > start]
    return [MessageStart(len(message)), *runs, MESSAGE_END]


def feed(reader: WriteRequestReader, *messages: bytes, cuts: tuple[int, ...] = ()) -> bytes:
    data: list[Piece] = []
    for message in messages:
        for part in parts_of(message, *cuts):
            reader.feed(part, data)
    return b"".join(data)


def request(name: str = "", data: bytes = b"", *, offset: int = 0, finish: bool = False) -> bytes:
    message = WriteRequest(resource_name=name, data=data, write_offset=offset, finish_write=finish)
    return message.SerializeToString()


@given(
    name=st.text(min_size=1, max_size=300),
    chunks=st.lists(st.binary(max_size=300), min_size=1, max_size=5),
    offsets=st.booleans(),
    cuts=st.lists(st.integers(0, 1_000), max_size=10),
)
def test_it_reads_what_protobuf_writes_however_it_is_cut(
    name: str, chunks: list[bytes], offsets: bool, cuts: list[int]
) -> None:
    reader = WriteRequestReader()
    received = b""
    for number, chunk in enumerate(chunks):
        message = request(
            name if number == 0 else "",
            chunk,
            offset=len(received) if offsets else 0,
            finish=number == len(chunks) - 1,
        )
        received += feed(reader, message, cuts=tuple(cuts))
    assert (reader.resource_name, received, reader.finished) == (name, b"".join(chunks), True)
    assert reader.received == len(received)


def _fields() -> st.SearchStrategy[bytes]:
    """One unknown field of each wire type that a message may have, and fields we know in any order."""
    return st.sampled_from(
        [
            b"\x78\x01",  # 15, a number
            b"\x79" + b"\0" * 8,  # 15, 64 bits
            b"\x7a\x03abc",  # 15, bytes
            b"\x7a\x00",
            b"\x7d" + b"\0" * 4,  # 15, 32 bits
            b"\xf8\xff\xff\xff\x0f\x05",  # the highest field number
            b"\x08\x01",  # 1 as a number is an unknown field
            b"\x0a\x01n",
            b"\x0a\x00",
            b"\x10\x00",
            b"\x18\x01",
            b"\x18\x00",
        ]
    )


@given(before=st.lists(_fields()), after=st.lists(_fields()), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_unknown_fields_and_any_order(before: list[bytes], after: list[bytes], cuts: list[int]) -> None:
    message = b"".join(before) + b"\x0a\x01n" + b"\x52\x02hi" + b"".join(after)
    expected = WriteRequest.FromString(message)
    reader = WriteRequestReader()
    assert feed(reader, message, cuts=tuple(cuts)) == expected.data
    assert reader.finished == expected.finish_write
    assert reader.resource_name == "n"


def outcome_of(message: bytes, *, only: bool) -> tuple[object, ...]:
    reader, data = WriteRequestReader(), list[Piece]()
    try:
        if only:
            reader.read_only(message, data)
        else:
            for part in parts_of(message):
                reader.feed(part, data)
            reader.check_named()
    except InvalidRequest as error:
        return type(error), str(error)
    return reader.resource_name, b"".join(data), reader.received, reader.finished, reader.keepalives


@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(_fields()).map(b"".join),
        st.tuples(st.lists(_fields()), st.lists(_fields())).map(
            lambda around: b"".join([*around[0], b"\x0a\x01n", b"\x52\x02hi", *around[1]])
        ),
        st.builds(
            request,
            st.text(max_size=200),
            st.binary(max_size=300),
            offset=st.sampled_from([0, 0, 1, -1]),
            finish=st.booleans(),
        ),
    )
)
@example(b"\x0a\x01n\x18\x01\x52\x01a\x52\x01b")  # data twice: protobuf takes the last
@example(b"\x0a\x01n\x0a\x01m\x18\x01")
@example(b"\x0a\x01n\x18\x01\x7b\x7c")  # a group
@example(b"\x0a\x81\x00n\x18\x01")  # a length that takes more bytes than it needs
@example(b"\x0a\x01\xff\x18\x01")
@example(request("n" * 5000, b"x", finish=True))
@example(request("n" * 200, b"x" * 16_384, finish=True))
@example(request("n", b"", finish=True))
@example(request("n", b"x" * 127, finish=True))
@example(request("n", b"x" * 128, finish=True))
def test_an_only_message_is_read_as_its_parts_would_be(message: bytes) -> None:
    assert outcome_of(message, only=True) == outcome_of(message, only=False)


def test_the_usual_only_message_is_read_by_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WriteRequestReader, "feed", lambda *_: pytest.fail("it was read in parts"))
    reader, data = WriteRequestReader(), list[Piece]()
    for size in (0, 1, 127, 128, 16_000):
        reader.read_only(request("n" * 150, bytes(size), finish=True), data)
    assert sum(map(len, data)) == 1 + 127 + 128 + 16_000


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_any_bytes_are_read_or_refused(message: bytes, cuts: list[int]) -> None:
    reader = WriteRequestReader()
    try:
        feed(reader, message, cuts=tuple(cuts))
    except InvalidRequest:
        return
    assert reader.resource_name


def test_data_is_passed_through_without_a_copy() -> None:
    reader = WriteRequestReader()
    data: list[Piece] = []
    head, body, tail = request("n", bytes(100))[:-100], bytes(60), bytes(40)
    pushed: list[Part] = [MessageStart(len(head) + 100), head, body, tail, MESSAGE_END]
    for part in pushed:
        reader.feed(part, data)
    assert data[0] is body
    assert data[1] is tail
    data.clear()
    whole = request("", bytes(100))
    for part in parts_of(whole, 0):
        reader.feed(part, data)
    (view,) = data
    assert isinstance(view, memoryview) and view.obj is whole


@pytest.mark.parametrize(
    "messages",
    [
        [b""],
        [request(data=b"x")],
        [request(finish=True)],
        [request(""), request("n")],
    ],
)
def test_the_first_message_names_the_resource(messages: list[bytes]) -> None:
    with pytest.raises(InvalidResourceName, match="resourceName must be set"):
        feed(WriteRequestReader(), *messages)


def test_no_message_at_all_names_nothing() -> None:
    with pytest.raises(InvalidResourceName, match="resourceName must be set"):
        WriteRequestReader().check_named()


def test_later_messages_may_repeat_the_name_or_leave_it_empty() -> None:
    assert feed(WriteRequestReader(), request("n", b"a"), request("n", b"b"), request("", b"c")) == b"abc"


def test_another_name_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="another resource_name"):
        feed(WriteRequestReader(), request("n", b"a"), request("m", b"b"))


@pytest.mark.parametrize("offset", [1, 2, 4, -1, 2**63 - 1, -(2**63)])
def test_an_offset_other_than_the_bytes_received_is_refused(offset: int) -> None:
    with pytest.raises(InvalidRequest, match="write_offset"):
        feed(WriteRequestReader(), request("n", b"abc"), request("", b"d", offset=offset))


@pytest.mark.parametrize("offset", [0, 3])
def test_an_offset_that_is_unset_or_equals_the_bytes_received(offset: int) -> None:
    assert feed(WriteRequestReader(), request("n", b"abc"), request("", b"d", offset=offset)) == b"abcd"


def test_an_offset_in_the_first_message_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="write_offset"):
        feed(WriteRequestReader(), request("n", b"abc", offset=3))


def test_data_after_the_end_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="data after finish_write"):
        feed(WriteRequestReader(), request("n", b"a", finish=True), request("", b"b"))


def test_an_empty_message_after_the_end_is_harmless() -> None:
    assert feed(WriteRequestReader(), request("n", b"a", finish=True), request("", finish=True), b"") == b"a"


def test_messages_without_data_are_keepalives() -> None:
    reader = WriteRequestReader()
    feed(reader, request("n", b"a"), request(), request("n"), request(finish=True))
    assert reader.keepalives == 2


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",
        b"\x0a\x05ab",
        b"\x0a\x01n\x52\x05ab",
        b"\x0a\x01n\x10",
        b"\x0a\x01n\x10\x80",
        b"\x0a\x01n\x79\x00",
        b"\x0a\x01n\x10" + b"\xff" * 11,
        b"\x00\x00",
        b"\x03\x00",
        b"\x0a\x01n\x7b\x7c",
        b"\x0a\x01n" + b"\xf8\xff\xff\xff\x1f\x05",
        b"\x0a\x01n\x52\x01a\x52\x01b",
        b"\x0a\x01\xff",
        b"\x0a\x81\x40" + b"n" * 8193,
    ],
)
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_malformed_messages_are_refused(message: bytes, cut: int) -> None:
    with pytest.raises(InvalidRequest):
        feed(WriteRequestReader(), message, cuts=(cut,))


def test_a_name_that_is_too_long_is_refused_from_its_length() -> None:
    reader = WriteRequestReader()
    reader.feed(MessageStart(2**40), [])
    with pytest.raises(InvalidResourceName, match="too long"):
        reader.feed(b"\x0a\xff\xff\xff\xff\x7f", [])
