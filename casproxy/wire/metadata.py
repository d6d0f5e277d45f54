"""Owns gRPC metadata: its limits, ``-bin`` encoding and the percent-encoding of messages. Refuses to know HPACK.

Source: gRPC PROTOCOL-HTTP2.md, "Custom-Metadata" and "Status-Message".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote_to_bytes

Value = str | bytes

_KEY = re.compile(r"[0-9a-z_.\-]+")
_TEXT = re.compile(r"[\x20-\x7e]*")


class Metadata:
    """An immutable multi-map: lower-case keys, ``str`` values, ``bytes`` values under ``-bin`` keys; order is kept."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[str, Value]] = ()) -> None:
        self._items = tuple(items)

    def get(self, key: str) -> Value | None:
        """The first value of ``key``, or None."""
        for name, value in self._items:
            if name == key:
                return value
        return None

    def text(self, key: str) -> str:
        """The first value of ``key`` as text, ``""`` when absent or binary."""
        value = self.get(key)
        return value if isinstance(value, str) else ""

    def get_all(self, key: str) -> list[Value]:
        """Every value of ``key``, in order."""
        return [value for name, value in self._items if name == key]

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Metadata) and self._items == other._items

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return f"<Metadata: {', '.join(name for name, _ in self._items)}>"  # values may be tokens


def encode(key: str, value: Value) -> tuple[bytes, bytes]:
    """One entry as HTTP/2 header bytes. ``ValueError`` for what must never reach the wire (CR, LF, NUL …)."""
    if not _KEY.fullmatch(key) or key.startswith("grpc-"):
        raise ValueError(f"invalid metadata key {key!r}")
    if key.endswith("-bin"):
        if not isinstance(value, bytes):
            raise ValueError(f"metadata {key} takes bytes")
        return key.encode(), base64.b64encode(value).rstrip(b"=")
    if not isinstance(value, str) or not _TEXT.fullmatch(value):
        raise ValueError(f"metadata {key} takes printable ASCII")
    return key.encode(), value.encode()


def decode(name: bytes, raw: bytes) -> list[tuple[str, Value]]:
    """One header as entries: a ``-bin`` value may hold several, split on ``,``, padded or not.

    Raises ``ValueError`` for broken base64. Text outside ASCII is kept byte for byte (latin-1), as other peers do.
    """
    key = name.decode("latin-1")
    if not key.endswith("-bin"):
        return [(key, raw.decode("latin-1"))]
    return [(key, _unbase64(item.strip())) for item in raw.split(b",")]


def _unbase64(raw: bytes) -> bytes:
    padded = raw + b"=" * (-len(raw) % 4)
    try:
        return base64.b64decode(padded, validate=True)
    except binascii.Error as error:
        raise ValueError("broken base64 in binary metadata") from error


def encode_message(message: str) -> bytes:
    """Percent-encode a status message: printable ASCII but ``%`` stays as it is."""
    return quote(message.encode("utf-8", "replace"), safe=_MESSAGE_SAFE).encode()


def decode_message(raw: bytes) -> str:
    """The inverse; never fails: a broken escape stays as it is."""
    return unquote_to_bytes(raw).decode("utf-8", "replace")


_MESSAGE_SAFE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def encode_details(details: bytes) -> tuple[bytes, bytes]:
    """``grpc-status-details-bin``: a serialised ``google.rpc.Status``."""
    return b"grpc-status-details-bin", base64.b64encode(details).rstrip(b"=")


def decode_details(raw: bytes) -> bytes:
    """The inverse; broken base64 is no details, since the status itself is what matters."""
    try:
        return _unbase64(raw.strip())
    except ValueError:
        return b""
