"""Owns the two protobuf messages that carry artifact bytes, by hand. Refuses to know what travels in them.

protobuf's own encoder would copy every megabyte twice. Here only what stands before the bytes is encoded, and the bytes
are passed on as they are. Source: the protobuf encoding guide; ``google/bytestream/bytestream.proto``.
"""

from __future__ import annotations

from casproxy._proto.google.bytestream.bytestream_pb2 import ReadResponse

_NAME, _FINISH, _DATA = b"\x0a", b"\x18\x01", b"\x52"  # fields 1 and 10 (length-delimited), field 3 (varint) = true


def write_request_head(resource_name: str, finish_write: bool, size: int) -> bytes:
    """A ``WriteRequest`` up to the ``size`` bytes of its ``data``, which follow as a buffer of their own."""
    head = b""
    if resource_name:
        name = resource_name.encode()
        head = _NAME + _varint(len(name)) + name
    if finish_write:
        head += _FINISH
    return head + _DATA + _varint(size) if size else head


def read_response_data(message: bytes) -> memoryview:
    """The ``data`` of a ``ReadResponse``, without a copy in the form every server sends.

    Any other valid encoding goes the slow way; raises ``google.protobuf.message.DecodeError`` for nonsense.
    """
    if message[:1] == _DATA:
        size, start = _read_varint(message, 1)
        if start + size == len(message):
            return memoryview(message)[start:]
    return memoryview(ReadResponse.FromString(message).data)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: bytes, start: int) -> tuple[int, int]:
    """The value and the index after it; -1 for what does not end within five bytes."""
    value = 0
    for index in range(start, min(start + 5, len(message))):
        value |= (message[index] & 0x7F) << (7 * (index - start))
        if message[index] < 0x80:
            return value, index + 1
    return -1, start
