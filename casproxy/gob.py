"""Owns the little of Go's gob encoding that resource names need. Refuses to know what the fields mean.

A gob stream is a row of messages: a byte count, a type id, and either a type definition (negative id) or a value
(positive id). Type ids, field order and additional fields differ from sender to sender, so a reader learns the type
from the stream and never compares bytes. Source: the package documentation of Go's ``encoding/gob``.

The reader treats its input as hostile: every value takes at least one byte, every count is checked against the bytes
that are left, nesting is bounded, and nothing but ``GobError`` is raised. Interface values are refused: nothing that
sends resource names has them, and they would bring type definitions into the middle of a value.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from casproxy.digest import Digest

MAX_GOB_BYTES = 8 * 1024
"""The longest stream the reader looks at, in bytes."""
MAX_DEPTH = 24
"""The deepest nesting of values; Go's own senders need four to define a type."""
MAX_TYPES = 64
"""The most type definitions in one stream."""

Value: TypeAlias = "bool | int | str | bytes | list[Value] | dict[str, Value] | None"
"""``None`` stands for what is skipped but never used: floats, complex numbers, maps and opaque values."""

BOOL, INT, UINT, FLOAT, BYTES, STRING, COMPLEX = 1, 2, 3, 4, 5, 6, 7
"""Go's own type ids. 8 is the interface, 16 the type definition; both ends know those below 24 without a definition."""
_DEFINITION, _FIRST_SENT_ID = 16, 24
_DEFINITIONS = 64
"""Type definitions that are kept decoded; half a megabyte of them at most."""


class GobError(ValueError):
    """The bytes are not a gob of one struct, or they go beyond the bounds above."""


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct type: its fields' names and type ids, in the order of the sender."""

    fields: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """A slice (``length`` None) or an array type."""

    element: int
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Map:
    """A map type."""

    key: int
    element: int


@dataclass(frozen=True, slots=True)
class Opaque:
    """A type that marshals itself: a counted run of bytes."""


Type: TypeAlias = Struct | Sequence | Map | Opaque

_KNOWN: Mapping[int, Type] = {
    _DEFINITION: Struct(
        (
            ("array", 17),
            ("slice", 19),
            ("struct", 20),
            ("map", 23),
            ("gob encoder", 22),
            ("binary marshaler", 22),
            ("text marshaler", 22),
        )
    ),
    17: Struct((("common", 18), ("element", INT), ("length", INT))),
    18: Struct((("name", STRING), ("id", INT))),
    19: Struct((("common", 18), ("element", INT))),
    20: Struct((("common", 18), ("fields", -1))),
    21: Struct((("name", STRING), ("id", INT))),
    22: Struct((("common", 18),)),
    23: Struct((("common", 18), ("key", INT), ("element", INT))),
    -1: Sequence(21),
}
"""How a type definition is itself written: the types of Go's ``wireType``, so that one reader serves both."""


def decode_struct(data: bytes) -> tuple[Struct, dict[str, Value]]:
    """Read the one struct value of a gob stream, with its type; zero fields are absent. Raises ``GobError``."""
    if len(data) > MAX_GOB_BYTES:
        raise GobError(f"a gob of {len(data)} bytes is too long")
    stream = _Cursor(data)
    types: dict[int, Type] = dict(_KNOWN)
    while True:
        message = stream.message()
        type_id = message.read_int()
        if type_id >= 0:
            break
        if -type_id < _FIRST_SENT_ID or -type_id in types or len(types) >= MAX_TYPES + len(_KNOWN):
            raise GobError(f"type {-type_id} is defined twice, or too many types")
        types[-type_id] = _defined_type(message.rest())
    kind = types.get(type_id) if type_id >= _FIRST_SENT_ID else None
    if not isinstance(kind, Struct):
        raise GobError("the value is not a struct")
    value = message.read_struct(types, type_id, 0)
    message.end()
    stream.end()
    return kind, value


@lru_cache(maxsize=_DEFINITIONS)
def _defined_type(encoded: bytes) -> Type:
    """The type a ``wireType`` value describes. Every call of a program brings the same, and it is half of the work."""
    message = _Cursor(encoded)
    definition = message.read_struct(_KNOWN, _DEFINITION, 0)
    message.end()
    if len(definition) != 1:
        raise GobError("a type definition defines exactly one type")
    ((kind, body),) = definition.items()
    if not isinstance(body, dict):
        raise GobError("a broken type definition")
    if kind == "struct":
        return _defined_struct(body.get("fields", []))
    if kind == "map":
        return Map(_number(body, "key"), _number(body, "element"))
    if kind == "slice":
        return Sequence(_number(body, "element"))
    if kind == "array":
        return Sequence(_number(body, "element"), _number(body, "length"))
    return Opaque()


def _defined_struct(fields: Value) -> Struct:
    if not isinstance(fields, list):
        raise GobError("a broken type definition")
    named: dict[str, int] = {}
    for field in fields:
        name = field.get("name", "") if isinstance(field, dict) else ""
        if not isinstance(field, dict) or not isinstance(name, str) or not name or name in named:
            raise GobError("a field without a name, or two of one name")
        named[name] = _number(field, "id")
    return Struct(tuple(named.items()))


def _number(body: dict[str, Value], key: str) -> int:
    value = body.get(key, 0)
    if not isinstance(value, int):
        raise GobError("a broken type definition")
    return value


class _Cursor:
    """A place in a run of bytes; reads the primitives and values of gob."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def end(self) -> None:
        if self._position != len(self._data):
            raise GobError("bytes are left over")

    def take(self, count: int) -> bytes:
        start = self._position
        if count > len(self._data) - start:
            raise GobError("the gob ends too early")
        self._position = start + count
        return self._data[start : self._position]

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._position)

    def message(self) -> _Cursor:
        return _Cursor(self.take(self.read_uint()))

    def read_uint(self) -> int:
        """Below 128 one byte; else a byte that holds the negated count of big-endian bytes that follow."""
        first = self.take(1)[0]
        if first < 128:
            return first
        count = 256 - first
        if count > 8:
            raise GobError("an integer of more than 64 bits")
        return int.from_bytes(self.take(count), "big")

    def read_int(self) -> int:
        """The sign is the lowest bit; a negative number is complemented."""
        raw = self.read_uint()
        return ~(raw >> 1) if raw & 1 else raw >> 1

    def read_text(self) -> str:
        try:
            return self.take(self.read_uint()).decode()
        except UnicodeDecodeError as error:
            raise GobError("a string is not UTF-8") from error

    def read_struct(self, types: Mapping[int, Type], type_id: int, depth: int) -> dict[str, Value]:
        """Fields come as the distance from the field before, then the value; distance 0 ends the struct."""
        kind = types[type_id]
        assert isinstance(kind, Struct)  # noqa: S101 - the callers looked
        values: dict[str, Value] = {}
        index = -1
        while distance := self.read_uint():
            index += distance
            if index >= len(kind.fields):
                raise GobError("a field beyond the last one")
            name, field_type = kind.fields[index]
            values[name] = self.read_value(types, field_type, depth + 1)
        return values

    def read_value(self, types: Mapping[int, Type], type_id: int, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise GobError("nested too deeply")
        if type_id in _PRIMITIVES:
            return _PRIMITIVES[type_id](self)
        kind = types.get(type_id)
        if isinstance(kind, Struct):
            return self.read_struct(types, type_id, depth)
        if isinstance(kind, Sequence):
            return self._sequence(types, kind, depth)
        if isinstance(kind, Map):
            for _ in range(self._count(per_element=2)):
                self.read_value(types, kind.key, depth + 1)
                self.read_value(types, kind.element, depth + 1)
            return None
        if isinstance(kind, Opaque):
            self.take(self.read_uint())
            return None
        raise GobError(f"a value of type {type_id}, which is not defined or not supported")

    def _sequence(self, types: Mapping[int, Type], kind: Sequence, depth: int) -> Value:
        count = self._count(per_element=1)
        if kind.length is not None and count != kind.length:
            raise GobError("an array of another length than its type")
        return [self.read_value(types, kind.element, depth + 1) for _ in range(count)]

    def _count(self, per_element: int) -> int:
        """A count of elements that can still fit: each takes at least one byte."""
        count = self.read_uint()
        if count * per_element > len(self._data) - self._position:
            raise GobError("more elements than bytes")
        return count

    def read_bool(self) -> bool:
        return self.read_uint() != 0

    def read_bytes(self) -> bytes:
        return self.take(self.read_uint())

    def skip_float(self) -> None:
        self.read_uint()

    def skip_complex(self) -> None:
        self.read_uint()
        self.read_uint()


_PRIMITIVES = {
    BOOL: _Cursor.read_bool,
    INT: _Cursor.read_int,
    UINT: _Cursor.read_uint,
    FLOAT: _Cursor.skip_float,
    BYTES: _Cursor.read_bytes,
    STRING: _Cursor.read_text,
    COMPLEX: _Cursor.skip_complex,
}


_CAS_RESOURCE = base64.b64decode("Ov+BAwEBC0NBU1Jlc291cmNlAf+CAAEDAQhGaWxlTmFtZQEMAAEGRGlnZXN0AQwAAQRTaXplAQQAAAA=")
"""The definition of ``struct CASResource {FileName string; Digest string; Size int64}`` as type 65, as Go writes it."""


def encode_resource_name(file_name: str, digest: Digest, size: int = 0) -> str:
    """The resource name Chainloop's Go client sends on Write: base64 of the gob of a ``CASResource``.

    ``size`` in bytes; 0 means unknown, as zero fields are left out. Any 64-bit ``size`` is written.
    """
    body = bytearray(b"\xff\x82")  # the value's type id, 65
    skipped = 1
    for encoded in (_text(file_name), _text(digest.hex), _uint(size << 1) if size >= 0 else _uint(~size << 1 | 1)):
        if encoded == b"\x00":
            skipped += 1
            continue
        body.append(skipped)
        body += encoded
        skipped = 1
    body.append(0)
    return base64.b64encode(_CAS_RESOURCE + _uint(len(body)) + body).decode()


def _text(text: str) -> bytes:
    raw = text.encode()
    return _uint(len(raw)) + raw


def _uint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    count = (value.bit_length() + 7) // 8
    return bytes((256 - count,)) + value.to_bytes(count, "big")
