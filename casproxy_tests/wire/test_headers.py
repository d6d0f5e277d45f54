"""The header rules: wire.md Behaviour 2, 3, 6 and 15. What a peer sees of them is tested in ``rpc``."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.wire import headers
from casproxy.wire.errors import CallRefusal, HttpRefusal, MalformedHeaders, WireError
from casproxy.wire.events import RawHeaders
from casproxy.wire.metadata import Metadata
from casproxy.wire.status import StatusCode, from_http_status
from casproxy_tests.wire.peer import request_fields

names = st.sampled_from(
    b":method :path :scheme :authority :status te content-type grpc-timeout grpc-encoding grpc-status grpc-message "
    b"k k-bin K connection ".split(b" ")
)
values = st.one_of(
    st.sampled_from([b"POST", b"http", b"/a/b", b"trailers", b"application/grpc", b"1S", b"gzip", b"200", b"0"]),
    st.binary(max_size=10),
)


def test_a_plain_request() -> None:
    head = headers.parse_request(request_fields((b"k", b"v"), (b"grpc-accept-encoding", b"identity,gzip")))
    assert head.path == "/t.Test/Call"
    assert head.timeout == math.inf
    assert not head.gzip
    assert head.accepts_gzip
    assert head.metadata == Metadata([("k", "v")])


def test_what_is_not_metadata_of_the_application() -> None:
    extra = [(b"grpc-timeout", b"1S"), (b"content-length", b"5"), (b"host", b"h"), (b"user-agent", b"u")]
    assert headers.parse_request(request_fields(*extra)).metadata == Metadata([("user-agent", "u")])


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        (b"1H", 3600),
        (b"2M", 120),
        (b"3S", 3),
        (b"4m", 0.004),
        (b"5u", 5e-6),
        (b"6n", 6e-9),
        (b"0S", 0),
        (b"99999999H", 359999996400),
    ],
)
def test_b03_timeouts(raw: bytes, seconds: float) -> None:
    assert headers.parse_timeout(raw) == pytest.approx(seconds)


@given(st.floats(0, 1e12))
def test_b03_a_timeout_goes_out_rounded_up_in_eight_digits(seconds: float) -> None:
    raw = headers.format_timeout(seconds)
    assert len(raw) <= 9
    back = headers.parse_timeout(raw)
    if seconds < 3600 * 99_999_999:
        assert seconds * (1 - 1e-9) <= back <= seconds * (1 + 2e-5) + 2e-9


def test_b03_a_timeout_that_has_passed_is_zero() -> None:
    assert headers.format_timeout(-1) == b"0n"


@given(st.lists(st.tuples(names, values), max_size=10), st.booleans())
def test_b11_any_request_is_read_or_refused_and_nothing_else(extra: RawHeaders, valid_first: bool) -> None:
    fields = request_fields(*extra) if valid_first else extra
    try:
        head = headers.parse_request(fields)
    except WireError as error:
        assert isinstance(error, MalformedHeaders | HttpRefusal | CallRefusal)  # noqa: PT017 - either is right
    else:
        assert head.path
        for key, value in head.metadata:
            assert not key.startswith((":", "grpc-"))
            assert isinstance(value, bytes) == key.endswith("-bin")


@given(st.lists(st.tuples(names, values), max_size=10))
def test_b15_any_response_is_read_or_refused_and_nothing_else(fields: RawHeaders) -> None:
    try:
        headers.parse_response(fields)
        headers.parse_trailers(fields)
    except WireError as error:
        assert isinstance(error, MalformedHeaders | CallRefusal)  # noqa: PT017 - either is right


@given(st.sampled_from(list(StatusCode)), st.text(max_size=20), st.binary(max_size=20))
def test_b01_trailers_round_trip(code: StatusCode, message: str, details: bytes) -> None:
    status = headers.parse_trailers(headers.trailers(code, message, details, [("k", "v"), ("k-bin", b"\0")]))
    assert status.code is code
    assert status.message == message.encode("utf-8", "replace").decode()
    assert status.details == details
    assert status.metadata == Metadata([("k", "v"), ("k-bin", b"\0")])


def test_b06_a_response_names_its_encoding_only_when_it_is_not_identity() -> None:
    assert (b"grpc-encoding", b"gzip") in headers.response_headers(gzip=True)
    assert all(name != b"grpc-encoding" for name, _ in headers.response_headers())
    assert (b"grpc-accept-encoding", b"identity,gzip") in headers.response_headers()


def test_a_request_of_ours_passes_our_own_rules() -> None:
    fields = headers.request_headers(
        "/a/b", "host:1", scheme="https", user_agent="casproxy/0", timeout=2.0, custom=Metadata([("k-bin", b"\1")])
    )
    head = headers.parse_request(fields)
    assert head.path == "/a/b"
    assert head.timeout == pytest.approx(2.0)
    assert head.accepts_gzip
    assert head.metadata == Metadata([("user-agent", "casproxy/0"), ("k-bin", b"\1")])


@pytest.mark.parametrize(
    ("http", "code"), [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (502, 14), (503, 14), (504, 14), (500, 2)]
)
def test_b15_the_code_for_an_http_status(http: int, code: int) -> None:
    assert from_http_status(http) == code
