"""Calls we make, against a raw server: wire.md Behaviour 3, 5, 6, 8 and 15 from the client's side."""

from __future__ import annotations

import gzip
import math
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from casproxy.rpc.api import ClientCall
from casproxy.rpc.channel import Channel, ChannelSettings
from casproxy.rpc.errors import RpcError
from casproxy.wire.metadata import Metadata
from casproxy.wire.status import StatusCode
from casproxy_tests.rpc.world import CHAT, OK, RESPONSE, UNARY, UPLOAD, ClientWorld, channel
from casproxy_tests.wire.peer import Fields, RawPeer, message


class Outcome:
    """What a call in a task of its own came to."""

    def __init__(self) -> None:
        self.answer: bytes | None = None
        self.error: RpcError | None = None
        self.done = trio.Event()

    async def unary(self, channel: Channel, request: bytes = b"request", timeout: float = math.inf) -> None:
        try:
            self.answer = await channel.unary(UNARY.path, request, timeout=timeout)
        except RpcError as error:
            self.error = error
        self.done.set()

    @property
    def code(self) -> StatusCode | None:
        return None if self.error is None else self.error.code


async def asked(
    answer: Callable[[RawPeer], object], *, settings: ChannelSettings | None = None, timeout: float = math.inf
) -> Outcome:
    """One unary call, answered by ``answer``; it must have ended then."""
    outcome = Outcome()
    async with channel(settings) as world, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: outcome.unary(world.channel, timeout=timeout))
        peer = await world.exchange()
        answer(peer)
        await world.exchange()
        assert outcome.done.is_set()
    return outcome


def respond(peer: RawPeer, *messages: bytes, trailers: Fields = OK, headers: Fields = RESPONSE) -> None:
    """A whole response on stream 1."""
    peer.headers(1, headers)
    if messages:
        peer.data(1, b"".join(map(message, messages)))
    peer.headers(1, trailers, end=True)


# -- a call as it goes out ---------------------------------------------------------------------------


async def test_b01_a_request_on_the_wire() -> None:
    outcome = Outcome()
    async with channel() as world, trio.open_nursery() as nursery:
        nursery.start_soon(outcome.unary, world.channel)
        peer = await world.exchange()
        assert peer.trace(1) == ["HEADERS", "DATA(12)", "DATA(0)+ES"]
        assert peer.body(1) == message(b"request")
        sent = next(seen for seen in peer.seen if seen.text == "HEADERS")
        fields = dict(sent.fields)
        assert fields[b":method"] == b"POST"
        assert fields[b":scheme"] == b"http"
        assert fields[b":path"] == b"/t.Test/Unary"
        assert fields[b":authority"] == b"test"
        assert fields[b"te"] == b"trailers"
        assert fields[b"content-type"] == b"application/grpc"
        assert fields[b"user-agent"].startswith(b"casproxy/")
        assert b"grpc-timeout" not in fields
        respond(peer, b"answer")
        await world.exchange()
    assert outcome.answer == b"answer"


async def test_b03_the_timeout_goes_out_with_the_call() -> None:
    async with channel() as world, trio.open_nursery() as nursery:
        outcome = Outcome()
        nursery.start_soon(lambda: outcome.unary(world.channel, timeout=1.5))
        peer = await world.exchange()
        assert peer.field(1, b"grpc-timeout") == b"1500000u"
        respond(peer, b"")
        await world.exchange()


BAD_METADATA: list[tuple[str, str | bytes]] = [
    ("k", "a\r\nb"),
    ("k", "a\0"),
    ("K", "v"),
    ("k-bin", "text"),
    ("k", b"bytes"),
    ("grpc-x", "v"),
]


async def test_b07_metadata_goes_out_and_bad_metadata_does_not() -> None:
    async with channel() as world:
        for key, value in BAD_METADATA:
            with pytest.raises(ValueError, match="metadata"):
                await world.channel.unary(UNARY.path, b"", metadata=Metadata([(key, value)]))
        async with world.channel.call(CHAT.path, metadata=Metadata([("k-bin", b"\xff"), ("k", "v")])):
            peer = await world.exchange()
            assert peer.field(1, b"k-bin") == b"/w"
            assert peer.field(1, b"k") == b"v"


# -- 15: how a call can end --------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 17))
async def test_b15_every_status_with_message_and_details(number: int) -> None:
    trailers = [
        (b"grpc-status", str(number).encode()),
        (b"grpc-message", b"n%C3%A9 %zz"),
        (b"grpc-status-details-bin", b"CAU"),
    ]
    outcome = await asked(lambda peer: peer.headers(1, RESPONSE + trailers, end=True))
    assert outcome.error is not None
    assert outcome.code == StatusCode(number)
    assert outcome.error.message == "né %zz"
    assert outcome.error.details == b"\x08\x05"


@pytest.mark.parametrize("number", [b"17", b"-1", b"x", b"", b"9" * 5000, b"1.0", b"\xd9\xa1"])
async def test_b15_an_unknown_status_is_unknown(number: bytes) -> None:
    outcome = await asked(lambda peer: respond(peer, b"x", trailers=[(b"grpc-status", number)]))
    assert outcome.code is StatusCode.UNKNOWN


@pytest.mark.parametrize(
    ("http", "code"),
    [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (502, 14), (503, 14), (504, 14), (500, 2), (418, 2)],
)
@pytest.mark.parametrize("body", [None, b"", b"<html>a page of a proxy</html>"])
async def test_b15_a_missing_status_is_mapped_from_http(http: int, code: int, body: bytes | None) -> None:
    def answer(peer: RawPeer) -> None:
        peer.headers(1, [(b":status", str(http).encode()), (b"content-type", b"text/html")], end=body is None)
        if body is not None:
            peer.data(1, body, end=True)

    assert (await asked(answer)).code == code


async def test_b15_an_http_error_that_never_ends_is_not_waited_for() -> None:
    outcome = await asked(lambda peer: peer.headers(1, [(b":status", b"503"), (b"content-type", b"text/html")]))
    assert outcome.code is StatusCode.UNAVAILABLE


async def test_b15_a_grpc_status_counts_more_than_the_http_status() -> None:
    fields = [(b":status", b"503"), (b"content-type", b"application/grpc"), (b"grpc-status", b"8")]
    assert (await asked(lambda peer: peer.headers(1, fields, end=True))).code is StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("headers_end", [True, False])
async def test_b15_ok_from_http_without_a_grpc_status_is_unknown(headers_end: bool) -> None:
    def answer(peer: RawPeer) -> None:
        peer.headers(1, RESPONSE, end=headers_end)
        if not headers_end:
            peer.data(1, message(b"x"), end=True)

    assert (await asked(answer)).code is StatusCode.UNKNOWN


async def test_b15_another_content_type_is_unknown() -> None:
    fields = [(b":status", b"200"), (b"content-type", b"text/html")]
    assert (await asked(lambda peer: peer.headers(1, fields))).code is StatusCode.UNKNOWN


@pytest.mark.parametrize(
    "fields",
    [
        [(b"content-type", b"application/grpc")],
        [(b":status", b"2 0")],
        [(b":status", b"9" * 5000)],
        [*RESPONSE, (b":path", b"/")],
        [*RESPONSE, (b"X", b"y")],
    ],
)
async def test_b15_malformed_response_headers_end_their_call_and_no_other(fields: Fields) -> None:
    bad, good = Outcome(), Outcome()
    async with channel() as world, trio.open_nursery() as nursery:
        nursery.start_soon(bad.unary, world.channel)
        peer = await world.exchange()
        nursery.start_soon(good.unary, world.channel)
        await world.exchange()
        peer.headers(1, fields)
        await world.exchange()
        assert bad.code is StatusCode.INTERNAL
        assert peer.trace(1)[-1].startswith("RST")
        peer.headers(3, RESPONSE)
        peer.data(3, message(b"fine"))
        peer.headers(3, OK, end=True)
        await world.exchange()
    assert good.answer == b"fine"


@pytest.mark.parametrize(
    ("reset", "code"),
    [(0, 13), (1, 13), (2, 13), (3, 13), (5, 13), (7, 14), (8, 1), (9, 13), (11, 8), (12, 7), (99, 13)],
)
async def test_b15_a_reset_is_mapped(reset: int, code: int) -> None:
    assert (await asked(lambda peer: peer.reset(1, reset))).code == code

    def begin_and_reset(peer: RawPeer) -> None:
        peer.headers(1, RESPONSE)
        peer.reset(1, reset)

    assert (await asked(begin_and_reset)).code == code


async def test_b15_a_status_counts_more_than_the_reset_behind_it() -> None:
    def answer(peer: RawPeer) -> None:
        peer.headers(1, [*RESPONSE, (b"grpc-status", b"8"), (b"grpc-message", b"too large")])
        peer.reset(1, 0)

    outcome = await asked(answer)
    assert outcome.code is StatusCode.RESOURCE_EXHAUSTED
    assert outcome.error is not None
    assert outcome.error.message == "too large"


async def test_b15_a_cancelling_server_after_the_deadline_means_the_deadline(mock_clock: MockClock) -> None:
    outcome = Outcome()
    async with channel() as world, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: outcome.unary(world.channel, timeout=1))
        peer = await world.exchange()
        peer.reset(1, 8)
        mock_clock.jump(1)
        await world.exchange()
    assert outcome.code is StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("answers", [(), (b"a", b"b")])
async def test_b05_none_or_two_answers_to_a_unary_call(answers: tuple[bytes, ...]) -> None:
    assert (await asked(lambda peer: respond(peer, *answers))).code is StatusCode.UNIMPLEMENTED


async def test_b05_a_truncated_answer_is_an_error() -> None:
    def answer(peer: RawPeer) -> None:
        peer.headers(1, RESPONSE)
        peer.data(1, message(b"answer")[:8])
        peer.headers(1, OK, end=True)

    assert (await asked(answer)).code is StatusCode.INTERNAL


async def test_b05_an_answer_over_the_limit_is_refused_from_five_bytes() -> None:
    def answer(peer: RawPeer) -> None:
        peer.headers(1, RESPONSE)
        peer.data(1, message(bytes(1001))[:5])

    assert (await asked(answer, settings=ChannelSettings(max_message_size=1000))).code is StatusCode.RESOURCE_EXHAUSTED


async def test_b06_a_gzip_answer() -> None:
    def answer(peer: RawPeer) -> None:
        peer.headers(1, [*RESPONSE, (b"grpc-encoding", b"gzip")])
        peer.data(1, message(gzip.compress(b"answer"), flags=1))
        peer.headers(1, OK, end=True)

    assert (await asked(answer)).answer == b"answer"


async def test_b06_an_unknown_encoding_is_internal() -> None:
    assert (await asked(lambda peer: respond(peer, headers=[*RESPONSE, (b"grpc-encoding", b"br")]))).code == 13


async def test_informational_responses_are_passed_over() -> None:
    def answer(peer: RawPeer) -> None:
        peer.headers(1, [(b":status", b"103")])
        respond(peer, b"x")

    assert (await asked(answer)).answer == b"x"


# -- 3: the deadline ---------------------------------------------------------------------------------


async def test_b03_the_deadline_ends_the_call_and_resets_it(mock_clock: MockClock) -> None:
    outcome = Outcome()
    async with channel() as world, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: outcome.unary(world.channel, timeout=2))
        peer = await world.exchange()
        mock_clock.jump(3)
        await world.exchange()
        assert outcome.code is StatusCode.DEADLINE_EXCEEDED
        assert peer.trace(1)[-1] == "RST(8)"


async def test_b03_the_deadline_covers_dialling(mock_clock: MockClock) -> None:
    outcome = Outcome()

    async def never() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async with channel() as world, trio.open_nursery() as nursery:
        world.dial = never  # type: ignore[method-assign]
        world.channel._dial = never
        nursery.start_soon(lambda: outcome.unary(world.channel, timeout=2))
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(3)
        await trio.testing.wait_all_tasks_blocked()
    assert outcome.code is StatusCode.DEADLINE_EXCEEDED


# -- 8: early answers --------------------------------------------------------------------------------


async def test_b08_an_early_answer_ends_sending_and_is_ok() -> None:
    """Response, trailers, RST_STREAM(NO_ERROR): the answer counts, not the reset."""
    sent: list[bool] = []
    answers: list[bytes | None] = []
    async with channel() as world, trio.open_nursery() as nursery:

        async def upload() -> None:
            async with world.channel.call(UPLOAD.path) as call:
                while not sent or sent[-1]:
                    sent.append(await call.send_message(bytes(50_000)))
                answers.append(await call.receive_message())
                answers.append(await call.receive_message())

        nursery.start_soon(upload)
        peer = await world.exchange()
        assert sent == [True]  # and waits for credit
        respond(peer, b"stored")
        peer.reset(1, 0)
        await world.exchange()
        assert sent == [True, False]
        assert answers == [b"stored", None]
        assert "RST" not in peer.trace(1)[-1]


async def test_b08_an_early_error_is_seen_by_a_sender_without_credit() -> None:
    errors: list[RpcError] = []
    async with channel() as world, trio.open_nursery() as nursery:

        async def upload() -> None:
            async with world.channel.call(UPLOAD.path) as call:
                assert not await call.send_message(bytes(1_000_000))
                with pytest.raises(RpcError) as caught:
                    await call.receive_message()
                errors.append(caught.value)

        nursery.start_soon(upload)
        peer = await world.exchange()
        peer.headers(1, [*RESPONSE, (b"grpc-status", b"8"), (b"grpc-message", b"too large")], end=True)
        await world.exchange()
        assert [error.code for error in errors] == [StatusCode.RESOURCE_EXHAUSTED]
        assert peer.trace(1)[-1] == "RST(8)"  # nobody will send the rest


# -- leaving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["return", "raise", "cancel"])
async def test_leaving_a_call_early_resets_it_and_credits_what_was_not_read(how: str) -> None:
    async def leave(call: ClientCall) -> None:
        match how:
            case "raise":
                raise KeyError("the caller's own")
            case "cancel":
                await trio.sleep_forever()

    async def one(world: ClientWorld, go: trio.Event, scope: trio.CancelScope) -> None:
        with scope:
            async with world.channel.call(CHAT.path) as call:
                await call.send_message(b"first")
                await go.wait()
                await leave(call)

    async with channel() as world:
        for index in range(30):
            stream_id = 2 * index + 1
            go, scope = trio.Event(), trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_expect_key_error if how == "raise" else _just, one, world, go, scope)
                peer = await world.exchange()
                peer.headers(stream_id, RESPONSE)
                peer.data(stream_id, message(bytes(30_000)))
                await world.exchange()
                go.set()
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
            await world.exchange()
            assert peer.trace(stream_id)[-1] == "RST(8)"
        assert peer.window > 40_000


Task = Callable[[ClientWorld, trio.Event, trio.CancelScope], Awaitable[None]]


async def _just(task: Task, world: ClientWorld, go: trio.Event, scope: trio.CancelScope) -> None:
    await task(world, go, scope)


async def _expect_key_error(task: Task, world: ClientWorld, go: trio.Event, scope: trio.CancelScope) -> None:
    with pytest.raises(KeyError):
        await task(world, go, scope)


async def test_cancelling_a_receive_loses_nothing(autojump_clock: MockClock) -> None:
    """``move_on_after`` around ``receive_message`` is how a caller polls; half a message must not be lost by it."""
    got: list[bytes | None] = []
    async with channel() as world, trio.open_nursery() as nursery:

        async def poll() -> None:
            async with world.channel.call(CHAT.path) as call:
                while not got:
                    with trio.move_on_after(1):
                        got.append(await call.receive_message())

        nursery.start_soon(poll)
        peer = await world.exchange()
        peer.headers(1, RESPONSE)
        for byte in message(b"abc"):
            peer.data(1, bytes([byte]))
            await world.exchange()
            await trio.sleep(3)
        await world.exchange()
    assert got == [b"abc"]


async def test_sending_after_half_close_is_refused() -> None:
    async with channel() as world, trio.open_nursery() as nursery:

        async def call() -> None:
            async with world.channel.call(CHAT.path) as call:
                await call.half_close()
                await call.half_close()
                assert not await call.send_message(b"too late")

        nursery.start_soon(call)
        peer = await world.exchange()
    assert peer.trace(1)[:2] == ["HEADERS", "DATA(0)+ES"]
    assert all(not text.startswith("DATA") for text in peer.trace(1)[2:])
