"""Owns the text of the NATS client protocol, as much as a publisher needs. Sans-io: bytes in, messages out, and back.

Source: the NATS client protocol reference (INFO, CONNECT, SUB, HPUB, MSG, HMSG, PING, PONG, +OK, -ERR), and ADR-4 for
the form of headers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

PING: Final = b"PING\r\n"
PONG: Final = b"PONG\r\n"
_CRLF: Final = b"\r\n"
_LONGEST_LINE: Final = 64 * 1024
_LARGEST_PAYLOAD: Final = 1024 * 1024
_HEADER_LINE: Final = b"NATS/1.0"


class BrokenNats(Exception):
    """What the server sent is not NATS."""


@dataclass(frozen=True, slots=True)
class Info:
    """The server's greeting, and what it says again when something changed."""

    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """A message on a subject we subscribed to. ``status``: of its header line, 0 without one (503: nobody listens)."""

    subject: str
    status: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """``-ERR``: the server closes the connection after most of them."""

    text: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Wants a PONG."""


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers our PING."""


Received: TypeAlias = Info | Message | Refusal | Ping | Pong


class Reader:
    """Cuts what a server sends into messages. Of no use after ``BrokenNats``."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiting: list[bytes] | None = None  # the words of a MSG or HMSG whose payload is not complete

    def feed(self, data: bytes) -> list[Received]:
        """Everything that is complete now."""
        self._buffer += data
        return list(self._complete())

    def _complete(self) -> Iterator[Received]:
        while True:
            if self._waiting is not None:
                message = self._payload(self._waiting)
                if message is None:
                    return
                self._waiting = None
                yield message
            line = self._line()
            if line is None:
                return
            received = self._parse(line)
            if received is not None:
                yield received

    def _line(self) -> bytes | None:
        end = self._buffer.find(_CRLF)
        if end > _LONGEST_LINE or (end < 0 and len(self._buffer) > _LONGEST_LINE):
            raise BrokenNats(f"a line of more than {_LONGEST_LINE} bytes")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _parse(self, line: bytes) -> Received | None:
        word, _, rest = line.partition(b" ")
        match word.upper():
            case b"MSG" | b"HMSG":
                self._waiting = line.split()
            case b"PING":
                return Ping()
            case b"PONG":
                return Pong()
            case b"INFO":
                return Info(_json_object(rest))
            case b"-ERR":
                return Refusal(rest.decode("utf-8", "replace").strip(" '"))
            case b"+OK":
                pass
            case _:
                raise BrokenNats(f"an unknown word {word[:20]!r}")
        return None

    def _payload(self, words: list[bytes]) -> Message | None:
        """``MSG subject sid [reply] size`` or ``HMSG subject sid [reply] header-size size``, then that many bytes."""
        has_headers = words[0].upper() == b"HMSG"
        if not 4 + has_headers <= len(words) <= 5 + has_headers:
            raise BrokenNats("a message line of the wrong length")
        size = _size(words[-1])
        header_size = _size(words[-2]) if has_headers else 0
        if header_size > size:
            raise BrokenNats("headers larger than their message")
        if len(self._buffer) < size + 2:
            return None
        body = bytes(self._buffer[:size])
        if self._buffer[size : size + 2] != _CRLF:
            raise BrokenNats("a payload that does not end where it said")
        del self._buffer[: size + 2]
        return Message(words[1].decode("utf-8", "replace"), _status(body[:header_size]), body[header_size:])


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenNats("an INFO that is not JSON") from error
    if not isinstance(value, dict):
        raise BrokenNats("an INFO that is not an object")
    return value


def _size(word: bytes) -> int:
    if not word.isdigit() or len(word) > 7 or int(word) > _LARGEST_PAYLOAD:
        raise BrokenNats("a size that is none, or too large")
    return int(word)


def _status(headers: bytes) -> int:
    """``NATS/1.0 503`` says 503; headers without a status say 0."""
    line = headers.partition(_CRLF)[0]
    if headers and not line.startswith(_HEADER_LINE):
        raise BrokenNats("headers of another version")
    code = line[len(_HEADER_LINE) :].strip()[:3]
    return int(code) if code.isdigit() else 0


def connect(options: Mapping[str, object]) -> bytes:
    """The CONNECT line."""
    return b"CONNECT " + json.dumps(options, separators=(",", ":")).encode() + _CRLF


def subscribe(subject: str, sid: int) -> bytes:
    """The SUB line."""
    return f"SUB {subject} {sid}\r\n".encode()


def publish(subject: str, reply: str, headers: Mapping[str, str], payload: bytes) -> bytes:
    """One HPUB with its payload; the server answers to ``reply``."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"NATS/1.0\r\n{lines}\r\n".encode()
    return b"HPUB %s %s %d %d\r\n%b%b\r\n" % (
        subject.encode(), reply.encode(), len(head), len(head) + len(payload), head, payload
    )  # fmt: skip
