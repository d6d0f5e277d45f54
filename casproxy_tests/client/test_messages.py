"""The hand-made protobuf against protobuf."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from casproxy._proto.google.bytestream.bytestream_pb2 import ReadResponse, WriteRequest
from casproxy.client.messages import read_response_data, write_request_head


@given(name=st.text(max_size=300), finish=st.booleans(), data=st.binary(max_size=300))
def test_head_and_data_are_the_message_protobuf_would_have_made(name: str, finish: bool, data: bytes) -> None:
    expected = WriteRequest(resource_name=name, finish_write=finish, data=data)
    assert WriteRequest.FromString(write_request_head(name, finish, len(data)) + data) == expected


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 1024 * 1024, 4 * 1024 * 1024])
def test_data_is_found_without_a_copy(size: int) -> None:
    message = ReadResponse(data=bytes(size)).SerializeToString()
    data = read_response_data(message)
    assert len(data) == size
    assert size == 0 or data.obj is message


@given(st.binary(max_size=300))
def test_unusual_encodings_give_what_protobuf_reads(message: bytes) -> None:
    try:
        expected = ReadResponse.FromString(message).data
    except DecodeError:
        with pytest.raises(DecodeError):
            read_response_data(message)
    else:
        assert read_response_data(message) == expected


def test_last_of_two_data_fields_wins_as_protobuf_says() -> None:
    assert bytes(read_response_data(b"\x52\x01a\x52\x02bc")) == b"bc"
