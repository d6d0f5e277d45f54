"""The gob reader: what Go writes is read, what nobody should write is refused with our own error, and nothing else."""

from __future__ import annotations

import base64
import os
import random

import pytest

from casproxy import gob
from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy.gob import GobError, Sequence, Struct, decode_struct, encode_resource_name
from casproxy_tests.services.test_resource_name import VECTORS

FUZZ_INPUTS = 1_000_000 if os.environ.get("CASPROXY_SOAK") == "1" else 30_000
STREAMS = [base64.b64decode(vector["resource_name"]) for vector in VECTORS]
AS_CHAINLOOP_DECLARES = [
    vector for vector in VECTORS if vector["resource_name"].startswith("Ov+BAwEBC0NBU1Jlc291cmNl") and vector["digest"]
]


@pytest.mark.parametrize("vector", AS_CHAINLOOP_DECLARES, ids=lambda vector: vector["name"])
def test_our_writer_writes_what_go_writes(vector: dict[str, str]) -> None:
    size = int(vector["size"])
    assert encode_resource_name(vector["file_name"], Digest(vector["digest"]), size) == vector["resource_name"]


def test_unknown_fields_are_read_past() -> None:
    stream = next(STREAMS[n] for n, vector in enumerate(VECTORS) if vector["name"] == "unknown fields are ignored")
    kind, value = decode_struct(stream)
    assert dict(kind.fields).keys() == {"FileName", "Digest", "Extra", "Nested", "M", "F", "Size"}
    assert value["Extra"] == ["a", "b"]
    assert value["Nested"] == {"A": 3, "B": "z"}
    assert value["M"] is None
    assert value["F"] is None


@pytest.mark.parametrize("stream", STREAMS, ids=[vector["name"] for vector in VECTORS])
def test_every_shorter_or_longer_stream_is_refused(stream: bytes) -> None:
    for end in range(len(stream)):
        with pytest.raises(GobError):
            decode_struct(stream[:end])
    with pytest.raises(GobError):
        decode_struct(stream + b"\x00")


def _message(body: bytes) -> bytes:
    return gob._uint(len(body)) + body


def _value(type_id: int, body: bytes) -> bytes:
    return _message(gob._uint(type_id << 1) + body)


def _struct_definition(type_id: int, fields: list[tuple[str, int]]) -> bytes:
    """A ``wireType`` value: field 3 is a struct type, of a common part and a slice of fields."""
    body = b"\x03" + b"\x02" + gob._uint(len(fields))
    for name, field_type in fields:
        body += b"\x01" + gob._text(name) + b"\x01" + gob._uint(field_type << 1) + b"\x00"
    return _message(gob._uint(~-type_id << 1 | 1) + body + b"\x00\x00")


def _sequence_definition(type_id: int, element: int) -> bytes:
    return _message(gob._uint(~-type_id << 1 | 1) + b"\x02" + b"\x02" + gob._uint(element << 1) + b"\x00\x00")


@pytest.mark.parametrize(
    ("field_type", "encoded", "expected"),
    [
        (gob.BOOL, b"\x01", True),
        (gob.INT, b"\x03", -2),
        (gob.UINT, b"\xfe\x01\x00", 256),
        (gob.FLOAT, b"\xfe\x40\x08", None),
        (gob.BYTES, b"\x02ab", b"ab"),
        (gob.STRING, b"\x02ab", "ab"),
        (gob.COMPLEX, b"\x00\x00", None),
    ],
)
def test_primitive_fields(field_type: int, encoded: bytes, expected: object) -> None:
    stream = _struct_definition(70, [("X", field_type)]) + _value(70, b"\x01" + encoded + b"\x00")
    assert decode_struct(stream) == (Struct((("X", field_type),)), {"X": expected})


def test_a_slice_of_slices() -> None:
    stream = (
        _struct_definition(70, [("X", 71)])
        + _sequence_definition(71, 72)
        + _sequence_definition(72, gob.INT)
        + _value(70, b"\x01\x02\x01\x02\x02\x04\x06\x00")
    )
    assert decode_struct(stream)[1] == {"X": [[1], [2, 3]]}
    assert Sequence(72) == Sequence(72, None)


@pytest.mark.parametrize(
    ("why", "stream"),
    [
        ("ends too early", b""),
        ("ends too early", b"\xf8" + b"\xff" * 8),
        ("64 bits", b"\x80"),
        ("not a struct", _value(gob.STRING, b"\x00\x01a")),
        ("not a struct", _value(70, b"\x00")),
        ("not a struct", _sequence_definition(70, gob.INT) + _value(70, b"\x00\x00")),
        ("defined twice", _struct_definition(70, []) * 2 + _value(70, b"\x00")),
        ("defined twice", _struct_definition(16, []) + _value(16, b"\x00")),
        ("too many types", b"".join(_struct_definition(70 + n, []) for n in range(65)) + _value(70, b"\x00")),
        ("exactly one type", _message(gob._uint(~-70 << 1 | 1) + b"\x00")),
        ("two of one name", _struct_definition(70, [("X", 2), ("X", 2)]) + _value(70, b"\x00")),
        ("without a name", _struct_definition(70, [("", 2)]) + _value(70, b"\x00")),
        ("beyond the last", _struct_definition(70, [("X", 2)]) + _value(70, b"\x02\x02\x00")),
        ("not defined", _struct_definition(70, [("X", 99)]) + _value(70, b"\x01\x02\x00")),
        ("not supported", _struct_definition(70, [("X", 8)]) + _value(70, b"\x01\x00\x00")),
        ("UTF-8", _struct_definition(70, [("X", 6)]) + _value(70, b"\x01\x01\xff\x00")),
        ("left over", _struct_definition(70, [("X", 2)]) + _value(70, b"\x01\x02\x00\x00")),
        (
            "more elements",
            _struct_definition(70, [("X", 71)])
            + _sequence_definition(71, gob.INT)
            + _value(70, b"\x01\xf8" + b"\xff" * 8 + b"\x00"),
        ),
        (
            "too deeply",
            _struct_definition(70, [("X", 71)]) + _sequence_definition(71, 71) + _value(70, b"\x01" * 200),
        ),
        ("too long", b"\x00" * 8193),
    ],
)
def test_hostile_streams(why: str, stream: bytes) -> None:
    with pytest.raises(GobError, match=why):
        decode_struct(stream)


def test_random_and_mutated_streams_raise_nothing_else() -> None:
    """A million under CASPROXY_SOAK=1. Half of the inputs are random, half are what Go wrote, damaged."""
    source = random.Random(20_240_229)
    read = 0
    for number in range(FUZZ_INPUTS):
        data = source.randbytes(source.randrange(200)) if number % 2 else _damaged(source)
        try:
            decode_struct(data)
        except GobError:
            continue
        read += 1
    assert 0 < read < FUZZ_INPUTS


def _damaged(source: random.Random) -> bytes:
    stream = bytearray(source.choice(STREAMS))
    for _ in range(source.randrange(1, 6)):
        position = source.randrange(len(stream) + 1)
        match source.randrange(4):
            case 0:
                stream[position:position] = source.randbytes(source.randrange(1, 9))
            case 1:
                del stream[position : position + source.randrange(1, 9)]
            case 2:
                stream[position : position + 1] = bytes((source.choice((0, 1, 0x7F, 0x80, 0xF8, 0xFE, 0xFF)),))
            case _:
                other = source.choice(STREAMS)
                start = source.randrange(len(other))
                stream[position:position] = other[start : start + source.randrange(60)]
    return bytes(stream)


def test_the_empty_artifact_has_a_name() -> None:
    name = encode_resource_name("", EMPTY_DIGEST)
    assert decode_struct(base64.b64decode(name))[1] == {"Digest": EMPTY_DIGEST.hex}
