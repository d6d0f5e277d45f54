"""Metadata and status messages: wire.md Behaviour 1 and 7."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.wire.metadata import (
    Metadata,
    decode,
    decode_details,
    decode_message,
    encode,
    encode_details,
    encode_message,
)


@given(st.binary(max_size=50))
def test_b07_binary_round_trip_unpadded(value: bytes) -> None:
    name, raw = encode("k-bin", value)
    assert name == b"k-bin"
    assert not raw.endswith(b"=")
    assert decode(name, raw) == [("k-bin", value)]


@given(st.lists(st.tuples(st.binary(max_size=20), st.booleans()), min_size=1, max_size=5))
def test_b07_binary_is_split_before_decoding_padded_or_not(values: list[tuple[bytes, bool]]) -> None:
    items = [base64.b64encode(value) if padded else base64.b64encode(value).rstrip(b"=") for value, padded in values]
    assert decode(b"k-bin", b",".join(items)) == [("k-bin", value) for value, _ in values]
    assert decode(b"k-bin", b", ".join(items)) == [("k-bin", value) for value, _ in values]


@pytest.mark.parametrize("raw", [b"!", b"A", b"AAAAA", b"AA=A", b"A A", b"AA,!", b"\xff"])
def test_b07_broken_base64(raw: bytes) -> None:
    with pytest.raises(ValueError, match="broken base64"):
        decode(b"k-bin", raw)


@given(st.binary(max_size=30))
def test_b07_decoding_any_binary_value_fails_with_value_error_only(raw: bytes) -> None:
    try:
        decode(b"k-bin", raw)
    except ValueError as error:
        assert "broken base64" in str(error)  # noqa: PT017 - most inputs are broken, some are not


def test_b07_text_outside_ascii_is_kept_byte_for_byte() -> None:
    assert decode(b"k", b"\xc3\xa9") == [("k", "\xc3\xa9")]
    assert decode(b"k", b"a,b") == [("k", "a,b")]


@given(st.text(max_size=20))
def test_b07_nothing_but_printable_ascii_reaches_the_wire(value: str) -> None:
    if all(" " <= char <= "~" for char in value):
        assert encode("k", value) == (b"k", value.encode())
    else:
        with pytest.raises(ValueError, match="printable ASCII"):
            encode("k", value)


@pytest.mark.parametrize("key", ["", "K", "a b", ":path", "grpc-status", "grpc-x-bin", "é", "a\n", "a:b"])
def test_b07_keys_that_never_reach_the_wire(key: str) -> None:
    with pytest.raises(ValueError, match="invalid metadata key"):
        encode(key, "v")


@pytest.mark.parametrize(("key", "value"), [("k-bin", "text"), ("k", b"bytes")])
def test_b07_the_key_decides_what_the_value_is(key: str, value: str | bytes) -> None:
    with pytest.raises(ValueError, match=f"metadata {key} takes"):
        encode(key, value)


def test_b01_the_message_of_the_specification() -> None:
    assert encode_message("né %\n x") == b"n%C3%A9 %25%0A x"


@given(st.text(max_size=50))
def test_b01_messages_round_trip_in_printable_ascii(text: str) -> None:
    raw = encode_message(text)
    assert all(0x20 <= byte <= 0x7E for byte in raw)
    assert decode_message(raw) == text.encode("utf-8", "replace").decode()


@given(st.binary(max_size=50))
def test_b01_decoding_never_fails(raw: bytes) -> None:
    assert isinstance(decode_message(raw), str)


@pytest.mark.parametrize(
    ("raw", "text"), [(b"%zz", "%zz"), (b"%", "%"), (b"%4", "%4"), (b"%C3", "\ufffd"), (b"%41", "A")]
)
def test_b01_a_broken_escape_stays(raw: bytes, text: str) -> None:
    assert decode_message(raw) == text


@given(st.binary(max_size=50))
def test_details_round_trip(details: bytes) -> None:
    name, raw = encode_details(details)
    assert name == b"grpc-status-details-bin"
    assert decode_details(raw) == decode_details(base64.b64encode(details)) == details


def test_broken_details_are_no_details() -> None:
    assert decode_details(b"!!") == b""


def test_the_multi_map() -> None:
    metadata = Metadata([("a", "1"), ("b-bin", b"2"), ("a", "3")])
    assert metadata.get("a") == "1"
    assert metadata.get_all("a") == ["1", "3"]
    assert metadata.get("c") is None
    assert metadata.text("a") == "1"
    assert metadata.text("b-bin") == metadata.text("c") == ""
    assert list(metadata) == [("a", "1"), ("b-bin", b"2"), ("a", "3")]
    assert len(metadata) == 3
    assert metadata == Metadata(metadata)
    assert hash(metadata) == hash(Metadata(metadata))
    assert metadata != Metadata()


def test_a_representation_shows_no_values() -> None:
    assert "secret" not in repr(Metadata([("authorization", "Bearer secret")]))
