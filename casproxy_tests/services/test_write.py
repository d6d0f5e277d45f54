"""Write, rule by rule, through the handler as it is registered."""

from __future__ import annotations

import uuid

import pytest
import trio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from trio.testing import MockClock, wait_all_tasks_blocked

from casproxy._proto.google.bytestream.bytestream_pb2 import WriteRequest, WriteResponse
from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy.errors import BackendUnavailable, SecretNotFound
from casproxy.gob import encode_resource_name
from casproxy.observe.facts import Uploaded
from casproxy.rpc.errors import RpcError
from casproxy.services.registry import WRITE
from casproxy.storage.api import Tenant
from casproxy.storage.wrappers.flights import SharedBackend
from casproxy.wire.status import StatusCode
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.fakes.call import FakeCall
from casproxy_tests.fakes.faulty_backend import Fault
from casproxy_tests.pipeline.sources import content
from casproxy_tests.services.conftest import Services

DATA = content(300_000)
DIGEST = Digest.of(DATA)
GOB = encode_resource_name("señal-日本語-🚀.tar.gz", DIGEST)


def request(name: str = "", data: bytes = b"", *, offset: int = 0, finish: bool = False) -> bytes:
    message = WriteRequest(resource_name=name, data=data, write_offset=offset, finish_write=finish)
    return message.SerializeToString()


async def write(
    services: Services, *messages: bytes, max_bytes: int = 0, half_close: bool = True, window: int = 1 << 20
) -> tuple[FakeCall, RpcError | None]:
    """One Write; the client sends as its credit allows."""
    call = services.call(WRITE, max_bytes=max_bytes, window=window)

    async def client() -> None:
        for message in messages:
            await call.client_send(message)
        if half_close:
            call.client_half_close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        error = await services.serve(call)
        nursery.cancel_scope.cancel()  # an early answer: the client stops
    return call, error


def committed(call: FakeCall) -> int:
    (response,) = call.responses
    return WriteResponse.FromString(response).committed_size


def is_status(error: RpcError | None, code: StatusCode, text: str) -> None:
    """Checks code and text, and that the details say the same."""
    assert error is not None
    assert error.code is code
    assert text in error.message
    details = Status.FromString(error.details)
    assert (details.code, details.message) == (int(code), error.message)
    info = ErrorInfo()
    assert details.details[0].Unpack(info)
    assert info.domain == "casproxy"
    assert info.reason


def untouched(services: Services) -> bool:
    """Nothing visible, nothing held, nothing open."""
    return not (len(services.memory) or services.memory.held_bytes or services.backend.open_ingests)


@pytest.mark.parametrize(
    ("name", "file_name"),
    [
        (GOB, "señal-日本語-🚀.tar.gz"),
        (encode_resource_name("", DIGEST), DIGEST.hex),
        (DIGEST.hex, DIGEST.hex),
        (str(DIGEST), DIGEST.hex),
        (f"uploads/{uuid.UUID(int=1)}/blobs/{DIGEST.hex}/{len(DATA)}", DIGEST.hex),
        (f"i/uploads/{uuid.UUID(int=1)}/blobs/{DIGEST.hex}/{len(DATA)}/a b", "a b"),
    ],
)
async def test_every_form_of_name(services: Services, name: str, file_name: str) -> None:
    call, error = await write(services, request(name, DATA, finish=True))
    assert error is None
    assert committed(call) == len(DATA)
    assert await services.get(DIGEST) == DATA
    assert (await services.memory.describe(DIGEST)).file_name == file_name
    assert call.attached(Digest) == DIGEST
    assert services.resolver.asked == [Tenant("OCI", "secret", "org")]


@pytest.mark.parametrize("chunk", [1_000, 65_536, 299_999])
@pytest.mark.parametrize("window", [100, 65_535, 1 << 20])
async def test_as_chainloops_client_sends(services: Services, chunk: int, window: int) -> None:
    """The name in each message, offset 0 always, the end in a message of its own."""
    messages = [request(GOB, DATA[start : start + chunk]) for start in range(0, len(DATA), chunk)]
    call, error = await write(services, *messages, request(GOB, finish=True), window=window)
    assert error is None
    assert committed(call) == len(DATA)
    assert await services.get(DIGEST) == DATA
    assert call.held == 0
    assert call.most_held <= window


async def test_one_message_larger_than_the_window(services: Services) -> None:
    call, error = await write(services, request(GOB, DATA, finish=True), window=10_000)
    assert error is None
    assert call.most_held <= 10_000
    assert await services.get(DIGEST) == DATA


# 1. Token first: tests of the interceptor; here: nothing is read without claims.


async def test_no_body_byte_is_read_without_claims(services: Services) -> None:
    call = FakeCall(WRITE)
    call.client_push_message(request(GOB, DATA))
    error = await services.serve(call)
    assert error is not None and error.code is StatusCode.INTERNAL
    assert not call.parts_taken


# 2. The first message names the resource.


@pytest.mark.parametrize(
    "messages", [(), (b"",), (request(data=b"x"),), (request("nonsense"),), (request("x" * 9000),)]
)
async def test_no_name_or_an_undecodable_one(services: Services, messages: tuple[bytes, ...]) -> None:
    _, error = await write(services, *messages)
    is_status(error, StatusCode.INVALID_ARGUMENT, "resourceName must be set")
    assert services.resolver.asked == []


async def test_another_name_in_mid_stream(services: Services) -> None:
    _, error = await write(services, request(GOB, DATA[:10]), request(DIGEST.hex, DATA[10:], finish=True))
    is_status(error, StatusCode.INVALID_ARGUMENT, "another resource_name")
    assert untouched(services)


@pytest.mark.parametrize("name", [f"sha256:{'A' * 64}", "uploads/u/blobs/../1", encode_resource_name("x", DIGEST)[:-8]])
async def test_a_bad_digest_reaches_no_store(services: Services, name: str) -> None:
    _, error = await write(services, request(name, b"x", finish=True))
    is_status(error, StatusCode.INVALID_ARGUMENT, "")
    assert services.resolver.asked == []


async def test_a_file_name_with_control_characters(services: Services) -> None:
    _, error = await write(services, request(encode_resource_name("a\nb", DIGEST), DATA, finish=True))
    is_status(error, StatusCode.INVALID_ARGUMENT, "control characters")
    assert services.resolver.asked == []


async def test_data_in_front_of_the_name_in_the_first_message(services: Services) -> None:
    """Legal protobuf: fields come in any order."""
    digest = Digest.of(b"abc")
    message = b"\x52\x03abc" + b"\x0a\x40" + digest.hex.encode()
    _, error = await write(services, message)
    assert error is None
    assert await services.get(digest) == b"abc"


async def test_data_in_front_of_the_name_that_fills_the_window(services: Services) -> None:
    _, error = await write(services, b"\x52\x81\x01" + bytes(129) + b"\x0a\x40" + DIGEST.hex.encode(), window=100)
    is_status(error, StatusCode.INVALID_ARGUMENT, "resource_name must come before")


# 3. Stored already: answered at once.


async def test_a_stored_artifact_is_answered_at_once(services: Services) -> None:
    await services.put(DATA)
    call, error = await write(services, request(GOB, DATA[:10]), half_close=False)
    assert error is None
    assert committed(call) == len(DATA)
    assert services.backend.calls["ingest"] == 0


async def test_a_stored_artifact_of_another_size_than_named(services: Services) -> None:
    await services.put(DATA)
    _, error = await write(services, request(f"uploads/u/blobs/{DIGEST.hex}/1", b"x"))
    is_status(error, StatusCode.INVALID_ARGUMENT, "size mismatch")


# 4. write_offset


async def test_offsets_that_count(services: Services) -> None:
    messages = [request(GOB, DATA[:100]), request("", DATA[100:200], offset=100), request("", DATA[200:], offset=200)]
    _, error = await write(services, *messages)
    assert error is None
    assert await services.get(DIGEST) == DATA


@pytest.mark.parametrize("offset", [1, 99, 101, -1])
async def test_offsets_that_do_not(services: Services, offset: int) -> None:
    _, error = await write(services, request(GOB, DATA[:100]), request("", DATA[100:], offset=offset))
    is_status(error, StatusCode.INVALID_ARGUMENT, f"write_offset {offset}")
    assert untouched(services)


# 5. The end


async def test_data_in_the_message_that_finishes_counts(services: Services) -> None:
    _, error = await write(services, request(GOB, DATA[:10]), request("", DATA[10:], finish=True))
    assert error is None


async def test_data_after_the_end(services: Services) -> None:
    _, error = await write(services, request(GOB, DATA, finish=True), request("", b"x"))
    is_status(error, StatusCode.INVALID_ARGUMENT, "data after finish_write")
    assert untouched(services)


async def test_data_a_moment_after_the_end(services: Services, autojump_clock: MockClock) -> None:
    call = services.call(WRITE)

    async def client() -> None:
        await call.client_send(request(GOB, DATA, finish=True))
        await trio.sleep(0.1)
        await call.client_send(request("", b"x"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        error = await services.serve(call)
    is_status(error, StatusCode.INVALID_ARGUMENT, "data after finish_write")
    assert untouched(services)


async def test_half_close_ends_the_write_as_well(services: Services) -> None:
    _, error = await write(services, request(GOB, DATA))
    assert error is None
    assert await services.get(DIGEST) == DATA


async def test_a_client_that_waits_for_the_answer_before_it_half_closes(
    services: Services, autojump_clock: MockClock
) -> None:
    _, error = await write(services, request(GOB, DATA, finish=True), half_close=False)
    assert error is None
    assert trio.current_time() < 1


async def test_a_process_that_was_not_run_for_a_second_ends_a_write_all_the_same(
    services: Services, mock_clock: MockClock
) -> None:
    """A container below one core is stopped for a part of each 100 ms: the grace may be over before anybody looks."""
    call, outcome = services.call(WRITE), list[RpcError | None]()

    async def serve() -> None:
        outcome.append(await services.serve(call))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await call.client_send(request(GOB, DATA, finish=True))
        await trio.testing.wait_all_tasks_blocked()
        assert not outcome
        mock_clock.jump(1)
        call.client_half_close()
    assert outcome == [None]
    assert committed(call) == len(DATA)


async def test_half_close_too_early_is_a_digest_mismatch(services: Services) -> None:
    _, error = await write(services, request(GOB, DATA[:-1]))
    got = Digest.of(DATA[:-1])
    is_status(error, StatusCode.INVALID_ARGUMENT, f"digest mismatch: got={got.hex}, want={DIGEST.hex}")
    assert untouched(services)


# 6. The size cap


@pytest.mark.parametrize("half_close", [True, False])
async def test_the_cap(services: Services, half_close: bool) -> None:
    _, error = await write(services, request(GOB, bytes(1_000)), max_bytes=999, half_close=half_close)
    is_status(error, StatusCode.RESOURCE_EXHAUSTED, "max size of upload exceeded: want=1000, max=999")
    assert untouched(services)


async def test_an_upload_as_large_as_the_cap(services: Services) -> None:
    _, error = await write(services, request(GOB, DATA), max_bytes=len(DATA))
    assert error is None


async def test_a_size_named_over_the_cap(services: Services) -> None:
    _, error = await write(
        services, request(f"uploads/u/blobs/{DIGEST.hex}/1000", b""), max_bytes=999, half_close=False
    )
    is_status(error, StatusCode.RESOURCE_EXHAUSTED, "max size of upload exceeded: want=1000, max=999")


# 7. Verified before anything is visible


async def test_a_wrong_digest(services: Services) -> None:
    _, error = await write(services, request(EMPTY_DIGEST.hex, DATA, finish=True))
    is_status(error, StatusCode.INVALID_ARGUMENT, f"digest mismatch: got={DIGEST.hex}, want={EMPTY_DIGEST.hex}")
    assert services.backend.calls["commit"] == 0
    assert untouched(services)


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
async def test_another_size_than_named(services: Services, size: int) -> None:
    _, error = await write(services, request(f"uploads/u/blobs/{DIGEST.hex}/{size}", DATA))
    is_status(error, StatusCode.INVALID_ARGUMENT, "size mismatch")
    assert untouched(services)


# 8. The empty artifact


@pytest.mark.parametrize("finish", [True, False])
async def test_an_empty_artifact(services: Services, finish: bool) -> None:
    call, error = await write(services, request(encode_resource_name("empty", EMPTY_DIGEST), finish=finish))
    assert error is None
    assert committed(call) == 0
    assert await services.get(EMPTY_DIGEST) == b""


# 9. Cancelled, reset, timed out, gone


async def test_a_cancel_at_every_await() -> None:
    runs: list[Services] = []

    async def scenario() -> RpcError | None:
        services = Services()
        runs.append(services)
        call = services.call(WRITE)
        for start in range(0, len(DATA), 100_000):
            call.client_push_message(request(GOB, DATA[start : start + 100_000]))
        call.client_half_close()
        return await services.serve(call)

    async def check(run: Run[RpcError | None]) -> None:
        services = runs[-1]
        assert run.value is None
        assert services.backend.open_ingests == 0
        if DIGEST in services.memory:
            assert await services.get(DIGEST) == DATA
        else:
            assert services.memory.held_bytes == 0
            assert run.cancelled

    assert await cancel_everywhere(scenario, check) > 10


@pytest.mark.parametrize("step", ["name", "resolve", "describe", "ingest", "write", "body"])
async def test_a_reset_stops_every_step(services: Services, step: str) -> None:
    call = services.call(WRITE)
    if step != "name":
        call.client_push_message(request(GOB, DATA))
    services.resolver.stall = step == "resolve"
    if step in ("describe", "ingest", "write"):
        services.backend.faults.append(Fault(step, stall=True))  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(services.serve, call)
        await wait_all_tasks_blocked()
        call.client_reset()
    assert call.scope.cancelled_caught
    assert call.responses == []
    assert services.backend.open_ingests == 0
    assert untouched(services)


async def test_a_client_that_names_nothing(services: Services, autojump_clock: MockClock) -> None:
    _, error = await write(services, half_close=False)
    is_status(error, StatusCode.DEADLINE_EXCEEDED, "named no resource")
    assert trio.current_time() == pytest.approx(services.limits.idle_timeout)


async def test_a_client_that_stops_sending(services: Services, autojump_clock: MockClock) -> None:
    _, error = await write(services, request(GOB, DATA[:10]), half_close=False)
    is_status(error, StatusCode.DEADLINE_EXCEEDED, "no progress")
    assert untouched(services)


async def test_empty_messages_keep_a_write_alive(services: Services, autojump_clock: MockClock) -> None:
    call = services.call(WRITE)

    async def client() -> None:
        await call.client_send(request(GOB, DATA))
        for _ in range(5):
            await trio.sleep(services.limits.idle_timeout * 0.9)
            await call.client_send(request())
        call.client_half_close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        assert await services.serve(call) is None


# 10. Two writers


async def test_two_writers_of_one_artifact(services: Services) -> None:
    answers: list[tuple[FakeCall, RpcError | None]] = []

    async def writer() -> None:
        answers.append(await write(services, request(GOB, DATA, finish=True), window=50_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer)
        nursery.start_soon(writer)
    assert [(committed(call), error) for call, error in answers] == [(len(DATA), None)] * 2
    assert await services.get(DIGEST) == DATA


# Errors


async def test_the_audit_of_two_writers_tells_which_of_them_stored_it(services: Services) -> None:
    """The other one's upload was skipped, and the name that counts is the one that was stored."""
    services.resolver.backend = SharedBackend(services.backend)
    first, second = (services.call(WRITE) for _ in range(2))
    await first.client_send(request(encode_resource_name("first.bin", DIGEST), DATA[:1000]))
    await second.client_send(request(encode_resource_name("second.bin", DIGEST), DATA[:1000]))
    async with trio.open_nursery() as nursery:
        for call in (first, second):
            nursery.start_soon(services.serve, call)
            await wait_all_tasks_blocked()
        await first.client_send(request(data=DATA[1000:], finish=True))
        first.client_half_close()
    assert [committed(call) for call in (first, second)] == [len(DATA)] * 2
    assert first.attached(Uploaded) == Uploaded(DIGEST, len(DATA), "first.bin", skipped=False)
    assert second.attached(Uploaded) == Uploaded(DIGEST, len(DATA), "first.bin", skipped=True)


async def test_a_missing_secret_is_never_a_missing_artifact(services: Services) -> None:
    services.resolver.error = SecretNotFound("secret not found")
    _, error = await write(services, request(GOB, DATA))
    is_status(error, StatusCode.FAILED_PRECONDITION, "secret not found")


@pytest.mark.parametrize("operation", ["describe", "ingest", "write", "commit"])
async def test_backend_trouble_is_not_shown_raw(services: Services, operation: str) -> None:
    error = BackendUnavailable("the registry is busy")
    error.__cause__ = OSError("password=hunter2")
    services.backend.faults.append(Fault(operation, error=error))  # type: ignore[arg-type]
    _, status = await write(services, request(GOB, DATA))
    is_status(status, StatusCode.UNAVAILABLE, "the registry is busy (id ")
    assert status is not None
    assert b"hunter2" not in status.details + status.message.encode()
    assert untouched(services)


async def test_a_connection_that_dies_while_the_upload_waits(services: Services) -> None:
    call = services.call(WRITE)
    call.client_push_message(request(GOB, DATA))
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            is_status(await services.serve(call), StatusCode.CANCELLED, "the client is gone")

        nursery.start_soon(serve)
        await wait_all_tasks_blocked()
        call.client_vanish()
    assert untouched(services)


async def test_what_was_stored_before_stays(services: Services) -> None:
    kept = await services.put(b"kept")
    await write(services, request(GOB, b"wrong", finish=True))
    assert await services.get(kept) == b"kept"
    assert len(services.memory) == 1
