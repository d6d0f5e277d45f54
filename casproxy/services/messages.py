"""Owns the step from received bytes to a protobuf message, and the one message that is written by hand.

A ``ReadResponse`` is a tag, a length and the piece itself, so that a payload byte is never copied into a message.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from casproxy.errors import InvalidRequest
from casproxy.rpc.api import ServerCall
from casproxy.storage.api import Piece

M = TypeVar("M", bound=Message)

_READ_RESPONSE_DATA = b"\x52"
"""Field 10, length-delimited (``google/bytestream/bytestream.proto``)."""


async def receive_one(call: ServerCall, kind: type[M]) -> M:
    """The request of a call that takes one message. ``InvalidRequest`` when it is not a ``kind``."""
    raw = await call.receive_message()
    message = kind()
    try:
        message.ParseFromString(raw or b"")
    except DecodeError as error:
        raise InvalidRequest(f"malformed {kind.DESCRIPTOR.name}") from error
    return message


def read_response_prefix(piece: Piece) -> bytes:
    """What goes in front of ``piece`` to make the two of them a ``ReadResponse``."""
    left = len(piece)
    varint = bytearray()
    while left > 0x7F:
        varint.append(left & 0x7F | 0x80)
        left >>= 7
    varint.append(left)
    return _READ_RESPONSE_DATA + varint
