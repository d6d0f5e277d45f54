"""Requests in, responses out, frame by frame: wire.md Behaviour 1, 2, 3, 5, 6 and 7 as a client sees them."""

from __future__ import annotations

import gzip
import logging

import pytest
import trio
from trio.testing import MockClock

from casproxy.rpc.api import Handler, MethodInfo, ServerCall
from casproxy.rpc.errors import RpcError
from casproxy.rpc.server import ServerSettings
from casproxy.wire.status import StatusCode
from casproxy_tests.rpc.world import CHAT, DOWNLOAD, UNARY, UPLOAD, ServerWorld, chat, count, echo, serving, to
from casproxy_tests.wire.peer import Fields, RawPeer, message, request_fields


async def ask(world: ServerWorld, fields: Fields, *messages: bytes, raw: bytes | None = None) -> RawPeer:
    """One call on stream 1 of a new connection, half-closed at once."""
    wire = world.connect()
    peer = wire.peer
    peer.open(fields)
    peer.data(1, b"".join(map(message, messages)) if raw is None else raw, end=True)
    return await wire.exchange()


def failing(error: Exception) -> Handler:
    async def handler(call: ServerCall) -> None:
        await call.receive_message()
        raise error

    return handler


# -- 1: the shape of an answer -----------------------------------------------------------------------


async def test_b01_unary_is_headers_data_trailers() -> None:
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, to(UNARY), b"hello")
    assert peer.trace(1) == ["HEADERS", "DATA(10)", "HEADERS+ES"]
    assert peer.field(1, b":status") == b"200"
    assert peer.field(1, b"content-type") == b"application/grpc"
    assert peer.body(1) == message(b"hello")
    assert peer.status(1) == 0


async def test_b01_an_error_before_any_message_is_trailers_only() -> None:
    error = RpcError(StatusCode.NOT_FOUND, "né %\n x", b"\x08\x05")
    async with serving((UNARY, failing(error))) as world:
        peer = await ask(world, to(UNARY), b"")
    assert peer.trace(1) == ["HEADERS+ES"]
    assert peer.field(1, b":status") == b"200"
    assert peer.status(1) == 5
    assert peer.field(1, b"grpc-message") == b"n%C3%A9 %25%0A x"
    assert peer.field(1, b"grpc-status-details-bin") == b"CAU"


async def test_b01_an_error_after_a_message_is_trailers() -> None:
    async def two_then_fail(call: ServerCall) -> None:
        await call.send_message(b"a")
        await call.send_message(b"b", b"c")
        raise RpcError(StatusCode.DATA_LOSS, "checksum mismatch")

    async with serving((DOWNLOAD, two_then_fail)) as world:
        peer = await ask(world, to(DOWNLOAD), b"")
    assert peer.trace(1)[0] == "HEADERS"
    assert peer.trace(1)[-1] == "HEADERS+ES"
    assert peer.body(1) == message(b"a") + message(b"bc")
    assert peer.status(1) == 15


async def test_b01_a_stream_without_messages_ends_ok() -> None:
    async with serving((CHAT, chat)) as world:
        peer = await ask(world, to(CHAT))
    assert peer.status(1) == 0
    assert peer.body(1) == b""


async def test_b01_client_stream_counts_what_came() -> None:
    async with serving((UPLOAD, count)) as world:
        peer = await ask(world, to(UPLOAD), b"abc", b"", b"de")
    assert peer.body(1) == message(b"5")
    assert peer.status(1) == 0


async def test_b01_the_answer_is_held_back_until_the_handler_is_done() -> None:
    async def answer_then_fail(call: ServerCall) -> None:
        await call.receive_message()
        await call.send_message(b"committed")
        raise RpcError(StatusCode.INTERNAL, "no, it was not")

    async with serving((UNARY, answer_then_fail)) as world:
        peer = await ask(world, to(UNARY), b"")
    assert peer.trace(1) == ["HEADERS+ES"]
    assert peer.status(1) == 13


async def test_an_unexpected_exception_is_internal_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with serving((UNARY, failing(ValueError("secret token abc")))) as world:
        peer = await ask(world, to(UNARY), b"")
    assert peer.status(1) == 13
    assert b"abc" not in (peer.field(1, b"grpc-message") or b"")
    assert "secret token abc" in caplog.text


@pytest.mark.parametrize("bad", [("k-bin", "text"), ("k", b"bytes"), ("k", "a\nb"), ("K", "v"), ("grpc-status", "0")])
async def test_b07_bad_trailing_metadata_fails_its_call_and_no_other(
    bad: tuple[str, str | bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(call: ServerCall) -> None:
        call.add_trailing_metadata(*bad)
        await call.receive_message()
        await call.send_message(b"")

    async with serving((UNARY, handler), (CHAT, chat)) as world:
        wire = world.connect()
        neighbour = wire.peer.open(to(CHAT))
        stream_id = wire.peer.open(to(UNARY))
        wire.peer.message(stream_id, b"", end=True)
        await wire.exchange()
        wire.peer.message(neighbour, b"alive", end=True)
        peer = await wire.exchange()
    assert peer.status(stream_id) == 13
    assert peer.status(neighbour) == 0
    assert peer.body(neighbour) == message(b"alive")
    caplog.clear()


async def test_b07_metadata_both_ways() -> None:
    async def handler(call: ServerCall) -> None:
        assert call.metadata.get_all("k-bin") == [b"\x00\x01\xff", b"\x02", b"abcd"]
        assert call.metadata.get("x-text") == "plain"
        assert call.metadata.get("te") is None
        assert call.metadata.get("content-type") is None
        call.add_trailing_metadata("r-bin", b"\xff")
        call.add_trailing_metadata("r", "text")
        await echo(call)

    extra = [(b"k-bin", b"AAH/,Ag=="), (b"k-bin", b"YWJjZA"), (b"x-text", b"plain")]
    async with serving((UNARY, handler)) as world:
        peer = await ask(world, to(UNARY, *extra), b"")
    assert peer.status(1) == 0
    assert peer.field(1, b"r-bin") == b"/w"
    assert peer.field(1, b"r") == b"text"


async def test_b07_broken_base64_is_refused() -> None:
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, to(UNARY, (b"k-bin", b"!!!")), b"")
    assert peer.status(1) == 13


async def test_interceptors_wrap_in_order_and_see_what_was_attached() -> None:
    order: list[str] = []

    def interceptor(name: str) -> Handler | object:
        async def run(call: ServerCall, handler: Handler) -> None:
            order.append(f"{name} in")
            call.attach(name)
            await handler(call)
            order.append(f"{name} out")

        return run

    async def handler(call: ServerCall) -> None:
        order.append(f"handler, {call.attached(str)}")
        with pytest.raises(LookupError):
            call.attached(float)
        await echo(call)

    async with serving((UNARY, handler), interceptors=[interceptor("outer"), interceptor("inner")]) as world:  # type: ignore[list-item]
        await ask(world, to(UNARY), b"")
    assert order == ["outer in", "inner in", "handler, inner", "inner out", "outer out"]


async def test_an_interceptor_can_refuse_before_a_byte_is_read() -> None:
    async def refuse(call: ServerCall, handler: Handler) -> None:
        raise RpcError(StatusCode.UNAUTHENTICATED, "no token")

    async with serving((UPLOAD, count), interceptors=[refuse]) as world:
        wire = world.connect()
        wire.peer.open(to(UPLOAD))
        peer = await wire.exchange()
    assert peer.trace(1) == ["HEADERS+ES", "RST(0)"]
    assert peer.status(1) == 16


# -- 2: what is not a call of ours -------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type", [b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=utf-8"]
)
async def test_b02_content_types_of_grpc(content_type: bytes) -> None:
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, request_fields(path=UNARY.path.encode(), content_type=content_type), b"")
    assert peer.status(1) == 0


@pytest.mark.parametrize("content_type", [None, b"application/json", b"application/grpc+json", b"application/grpc-web"])
async def test_b02_another_content_type_is_415(content_type: bytes | None) -> None:
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, request_fields(path=UNARY.path.encode(), content_type=content_type), b"")
    assert any(text.endswith("+ES") for text in peer.trace(1))
    assert peer.field(1, b":status") == b"415"
    assert peer.status(1) is None


async def test_b02_another_method_is_405() -> None:
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, request_fields(path=UNARY.path.encode(), method=b"GET"), b"")
    assert peer.field(1, b":status") == b"405"


@pytest.mark.parametrize(
    "path", [b"/t.Test/Nothing", b"/t.Nobody/Unary", b"t.Test/Unary", b"*", b"/", b"/t.Test/Unary/"]
)
async def test_b02_an_unknown_path_is_unimplemented_and_trailers_only(path: bytes) -> None:
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, request_fields(path=path), b"")
    assert peer.trace(1)[0] == "HEADERS+ES"
    assert peer.status(1) == 12


async def test_b02_te_and_authority_may_be_missing() -> None:
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, request_fields(path=UNARY.path.encode(), te=None, authority=None), b"")
    assert peer.status(1) == 0


async def test_b02_te_of_another_value_is_a_stream_error() -> None:
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, request_fields(path=UNARY.path.encode(), te=b"gzip"), b"")
    assert peer.trace(1) == ["RST(1)"]


# -- 3: deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "timeout", [b"1", b"S", b"-1S", b"1.5S", b"123456789S", b"1s", b" 1S", b"1S ", b"0x1S", b"\xd9\xa1S"]
)
async def test_b03_a_malformed_timeout_is_internal(timeout: bytes) -> None:
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, to(UNARY, timeout=timeout), b"")
    # blanks at the ends are no legal header value at all (RFC 9113, 8.2.1): a stream error
    assert peer.status(1) == 13 or (timeout.strip() != timeout and peer.trace(1) == ["RST(1)"])


async def test_b03_a_timeout_of_nothing_does_not_run_the_handler() -> None:
    ran: list[ServerCall] = []

    async def handler(call: ServerCall) -> None:
        ran.append(call)

    async with serving((UNARY, handler)) as world:
        peer = await ask(world, to(UNARY, timeout=b"0m"), b"")
    assert peer.trace(1)[0] == "HEADERS+ES"
    assert peer.status(1) == 4
    assert not ran


@pytest.mark.parametrize("half_closed", [True, False])
async def test_b03_expiry_cancels_the_handler_then_trailers_then_reset(
    mock_clock: MockClock, half_closed: bool
) -> None:
    ended: list[float] = []

    async def handler(call: ServerCall) -> None:
        assert call.deadline == trio.current_time() + 2
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with serving((CHAT, handler)) as world:
        wire = world.connect()
        wire.peer.open(to(CHAT, timeout=b"2S"), end=half_closed)
        await wire.exchange()
        began = trio.current_time()
        mock_clock.jump(1.9)
        assert (await wire.exchange()).trace(1) == []
        mock_clock.jump(0.2)
        peer = await wire.exchange()
    assert [at - began for at in ended] == [pytest.approx(2.1)]
    assert peer.status(1) == 4
    assert peer.trace(1) == ["HEADERS+ES"] if half_closed else ["HEADERS+ES", "RST(0)"]


async def test_b03_the_servers_own_limit_holds_for_unary_calls_only(mock_clock: MockClock) -> None:
    async def handler(call: ServerCall) -> None:
        await trio.sleep_forever()

    async with serving((UNARY, handler), (CHAT, handler), settings=ServerSettings(unary_timeout=5)) as world:
        wire = world.connect()
        unary, stream = wire.peer.open(to(UNARY, timeout=b"1H")), wire.peer.open(to(CHAT))
        await wire.exchange()
        mock_clock.jump(6)
        peer = await wire.exchange()
        assert peer.status(unary) == 4
        assert peer.trace(stream) == []


async def test_b03_an_answer_that_comes_after_the_deadline_is_not_sent(mock_clock: MockClock) -> None:
    async def handler(call: ServerCall) -> None:
        await call.receive_message()
        await call.send_message(b"done")
        with trio.move_on_after(10, shield=True):
            await trio.sleep(3)

    async with serving((UNARY, handler), settings=ServerSettings(unary_timeout=2)) as world:
        wire = world.connect()
        wire.peer.open(to(UNARY))
        wire.peer.message(1, b"", end=True)
        await wire.exchange()
        mock_clock.jump(3)
        peer = await wire.exchange()
    assert peer.status(1) == 4
    assert peer.body(1) == b""


# -- 5: messages in DATA -----------------------------------------------------------------------------

TWO = message(b"ab") + message(b"cde")


@pytest.mark.parametrize("step", [1, 2, 5, 6, 7, 16])
@pytest.mark.parametrize("end", ["last data", "empty data", "trailers"])
async def test_b05_any_split_and_any_end_are_the_same_messages(step: int, end: str) -> None:
    async with serving((CHAT, chat)) as world:
        wire = world.connect()
        peer = wire.peer
        peer.open(to(CHAT))
        peer.data(1, TWO, step=step, end=end == "last data")
        if end == "empty data":
            peer.data(1, b"", end=True)
        elif end == "trailers":
            peer.headers(1, [(b"x", b"y")], end=True)
        await wire.exchange()
    assert peer.body(1) == TWO
    assert peer.status(1) == 0
    assert peer.trace(1)[-1] == "HEADERS+ES"


async def test_b05_end_of_stream_on_headers_is_no_message() -> None:
    async with serving((CHAT, chat)) as world:
        wire = world.connect()
        wire.peer.open(to(CHAT), end=True)
        peer = await wire.exchange()
    assert peer.status(1) == 0


async def test_b05_a_length_over_the_limit_is_refused_from_five_bytes() -> None:
    async with serving((UPLOAD, count), settings=ServerSettings(max_message_size=1000)) as world:
        wire = world.connect()
        wire.peer.open(to(UPLOAD))
        wire.peer.data(1, message(bytes(1001))[:5])
        peer = await wire.exchange()
    assert peer.status(1) == 8
    assert peer.trace(1) == ["HEADERS+ES", "RST(0)"]


@pytest.mark.parametrize("cut", [1, 4, 5, 7])
@pytest.mark.parametrize("info", [UNARY, UPLOAD, CHAT])
async def test_b05_a_truncated_message_is_an_error_and_never_delivered(cut: int, info: MethodInfo) -> None:
    delivered: list[bytes] = []

    async def handler(call: ServerCall) -> None:
        while (part := await call.receive_message()) is not None:
            delivered.append(part)

    async with serving((info, handler)) as world:
        peer = await ask(world, to(info), raw=message(b"abc")[:cut])
    assert peer.status(1) == 13
    assert delivered == []


@pytest.mark.parametrize("info", [UNARY, DOWNLOAD])
@pytest.mark.parametrize("messages", [(), (b"a", b"b")])
async def test_b05_unary_with_none_or_two_messages_is_unimplemented(
    info: MethodInfo, messages: tuple[bytes, ...]
) -> None:
    async with serving((info, echo)) as world:
        peer = await ask(world, to(info), *messages)
    assert peer.status(1) == 12
    assert peer.body(1) == b""


# -- 6: compression ----------------------------------------------------------------------------------

GZIP = (b"grpc-encoding", b"gzip")
ACCEPTS = (b"grpc-accept-encoding", b"identity, deflate, gzip")


async def test_b06_gzip_both_ways() -> None:
    text = b"many equal bytes " * 500
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, to(UNARY, GZIP, ACCEPTS), raw=message(gzip.compress(text), flags=1))
    assert peer.status(1) == 0
    assert peer.field(1, b"grpc-encoding") == b"gzip"
    answer = peer.body(1)
    assert answer[0] == 1
    assert gzip.decompress(answer[5:]) == text


async def test_b06_an_encoding_the_client_did_not_list_is_not_used() -> None:
    text = b"many equal bytes " * 500
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, to(UNARY, GZIP), raw=message(gzip.compress(text), flags=1))
    assert peer.field(1, b"grpc-encoding") in (None, b"identity")
    assert peer.body(1) == message(text)


async def test_b06_uncompressed_messages_in_a_gzip_stream() -> None:
    async with serving((UPLOAD, count)) as world:
        raw = message(b"plain") + message(gzip.compress(b"packed"), flags=1) + message(b"")
        peer = await ask(world, to(UPLOAD, GZIP), raw=raw)
    assert peer.body(1) == message(b"11")


@pytest.mark.parametrize("encoding", [(), ((b"grpc-encoding", b"identity"),)])
async def test_b06_compressed_without_an_encoding_is_internal(encoding: tuple[tuple[bytes, bytes], ...]) -> None:
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, to(UNARY, *encoding), raw=message(gzip.compress(b"x"), flags=1))
    assert peer.status(1) == 13


async def test_b06_an_unknown_encoding_is_unimplemented_and_names_the_known() -> None:
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, to(UNARY, (b"grpc-encoding", b"br")), b"x")
    assert peer.status(1) == 12
    assert peer.field(1, b"grpc-accept-encoding") == b"identity,gzip"


async def test_b06_corrupt_is_internal() -> None:
    async with serving((UNARY, echo)) as world:
        peer = await ask(world, to(UNARY, GZIP), raw=message(b"not gzip at all", flags=1))
    assert peer.status(1) == 13


async def test_b06_a_bomb_is_resource_exhausted() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    async with serving((UNARY, echo), settings=ServerSettings(max_message_size=1_000_000)) as world:
        peer = await ask(world, to(UNARY, GZIP), raw=message(bomb, flags=1))
    assert peer.status(1) == 8


async def test_log_of_a_normal_call_is_empty(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving((UNARY, echo)) as world:
        await ask(world, to(UNARY), b"x")
        assert caplog.text == ""
