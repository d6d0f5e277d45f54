"""Read, QueryWriteStatus, Describe and Status, rule by rule, through the handlers as they are registered."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from casproxy._proto.cas.v1.resource_pb2 import ResourceServiceDescribeRequest, ResourceServiceDescribeResponse
from casproxy._proto.cas.v1.status_pb2 import InfozRequest, InfozResponse, StatuszRequest, StatuszResponse
from casproxy._proto.google.bytestream.bytestream_pb2 import (
    QueryWriteStatusRequest,
    QueryWriteStatusResponse,
    ReadRequest,
    ReadResponse,
)
from casproxy.auth.claims import Role
from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy.errors import BackendUnavailable
from casproxy.gob import encode_resource_name
from casproxy.rpc.api import MethodInfo
from casproxy.rpc.errors import RpcError
from casproxy.services.messages import read_response_prefix
from casproxy.services.registry import (
    DESCRIBE,
    INFOZ,
    PUBLIC_SERVICES,
    QUERY_WRITE_STATUS,
    READ,
    ROLES,
    STATUSZ,
    WRITE,
)
from casproxy.wire.status import StatusCode
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.fakes.call import FakeCall
from casproxy_tests.fakes.faulty_backend import Fault
from casproxy_tests.pipeline.sources import content
from casproxy_tests.services.conftest import Services
from casproxy_tests.services.test_write import is_status

DATA = content(300_000)
DIGEST = Digest.of(DATA)


async def read(
    services: Services, name: str = DIGEST.hex, *, offset: int = 0, limit: int = 0
) -> tuple[FakeCall, RpcError | None]:
    request = ReadRequest(resource_name=name, read_offset=offset, read_limit=limit)
    return await services.ask(READ, request.SerializeToString(), role=Role.DOWNLOADER)


async def test_the_tenant_pays_for_what_its_read_holds(services: Services) -> None:
    await services.put(DATA)
    call = services.call(READ, role=Role.DOWNLOADER)
    call.stalled = True
    call.client_push_message(ReadRequest(resource_name=DIGEST.hex).SerializeToString())
    call.client_half_close()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(services.serve, call)
        await wait_all_tasks_blocked()
        assert call.payer == "secret"
        assert services.budget.account("secret").exposed == services.budget.exposed >= len(DATA)
        call.client_resume()
    assert received(call) == DATA
    assert services.budget.exposed == 0


async def test_a_tenant_that_has_used_up_its_share_is_told_to_come_back(services: Services) -> None:
    await services.put(DATA)
    share = services.budget.account("secret")
    share.charge(share.room)
    _, status = await read(services)
    assert status is not None
    assert status.code is StatusCode.UNAVAILABLE
    assert "try again later" in status.message


def received(call: FakeCall) -> bytes:
    return b"".join(ReadResponse.FromString(response).data for response in call.responses)


@pytest.mark.parametrize(
    "name",
    [
        DIGEST.hex,
        str(DIGEST),
        f"blobs/{DIGEST.hex}/{len(DATA)}",
        f"a/b/blobs/{DIGEST.hex}/{len(DATA)}",
        encode_resource_name("x", DIGEST, 7),
    ],
)
async def test_read_by_every_form_of_name(services: Services, name: str) -> None:
    await services.put(DATA)
    call, error = await read(services, name)
    assert error is None
    assert received(call) == DATA
    assert call.attached(Digest) == DIGEST


async def test_read_the_empty_artifact(services: Services) -> None:
    await services.put(b"")
    call, error = await read(services, EMPTY_DIGEST.hex)
    assert error is None
    assert received(call) == b""


async def test_read_in_messages_of_at_most_a_mebibyte(services: Services) -> None:
    data = content(2_500_000)
    digest = await services.put(data)  # one piece in the store
    call, error = await read(services, digest.hex)
    assert error is None
    assert received(call) == data
    assert max(len(ReadResponse.FromString(response).data) for response in call.responses) <= 1024 * 1024


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 1024 * 1024])
def test_a_read_response_is_a_prefix_and_the_piece(size: int) -> None:
    piece = bytes(size)
    assert read_response_prefix(piece) + piece == ReadResponse(data=piece).SerializeToString()


async def test_a_piece_is_sent_without_a_copy(services: Services) -> None:
    piece = content(1_000)
    digest = await services.put(piece)
    call, _ = await read(services, digest.hex)
    ((_, sent),) = call.response_buffers
    assert (sent.obj if isinstance(sent, memoryview) else sent) is piece


@pytest.mark.parametrize(("offset", "limit"), [(0, 1), (10, 0), (10, 20), (len(DATA), 0), (0, len(DATA) + 9)])
async def test_read_a_range(services: Services, offset: int, limit: int) -> None:
    await services.put(DATA)
    call, error = await read(services, offset=offset, limit=limit)
    assert error is None
    assert received(call) == DATA[offset : offset + limit if limit else None]


@pytest.mark.parametrize("offset", [-1, len(DATA) + 1])
async def test_read_offset_out_of_range(services: Services, offset: int) -> None:
    await services.put(DATA)
    _, error = await read(services, offset=offset)
    is_status(error, StatusCode.OUT_OF_RANGE, f"read_offset {offset}")


async def test_read_limit_negative(services: Services) -> None:
    await services.put(DATA)
    _, error = await read(services, limit=-1)
    is_status(error, StatusCode.INVALID_ARGUMENT, "read_limit")


@pytest.mark.parametrize("name", [DIGEST.hex, f"blobs/{DIGEST.hex}/{len(DATA)}"])
async def test_read_an_unknown_artifact(services: Services, name: str) -> None:
    _, error = await read(services, name)
    is_status(error, StatusCode.NOT_FOUND, DIGEST.hex)


async def test_read_another_size_than_stored(services: Services) -> None:
    await services.put(DATA)
    call, error = await read(services, f"blobs/{DIGEST.hex}/{len(DATA) + 1}")
    is_status(error, StatusCode.NOT_FOUND, DIGEST.hex)
    assert call.responses == []


async def test_read_a_corrupt_artifact(services: Services) -> None:
    await services.put(DATA)
    services.backend.faults.append(Fault("receive", flip=len(DATA) - 1))
    wrong = Digest.of(DATA[:-1] + bytes((DATA[-1] ^ 0xFF,)))
    call, error = await read(services)
    is_status(error, StatusCode.DATA_LOSS, f"checksum mismatch: got={wrong.hex}, want={DIGEST.hex}")
    assert len(received(call)) < len(DATA)


@pytest.mark.parametrize("info", [READ, QUERY_WRITE_STATUS, DESCRIBE], ids=lambda info: info.name)
@pytest.mark.parametrize("request_", [b"", b"\x0a\x03bad"])
async def test_no_name_or_a_bad_one(services: Services, info: MethodInfo, request_: bytes) -> None:
    _, error = await services.ask(info, request_)
    is_status(error, StatusCode.INVALID_ARGUMENT, "")
    assert services.resolver.asked == []


@pytest.mark.parametrize("info", [READ, QUERY_WRITE_STATUS, DESCRIBE, INFOZ, STATUSZ], ids=lambda info: info.name)
async def test_a_request_that_is_not_protobuf(services: Services, info: MethodInfo) -> None:
    _, error = await services.ask(info, b"\xff\xff")
    is_status(error, StatusCode.INVALID_ARGUMENT, "malformed")


async def test_a_stalled_reader_stalls_only_itself(services: Services) -> None:
    await services.put(DATA)
    stalled = services.call(READ, role=Role.DOWNLOADER)
    stalled.stalled = True
    stalled.client_push_message(ReadRequest(resource_name=DIGEST.hex).SerializeToString())
    stalled.client_half_close()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(services.serve, stalled)
        await wait_all_tasks_blocked()
        call, error = await read(services)
        assert error is None
        assert received(call) == DATA
        stalled.client_resume()
    assert received(stalled) == DATA


async def test_a_reader_that_vanishes(services: Services) -> None:
    await services.put(DATA)
    call = services.call(READ, role=Role.DOWNLOADER)
    call.stalled = True
    call.client_push_message(ReadRequest(resource_name=DIGEST.hex).SerializeToString())
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            is_status(await services.serve(call), StatusCode.CANCELLED, "the client is gone")

        nursery.start_soon(serve)
        await wait_all_tasks_blocked()
        call.client_vanish()
    assert services.backend.open_readers == 0


async def test_a_read_cancelled_at_every_await(services: Services) -> None:
    await services.put(DATA)

    async def scenario() -> bytes:
        call, error = await read(services)
        assert error is None
        return received(call)

    async def check(run: Run[bytes]) -> None:
        assert services.backend.open_readers == 0
        assert run.value in (None, DATA)

    assert await cancel_everywhere(scenario, check) > 10


# QueryWriteStatus


async def test_query_a_stored_artifact(services: Services) -> None:
    await services.put(DATA)
    request = QueryWriteStatusRequest(resource_name=f"uploads/u/blobs/{DIGEST.hex}/{len(DATA)}")
    call, error = await services.ask(QUERY_WRITE_STATUS, request.SerializeToString())
    assert error is None
    expected = QueryWriteStatusResponse(committed_size=len(DATA), complete=True)
    assert [QueryWriteStatusResponse.FromString(response) for response in call.responses] == [expected]


@pytest.mark.parametrize("name", [EMPTY_DIGEST.hex, f"uploads/u/blobs/{DIGEST.hex}/1"])
async def test_query_what_is_not_stored(services: Services, name: str) -> None:
    await services.put(DATA)
    request = QueryWriteStatusRequest(resource_name=name)
    _, error = await services.ask(QUERY_WRITE_STATUS, request.SerializeToString())
    is_status(error, StatusCode.NOT_FOUND, "not found")


# Describe


@pytest.mark.parametrize("name", [DIGEST.hex, str(DIGEST)])
async def test_describe(services: Services, name: str) -> None:
    await services.put(DATA, 'a "b";c.bin')
    request = ResourceServiceDescribeRequest(digest=name)
    call, error = await services.ask(DESCRIBE, request.SerializeToString(), role=Role.DOWNLOADER)
    assert error is None
    result = ResourceServiceDescribeResponse.FromString(call.responses[0]).result
    assert (result.file_name, result.digest, result.size) == ('a "b";c.bin', DIGEST.hex, len(DATA))


@pytest.mark.parametrize(
    "name", ["", "x", DIGEST.hex.upper(), f"blobs/{DIGEST.hex}/1", encode_resource_name("x", DIGEST)]
)
async def test_describe_takes_a_plain_digest_only(services: Services, name: str) -> None:
    request = ResourceServiceDescribeRequest(digest=name)
    _, error = await services.ask(DESCRIBE, request.SerializeToString())
    is_status(error, StatusCode.INVALID_ARGUMENT, "digest")
    assert services.resolver.asked == []


async def test_describe_an_unknown_artifact(services: Services) -> None:
    request = ResourceServiceDescribeRequest(digest=DIGEST.hex)
    _, error = await services.ask(DESCRIBE, request.SerializeToString())
    is_status(error, StatusCode.NOT_FOUND, DIGEST.hex)


async def test_describe_with_a_store_that_is_down(services: Services) -> None:
    services.backend.faults.append(Fault("describe", error=BackendUnavailable("down")))
    request = ResourceServiceDescribeRequest(digest=DIGEST.hex)
    _, error = await services.ask(DESCRIBE, request.SerializeToString())
    is_status(error, StatusCode.UNAVAILABLE, "down (id ")


# Status


async def test_infoz(services: Services) -> None:
    call, error = await services.ask(INFOZ, InfozRequest().SerializeToString())
    assert error is None
    expected = InfozResponse(version="1.2.3", backends=["FS", "OCI"], chart_version="4.5")
    assert InfozResponse.FromString(call.responses[0]) == expected


@pytest.mark.parametrize(("ready", "readiness", "ok"), [(True, True, True), (False, True, False), (False, False, True)])
async def test_statusz(services: Services, ready: bool, readiness: bool, ok: bool) -> None:
    services.readiness.failing("secrets", "" if ready else "down")
    call, error = await services.ask(STATUSZ, StatuszRequest(readiness=readiness).SerializeToString())
    if ok:
        assert error is None
        assert call.responses == [StatuszResponse().SerializeToString()]
    else:
        assert error is not None and error.code is StatusCode.UNAVAILABLE


def test_who_may_call_what() -> None:
    assert {
        WRITE.path: {Role.UPLOADER},
        READ.path: {Role.DOWNLOADER},
        QUERY_WRITE_STATUS.path: {Role.UPLOADER, Role.DOWNLOADER},
        DESCRIBE.path: {Role.UPLOADER, Role.DOWNLOADER},
    } == ROLES
    assert INFOZ.service in PUBLIC_SERVICES and STATUSZ.service in PUBLIC_SERVICES


def test_every_method_is_public_or_has_roles(services: Services) -> None:
    for info in services.methods:
        assert (info.service in PUBLIC_SERVICES) != (info.path in ROLES)
