"""Which status the log and the metrics give a call, however it ends."""

from __future__ import annotations

import math

import pytest
import structlog
import trio
import trio.testing

from casproxy.observe.call_counts import grpc_code_name
from casproxy.observe.calls import RequestId, observe_calls
from casproxy.observe.facts import Caller
from casproxy.observe.metrics import Metrics
from casproxy.rpc.api import ServerCall
from casproxy.rpc.errors import RpcError, StreamGone
from casproxy.wire.errors import BrokenMessage
from casproxy.wire.status import StatusCode
from casproxy_tests.fakes.call import WRITE, FakeCall


def handled(metrics: Metrics, code: StatusCode) -> float:
    labels = {
        "grpc_type": WRITE.kind.value,
        "grpc_service": WRITE.service,
        "grpc_method": WRITE.name,
        "grpc_code": grpc_code_name(code),
    }
    value = metrics.registry.get_sample_value("grpc_server_handled_total", labels)
    assert value is not None, f"no series for {code.name} from the start"
    return value


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, StatusCode.OK),
        (RpcError(StatusCode.NOT_FOUND, "x"), StatusCode.NOT_FOUND),
        (BrokenMessage(StatusCode.RESOURCE_EXHAUSTED, "x"), StatusCode.RESOURCE_EXHAUSTED),
        (StreamGone(8), StatusCode.CANCELLED),
        (ValueError("x"), StatusCode.INTERNAL),
        (ExceptionGroup("x", [ValueError("x")]), StatusCode.INTERNAL),
    ],
)
async def test_the_end_of_a_call_is_counted_and_passed_on(error: Exception | None, code: StatusCode) -> None:
    metrics = Metrics([WRITE])
    assert all(handled(metrics, any_code) == 0 for any_code in StatusCode)

    async def handler(_call: ServerCall) -> None:
        if error is not None:
            raise error

    observe = observe_calls(metrics, lambda _call: None)
    call = FakeCall()
    if error is None:
        await observe(call, handler)
    else:
        with pytest.raises(type(error)):
            await observe(call, handler)
    assert handled(metrics, code) == 1
    assert sum(handled(metrics, any_code) for any_code in StatusCode) == 1


@pytest.mark.parametrize(("deadline", "code"), [(math.inf, StatusCode.CANCELLED), (5.0, StatusCode.DEADLINE_EXCEEDED)])
async def test_a_cancelled_call_is_cancelled_or_out_of_time(
    autojump_clock: trio.testing.MockClock, deadline: float, code: StatusCode
) -> None:
    metrics = Metrics([WRITE])
    start = trio.current_time()

    async def handler(_call: ServerCall) -> None:
        async with trio.open_nursery() as nursery:  # the cancellation may come out of a nursery
            nursery.start_soon(trio.sleep_forever)

    observe = observe_calls(metrics, lambda _call: Caller("org", "uploader", "FS"))
    with trio.CancelScope(deadline=start + 5.0) as scope:
        await observe(FakeCall(deadline=start + deadline), handler)
    assert scope.cancelled_caught
    assert handled(metrics, code) == 1


async def test_the_request_id_is_attached_and_bound_to_every_line_of_the_call() -> None:
    seen: list[object] = []

    async def handler(call: ServerCall) -> None:
        found = call.find(RequestId)
        assert found is not None
        seen.extend([found.text, structlog.contextvars.get_contextvars()["request_id"]])

    await observe_calls(Metrics([WRITE]), lambda _call: None)(FakeCall(), handler)
    assert len(set(seen)) == 1
    assert "request_id" not in structlog.contextvars.get_contextvars()
