"""Owns the one log line and the counters of every gRPC call. Refuses to know what a call does.

The outermost interceptor: it sees how a call ended after everybody else had their say. What it reports about the
artifact it finds attached to the call: ``Digest`` and ``Uploaded`` (by the service), ``Traffic`` (by the server).
None of them need be there, for a call may fail early. Who is calling it asks whoever put it in place: it knows no
tokens. A call that fails takes its request id along, as ``x-request-id`` in the trailers.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import structlog
import trio

from casproxy.digest import Digest
from casproxy.observe.facts import Caller, Uploaded
from casproxy.observe.log import KeptLogger
from casproxy.observe.metrics import Metrics
from casproxy.rpc.api import Handler, Interceptor, ServerCall, Traffic
from casproxy.rpc.errors import RpcError, StreamGone
from casproxy.wire.errors import BrokenMessage
from casproxy.wire.metadata import Metadata
from casproxy.wire.status import StatusCode

_T = TypeVar("_T")
_REQUEST_ID = re.compile(r"[0-9A-Za-z._-]{1,64}", re.ASCII)
_TRACE_PARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_QUIET_SERVICES = frozenset({"grpc.health.v1.Health", "cas.v1.StatusService"})
OUR_FAULT = frozenset({StatusCode.UNKNOWN, StatusCode.INTERNAL, StatusCode.UNAVAILABLE, StatusCode.DATA_LOSS})

_log = KeptLogger("casproxy.calls")


@dataclass(frozen=True, slots=True)
class RequestId:
    """Names one call in every log line; the caller's ``x-request-id`` when that is harmless, else random."""

    text: str

    def __str__(self) -> str:
        return self.text


WhoCalls: TypeAlias = Callable[[ServerCall], Caller | None]
"""The caller of a call that has ended; None when it was never authenticated."""


def observe_calls(metrics: Metrics, who_calls: WhoCalls) -> Interceptor:
    """An interceptor that gives each call a request id, counts it, and logs one line when it has ended."""

    async def observe(call: ServerCall, handler: Handler) -> None:
        request_id = _request_id(call)
        call.attach(request_id)
        started = time.perf_counter()
        metrics.call_started(call.info)
        code = StatusCode.OK
        names = structlog.contextvars.bind_contextvars(request_id=request_id.text, **_trace(call.metadata))
        try:
            await handler(call)
        except BaseException as error:
            code = code_of(error, call)
            call.add_trailing_metadata("x-request-id", request_id.text)
            raise
        finally:
            _report(call, metrics, who_calls(call), code, time.perf_counter() - started)
            structlog.contextvars.reset_contextvars(**names)

    return observe


def _request_id(call: ServerCall) -> RequestId:
    given = call.metadata.text("x-request-id")
    if given and _REQUEST_ID.fullmatch(given):
        return RequestId(given)
    return RequestId(f"{random.getrandbits(64):016x}")


def _trace(metadata: Metadata) -> dict[str, str]:
    """The trace a call is part of: ours when it is traced here, else its caller's (W3C Trace Context)."""
    found = _TRACE_PARENT.fullmatch(metadata.text("traceparent"))
    if found is None or "trace_id" in structlog.contextvars.get_contextvars():
        return {}
    return {"trace_id": found[1]}


def code_of(error: BaseException, call: ServerCall) -> StatusCode:
    """The status the peer sees when ``error`` leaves the call."""
    if isinstance(error, RpcError | BrokenMessage):
        return error.code
    if isinstance(error, StreamGone):
        return StatusCode.CANCELLED
    if isinstance(error, BaseExceptionGroup):
        cancelled, other = error.split(trio.Cancelled)
        if other is not None:
            return StatusCode.INTERNAL
        error = cancelled if cancelled is not None else error
    if isinstance(error, Exception):
        return StatusCode.INTERNAL
    return StatusCode.DEADLINE_EXCEEDED if trio.current_time() >= call.deadline else StatusCode.CANCELLED


def _report(call: ServerCall, metrics: Metrics, caller: Caller | None, code: StatusCode, seconds: float) -> None:
    traffic = call.find(Traffic) or Traffic()
    digest = call.find(Digest)
    metrics.call_ended(call.info, code, seconds)
    metrics.call_carried(call.info, traffic, caller)
    uploaded = call.find(Uploaded)
    if caller is not None and uploaded is not None and uploaded.skipped:
        metrics.upload_skipped(caller.backend, uploaded.size)
    facts: dict[str, object] = {"method": call.info.path[1:], "code": code.name, "peer": call.peer}
    if caller is not None:
        facts |= {"org": caller.org, "role": caller.role, "backend": caller.backend}
    if digest is not None:
        facts["digest"] = str(digest)
    facts |= {"bytes": traffic.bytes_received + traffic.bytes_sent, "seconds": round(seconds, 6)}
    if code in OUR_FAULT:
        _log.now.warning("call", **facts)
    elif code is StatusCode.OK and call.info.service in _QUIET_SERVICES:
        _log.now.debug("call", **facts)  # probes every few seconds
    else:
        _log.now.info("call", **facts)
