"""The written form of an address."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.client.address import Address
from casproxy.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:9001", "127.0.0.1", 9001, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("[::1]:65535", "::1", 65535, True),
        ("10.0.0.1:9001", "10.0.0.1", 9001, False),
        ("[::ffff:10.0.0.1]:1", "::ffff:10.0.0.1", 1, False),
        ("localhost:9001", "localhost", 9001, False),
        ("cas.example.org:443", "cas.example.org", 443, False),
    ],
)
def test_forms(text: str, host: str, port: int, loopback: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.is_loopback()) == (host, port, loopback)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "host", ":1", "host:", "host:0", "host:65536", "host:١", "::1:9001", "http://h:1", "h:1/", "h :1", "h:1\n"],
)
def test_anything_else_is_refused_with_the_form_wanted(text: str) -> None:
    with pytest.raises(InvalidRequest, match="want HOST:PORT"):
        Address.parse(text)


@given(st.text(max_size=80))
def test_nothing_but_its_own_error(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        address = Address.parse(text)
        assert Address.parse(str(address)) == address
