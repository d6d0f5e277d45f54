"""Owns the header rules of gRPC over HTTP/2: what is malformed, what is refused, what a call asks for.

Refuses to know streams and frames. Sources: RFC 9113, 8.1-8.3; gRPC PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from casproxy.wire import metadata
from casproxy.wire.errors import CallRefusal, HttpRefusal, MalformedHeaders
from casproxy.wire.events import RawHeaders
from casproxy.wire.metadata import Metadata, Value
from casproxy.wire.ready_headers import ReadyHeaders
from casproxy.wire.status import StatusCode, from_http_status

CONTENT_TYPE = b"application/grpc"
ACCEPT_ENCODING = b"identity,gzip"

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_USUAL_NAMES = frozenset(
    (b"content-type", b"user-agent", b"authorization", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding")
)
"""Need no look at their characters."""
_NUL, _CR, _LF = 0, 13, 10
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_STATUS = re.compile(rb"\d{1,3}")
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_CONNECTION_SPECIFIC = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
RESPONSE = ReadyHeaders(
    [(b":status", b"200"), (b"content-type", CONTENT_TYPE), (b"grpc-accept-encoding", ACCEPT_ENCODING)]
)
"""The headers before the first message of a call that went well, and what ends it."""
OK = ReadyHeaders([(b"grpc-status", b"0")])
_TRANSPORT = frozenset((b"te", b"content-type", b"content-length", b"host"))


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What the headers of a gRPC request ask for. ``timeout`` in seconds, ``math.inf`` when unset."""

    path: str
    timeout: float
    gzip: bool
    """The request's messages may be gzip-compressed."""
    accepts_gzip: bool
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class CallStatus:
    """How a call ended, from its trailers."""

    code: StatusCode
    message: str
    details: bytes
    metadata: Metadata


def check_fields(headers: RawHeaders, *, pseudo: frozenset[bytes]) -> dict[bytes, bytes]:
    """Check every field against RFC 9113, 8.2-8.3; returns the pseudo-headers, or raises ``MalformedHeaders``."""
    seen: dict[bytes, bytes] = {}
    regular = False
    for name, value in headers:
        if name[:1] == b":":
            if regular or name not in pseudo or name in seen:
                raise MalformedHeaders(f"misplaced or unknown pseudo-header {name!r}")
            seen[name] = value
        else:
            regular = True
            if name not in _USUAL_NAMES:
                if not _NAME.fullmatch(name) or name in _CONNECTION_SPECIFIC:
                    raise MalformedHeaders(f"forbidden header {name!r}")
                if name == b"te" and value != b"trailers":
                    raise MalformedHeaders("te is not trailers")
        # tokens are long: octets are looked for at memchr's speed, where an expression takes 6 us
        if _NUL in value or _CR in value or _LF in value or len(value.strip(b" \t")) != len(value):
            raise MalformedHeaders(f"forbidden character in the value of {name!r}")
    return seen


def parse_request(headers: RawHeaders) -> RequestHead:
    """Read the headers of a request; raises ``MalformedHeaders``, ``HttpRefusal`` or ``CallRefusal``."""
    pseudo = check_fields(headers, pseudo=_REQUEST_PSEUDO)
    if b":method" not in pseudo or b":scheme" not in pseudo or not pseudo.get(b":path"):
        raise MalformedHeaders("a request needs :method, :scheme and :path")
    fields = dict(headers)
    if pseudo[b":method"] != b"POST":
        raise HttpRefusal(405)
    if fields.get(b"content-type") != CONTENT_TYPE:
        kind = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind not in (CONTENT_TYPE, CONTENT_TYPE + b"+proto"):
            raise HttpRefusal(415)
    encoding = fields.get(b"grpc-encoding", b"identity")
    if encoding not in (b"identity", b"gzip"):
        raise CallRefusal(StatusCode.UNIMPLEMENTED, "grpc-encoding is not supported")
    accepted = [item.strip() for item in fields.get(b"grpc-accept-encoding", b"").split(b",")]
    return RequestHead(
        path=pseudo[b":path"].decode("latin-1"),
        timeout=parse_timeout(fields[b"grpc-timeout"]) if b"grpc-timeout" in fields else math.inf,
        gzip=encoding == b"gzip",
        accepts_gzip=b"gzip" in accepted,
        metadata=custom_metadata(headers),
    )


def parse_timeout(raw: bytes) -> float:
    """``grpc-timeout`` in seconds; a malformed one is refused with INTERNAL, as other servers do."""
    match = _TIMEOUT.fullmatch(raw)
    if match is None:
        raise CallRefusal(StatusCode.INTERNAL, "malformed grpc-timeout")
    return int(match[1]) * _UNIT_SECONDS[match[2]]


def format_timeout(seconds: float) -> bytes:
    """The inverse: at most eight digits, in the finest unit that fits, rounded up."""
    for unit, size in ((b"n", 1e-9), (b"u", 1e-6), (b"m", 1e-3), (b"S", 1.0), (b"M", 60.0)):
        count = math.ceil(max(seconds, 0.0) / size)
        if count < 10**8:
            return b"%d%s" % (count, unit)
    return b"%dH" % min(math.ceil(seconds / 3600), 10**8 - 1)


def custom_metadata(headers: RawHeaders) -> Metadata:
    """The application's own entries; broken base64 is refused with INTERNAL."""
    entries: list[tuple[str, Value]] = []
    for name, value in headers:
        if name[:1] == b":" or name in _TRANSPORT or name.startswith(b"grpc-"):
            continue
        try:
            entries += metadata.decode(name, value)
        except ValueError as error:
            raise CallRefusal(StatusCode.INTERNAL, str(error)) from error
    return Metadata(entries)


def request_headers(
    path: str, authority: str, *, scheme: str, user_agent: str, timeout: float, custom: Iterable[tuple[str, Value]]
) -> RawHeaders:
    """The headers of a request of ours."""
    headers = [
        (b":method", b"POST"),
        (b":scheme", scheme.encode()),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"te", b"trailers"),
        (b"content-type", CONTENT_TYPE),
        (b"user-agent", user_agent.encode()),
        (b"grpc-accept-encoding", ACCEPT_ENCODING),
    ]
    if timeout < math.inf:
        headers.append((b"grpc-timeout", format_timeout(timeout)))
    return headers + [metadata.encode(key, value) for key, value in custom]


def plain_headers(http_status: int) -> RawHeaders:
    """The headers of an answer to a request that is not gRPC."""
    return [(b":status", b"%d" % http_status), (b"content-type", b"text/plain; charset=utf-8")]


def response_headers(*, gzip: bool = False) -> RawHeaders:
    """The headers before the first message. They name an encoding only when it is not identity."""
    return [*RESPONSE, (b"grpc-encoding", b"gzip")] if gzip else RESPONSE


def trailers(
    code: StatusCode, message: str = "", details: bytes = b"", custom: Collection[tuple[str, Value]] = ()
) -> RawHeaders:
    """The status as trailers; put ``response_headers()`` in front of them for Trailers-Only."""
    if code is StatusCode.OK and not (message or details or custom):
        return OK
    fields = [(b"grpc-status", b"%d" % code)]
    if message:
        fields.append((b"grpc-message", metadata.encode_message(message)))
    if details:
        fields.append(metadata.encode_details(details))
    return fields + [metadata.encode(key, value) for key, value in custom]


def parse_response(headers: RawHeaders) -> None:
    """Check the headers of a response; raises ``CallRefusal`` with the code the caller is to see.

    A response without a valid content type or with another HTTP status did not come from a gRPC server.
    """
    pseudo = check_fields(headers, pseudo=frozenset((b":status",)))
    raw = pseudo.get(b":status", b"")
    if not _STATUS.fullmatch(raw):
        raise MalformedHeaders("a response needs :status")
    status = int(raw)
    fields = dict(headers)
    if b"grpc-status" in fields:
        return  # whatever else is odd about it, this is what the server wants to say
    if status != 200:
        raise CallRefusal(from_http_status(status), f"the server answered HTTP {status}")
    if not fields.get(b"content-type", b"").startswith(CONTENT_TYPE):
        raise CallRefusal(StatusCode.UNKNOWN, "the server's answer is not gRPC")
    if fields.get(b"grpc-encoding", b"identity") not in (b"identity", b"gzip"):
        raise CallRefusal(StatusCode.INTERNAL, "the server answered with an unknown grpc-encoding")


def parse_trailers(headers: RawHeaders) -> CallStatus:
    """The status of a call from its trailers or Trailers-Only headers; a missing one is UNKNOWN."""
    fields = dict(headers)
    raw = fields.get(b"grpc-status")
    if raw is None:
        return CallStatus(StatusCode.UNKNOWN, "the server sent no grpc-status", b"", Metadata())
    number = int(raw) if _STATUS.fullmatch(raw) else -1
    code = StatusCode(number) if 0 <= number <= 16 else StatusCode.UNKNOWN
    details = metadata.decode_details(fields.get(b"grpc-status-details-bin", b""))
    return CallStatus(
        code, metadata.decode_message(fields.get(b"grpc-message", b"")), details, custom_metadata(headers)
    )
