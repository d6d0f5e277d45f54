"""What supervisor and worker say: every message survives its way, in whatever pieces the kernel delivers it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from casproxy import __version__
from casproxy.config import Config
from casproxy.config.kinds import SecretStr
from casproxy.config.load import load
from casproxy.config.model import AwsCreds, AwsSource, CredentialsService, GrpcServer, NatsServer, Server, TlsConfig
from casproxy.workers.merge import Family
from casproxy.workers.messages import Drain, Failed, Link, Message, Orders, Scrape, Snapshot, State
from casproxy_tests.config.test_load import DOCUMENTED

SECRETIVE = Config(
    server=Server(
        grpc=GrpcServer(timeout=math.inf, tls_config=TlsConfig(certificate=Path("c"), private_key=Path("k")))
    ),
    credentials_service=CredentialsService(
        aws_secret_manager=AwsSource(region="r", creds=AwsCreds(access_key="a", secret_key=SecretStr("hush")))
    ),
    nats_server=NatsServer(uri="nats://n", token=SecretStr("hush, too")),
)


def orders(config: Config) -> Orders:
    return Orders(number=3, version=__version__, config=config, addresses={"grpc": "[::1]:9001"}, ports=(9001, 8001))


MESSAGES: list[Message] = [
    orders(Config()),
    orders(SECRETIVE),
    Scrape(7),
    Drain(),
    State(started=True, not_ready="secrets: down", taken={"grpc": 4}, open={"grpc": 2, "http": 1}, calls=9),
    Snapshot(7, [Family("x", "counter", "é", [("x_total", {"a": "b"}, math.inf)] * 10_000)]),
    Failed(kind="os", text="No such file or directory", errno=2, file="key.pem"),
]


async def test_all_messages_arrive_as_they_were_sent() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        for message in MESSAGES:
            nursery.start_soon(Link(near).send, message)
            assert await Link(far).receive() == message


async def test_several_at_once_and_one_in_crumbs() -> None:
    near, raw = trio.testing.memory_stream_pair()
    for message in MESSAGES:
        await Link(near).send(message)
    await near.send_eof()
    data = b"".join([part async for part in raw])
    crumbs, received = trio.testing.memory_stream_one_way_pair()
    link = Link(trio.StapledStream(crumbs, received))
    await crumbs.send_all(data)
    assert [await link.receive() for _ in MESSAGES] == MESSAGES
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_in_crumbs, crumbs, data[:2000])
        assert await link.receive() == MESSAGES[0]


async def _send_in_crumbs(stream: trio.abc.SendStream, data: bytes) -> None:
    for start in range(0, len(data), 7):
        await stream.send_all(data[start : start + 7])


def test_a_configuration_that_was_read_from_files_survives(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(DOCUMENTED)
    message = orders(load(tmp_path, {}).config)
    assert round_trip(message) == message


def test_a_secret_is_hidden_again_at_the_other_end() -> None:
    received: Any = round_trip(orders(SECRETIVE))
    assert "hush" not in repr(received)
    assert received.config.nats_server.token.reveal() == "hush, too"


def round_trip(message: Message) -> Message | None:
    async def there() -> Message | None:
        near, far = trio.testing.memory_stream_pair()
        await Link(near).send(message)
        return await Link(far).receive()

    return trio.run(there)


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x05abc"], ids=["nothing", "half a length", "half a message"])
async def test_the_end_is_the_end_even_within_a_message(sent: bytes) -> None:
    near, far = trio.testing.memory_stream_pair()
    await near.send_all(sent)
    await near.aclose()
    assert await Link(far).receive() is None


async def test_a_receiver_that_was_cancelled_has_lost_nothing() -> None:
    near, raw = trio.testing.memory_stream_pair()
    await Link(near).send(MESSAGES[1])
    await near.send_eof()
    data = b"".join([part async for part in raw])
    sender, receiver = trio.testing.memory_stream_one_way_pair()
    link = Link(trio.StapledStream(sender, receiver))
    await sender.send_all(data[:100])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await sender.send_all(data[100:])
    assert await link.receive() == MESSAGES[1]
