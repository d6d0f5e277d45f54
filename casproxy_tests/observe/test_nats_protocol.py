"""The NATS text protocol, without a socket: whatever way it is cut, and whatever a server sends."""

from __future__ import annotations

import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from casproxy.observe import nats_protocol as wire
from casproxy.observe.nats_protocol import BrokenNats, Info, Message, Ping, Pong, Reader, Refusal

STREAM = (
    b'INFO {"max_payload":1048576,"headers":true}\r\n'
    b"PING\r\n+OK\r\nPONG\r\n"
    b'MSG _INBOX.a.1 1 13\r\n{"seq": 1234}\r\n'
    b"MSG _INBOX.a.2 1 answer.to 0\r\n\r\n"
    b"HMSG _INBOX.a.3 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"HMSG _INBOX.a.4 1 r 18 20\r\nNATS/1.0\r\na: b\r\n\r\nhi\r\n"
    b"-ERR 'Authorization Violation'\r\n"
)
MESSAGES = [
    Info({"max_payload": 1048576, "headers": True}),
    Ping(),
    Pong(),
    Message("_INBOX.a.1", 0, b'{"seq": 1234}'),
    Message("_INBOX.a.2", 0, b""),
    Message("_INBOX.a.3", 503, b""),
    Message("_INBOX.a.4", 0, b"hi"),
    Refusal("Authorization Violation"),
]


@hypothesis.given(cuts=st.lists(st.integers(0, len(STREAM))))
def test_messages_are_the_same_however_they_arrive(cuts: list[int]) -> None:
    reader, received = Reader(), list[wire.Received]()
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(edges):
        received += reader.feed(STREAM[start:end])
    assert received == MESSAGES


@hypothesis.given(data=st.lists(st.sampled_from([*STREAM.splitlines(keepends=True), b"\r\n", b"MSG", b"9"])))
def test_shuffled_words_are_messages_or_broken(data: list[bytes]) -> None:
    feed(b"".join(data))


@hypothesis.given(data=st.binary())
def test_random_bytes_are_messages_or_broken(data: bytes) -> None:
    feed(data)


def feed(data: bytes) -> None:
    """Anything but ``BrokenNats`` fails the test."""
    reader = Reader()
    try:
        for start in range(0, len(data), 7):
            reader.feed(data[start : start + 7])
    except BrokenNats:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"HELLO\r\n",
        b"INFO []\r\n",
        b"INFO {\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 r x 1\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 99999999\r\n",
        b"MSG a 1 2000000\r\n",
        b"MSG a 1 1\r\nxyz",
        b"HMSG a 1 5 4\r\nabcd\r\n",
        b"HMSG a 1 4 4\r\nHTTP\r\n",
        b"x" * 70_000,
        b"PING" + b" " * 70_000 + b"\r\n",
    ],
)
def test_what_is_not_nats(data: bytes) -> None:
    with pytest.raises(BrokenNats):
        Reader().feed(data)


def test_a_publication_reads_back() -> None:
    sent = wire.publish("audit.x", "_INBOX.a.1", {"Nats-Msg-Id": "7"}, b"{}")
    assert sent == b"HPUB audit.x _INBOX.a.1 28 30\r\nNATS/1.0\r\nNats-Msg-Id: 7\r\n\r\n{}\r\n"
    as_delivered = sent.replace(b"HPUB audit.x _INBOX.a.1", b"HMSG audit.x 1 _INBOX.a.1")
    assert Reader().feed(as_delivered) == [Message("audit.x", 0, b"{}")]


def test_the_greeting() -> None:
    assert wire.connect({"auth_token": 'a"b'}) == b'CONNECT {"auth_token":"a\\"b"}\r\n'
    assert wire.subscribe("_INBOX.a.*", 1) == b"SUB _INBOX.a.* 1\r\n"
