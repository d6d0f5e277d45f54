"""No road through the whole server leaves garbage in a circle, however it ends: collecting it would stop everybody."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec
import pytest
import trio

from casproxy._proto.google.bytestream import bytestream_pb2
from casproxy.client import Client
from casproxy.dev.place import Place
from casproxy.digest import Digest
from casproxy.errors import CasproxyError
from casproxy.gob import encode_resource_name
from casproxy.rpc.api import ClientCall
from casproxy.rpc.channel import Channel, open_channel, open_channel_over
from casproxy.rpc.errors import RpcError
from casproxy.services import registry
from casproxy.wire.metadata import Metadata
from casproxy_tests.app.serving import Serving, config_of, place_at, serving
from casproxy_tests.garbage import circles_of, told
from casproxy_tests.web.world import until

STORED: Final = bytes(range(251)) * 12_000  # 3 MB: more than the windows take at once
NOWHERE: Final = Digest.of(b"nobody has stored this")
WRONG_TOKEN: Final = "e30.e30.AAAA"


@dataclass(frozen=True, slots=True)
class World:
    """A server and a connection to it that is there all the time."""

    place: Place
    server: Serving
    channel: Channel

    @property
    def uploader(self) -> Client:
        return Client(self.channel, self.place.uploader_token)

    @property
    def downloader(self) -> Client:
        return Client(self.channel, self.place.downloader_token)

    def staged(self) -> bool:
        """An upload has come so far that the store has opened a file for it."""
        return os.listdir(self.place.root / "store/.staging") != ["lock"]

    @asynccontextmanager
    async def half_an_upload(self, channel: Channel, timeout: float = 60.0) -> AsyncIterator[ClientCall]:
        data = os.urandom(100_000)
        half = bytestream_pb2.WriteRequest(resource_name=encode_resource_name("a", Digest.of(data)), data=data[:50_000])
        metadata = Metadata([("authorization", f"Bearer {self.place.uploader_token}")])
        async with channel.call(registry.WRITE.path, metadata=metadata, timeout=timeout) as call:
            await call.send_message(half.SerializeToString())
            await until(self.staged)
            yield call

    @asynccontextmanager
    async def begun_download(self, channel: Channel) -> AsyncIterator[ClientCall]:
        request = bytestream_pb2.ReadRequest(resource_name=Digest.of(STORED).hex)
        metadata = Metadata([("authorization", f"Bearer {self.place.downloader_token}")])
        async with channel.call(registry.READ.path, metadata=metadata) as call:
            await call.send_message(request.SerializeToString())
            await call.half_close()
            await call.receive_message()
            yield call


Road: TypeAlias = Callable[[World], Awaitable[None]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_at(tmp_path_factory.mktemp("garbage")) as made:
        yield made


@asynccontextmanager
async def connected(server: Serving) -> AsyncIterator[Channel]:
    host, port = server.grpc.rsplit(":", 1)
    async with open_channel(host, int(port)) as channel:
        yield channel


async def ignore(_piece: memoryview) -> None:
    await trio.lowlevel.checkpoint()


# -- gRPC -------------------------------------------------------------------------------------------


async def upload_new(world: World) -> None:
    await world.uploader.upload(os.urandom(100_000))


async def upload_known(world: World) -> None:
    await world.uploader.upload(STORED)


async def upload_of_another_digest(world: World) -> None:
    with suppress(CasproxyError):
        await world.uploader.upload(os.urandom(1000), digest=NOWHERE)


async def upload_with_a_wrong_token(world: World) -> None:
    with suppress(RpcError):
        await Client(world.channel, WRONG_TOKEN).upload(b"x")


async def upload_with_the_token_of_another_role(world: World) -> None:
    with suppress(RpcError):
        await world.downloader.upload(b"x")


async def upload_reset(world: World) -> None:
    async with world.half_an_upload(world.channel):
        pass


async def upload_past_its_deadline(world: World) -> None:
    with suppress(RpcError):
        async with world.half_an_upload(world.channel, timeout=0.05) as call:
            await call.receive_message()


async def download(world: World) -> None:
    await world.downloader.download(Digest.of(STORED), ignore)


async def download_of_nothing(world: World) -> None:
    with suppress(RpcError):
        await world.downloader.download(NOWHERE, ignore)


async def read_of_nothing(world: World) -> None:
    request = bytestream_pb2.ReadRequest(resource_name=NOWHERE.hex).SerializeToString()
    metadata = Metadata([("authorization", f"Bearer {world.place.downloader_token}")])
    with suppress(RpcError):
        await world.channel.unary(registry.READ.path, request, metadata=metadata)


async def download_reset(world: World) -> None:
    async with world.begun_download(world.channel):
        pass


async def download_past_the_end(world: World) -> None:
    request = bytestream_pb2.ReadRequest(resource_name=Digest.of(STORED).hex, read_offset=1 << 40).SerializeToString()
    metadata = Metadata([("authorization", f"Bearer {world.place.downloader_token}")])
    with suppress(RpcError):
        await world.channel.unary(registry.READ.path, request, metadata=metadata)


# -- HTTP -------------------------------------------------------------------------------------------


async def _http(world: World, request: str, rest: bytes = b"\r\n", *, read: int = 1 << 30) -> None:
    host, port = world.server.http.rsplit(":", 1)
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n".encode() + rest)
        while read > 0 and (data := await stream.receive_some(65536)):
            read -= len(data)


async def http_get(world: World) -> None:
    await _http(world, f"GET /download/{Digest.of(STORED)}?t={world.place.downloader_token}")


async def http_get_aborted(world: World) -> None:
    await _http(world, f"GET /download/{Digest.of(STORED)}?t={world.place.downloader_token}", read=1000)


async def http_get_of_nothing(world: World) -> None:
    await _http(world, f"GET /download/{NOWHERE}?t={world.place.downloader_token}")


async def http_get_with_a_wrong_token(world: World) -> None:
    await _http(world, f"GET /download/{NOWHERE}?t={WRONG_TOKEN}")


def _body(world: World, declared: int, data: bytes) -> bytes:
    return f"authorization: Bearer {world.place.uploader_token}\r\ncontent-length: {declared}\r\n\r\n".encode() + data


async def http_put(world: World) -> None:
    await _http(world, "PUT /upload", _body(world, 100_000, os.urandom(100_000)))


async def http_put_aborted(world: World) -> None:
    data = os.urandom(50_000)
    await _http(world, f"PUT /upload/{Digest.of(data)}", _body(world, 100_000, data), read=0)


async def http_put_of_another_digest(world: World) -> None:
    await _http(world, f"PUT /upload/{NOWHERE}", _body(world, 1000, os.urandom(1000)))


@pytest.mark.parametrize(
    "road",
    [
        upload_new,
        upload_known,
        upload_of_another_digest,
        upload_with_a_wrong_token,
        upload_with_the_token_of_another_role,
        upload_reset,
        upload_past_its_deadline,
        download,
        download_of_nothing,
        read_of_nothing,
        download_reset,
        download_past_the_end,
        http_get,
        http_get_aborted,
        http_get_of_nothing,
        http_get_with_a_wrong_token,
        http_put,
        http_put_aborted,
        http_put_of_another_digest,
    ],
)
async def test_a_road_leaves_no_circle(place: Place, road: Road) -> None:
    async with serving(config_of(place)) as server, connected(server) as channel:
        world = World(place, server, channel)
        await world.uploader.upload(STORED)
        found = await circles_of(lambda: road(world))
    assert not found, told(found)


# -- connections and servers ------------------------------------------------------------------------


async def test_a_connection_that_is_lost_leaves_nothing_in_a_circle(place: Place) -> None:
    async with serving(config_of(place)) as server, connected(server) as channel:
        world = World(place, server, channel)
        await world.uploader.upload(STORED)

        async def lose() -> None:
            streams: list[trio.SocketStream] = []

            async def dial() -> trio.SocketStream:
                host, port = server.grpc.rsplit(":", 1)
                streams.append(await trio.open_tcp_stream(host, int(port)))
                return streams[-1]

            async with open_channel_over(dial, authority="test") as own:
                with suppress(RpcError):
                    async with world.half_an_upload(own), world.begun_download(own) as call:
                        await trio.aclose_forcefully(streams[-1])
                        while await call.receive_message():
                            pass

        found = await circles_of(lose)
    assert not found, told(found)


@pytest.mark.parametrize("patience", [0.05, 5.0])
async def test_a_server_that_drains_leaves_no_frame_in_a_circle(place: Place, patience: float) -> None:
    """With an upload that is too slow for it, and with one that ends in time."""
    config = config_of(place)
    config = msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, drain_grace=patience))

    async def live() -> None:
        async with serving(config) as server, connected(server) as channel:
            world = World(place, server, channel)
            await upload_new(world)
            with suppress(RpcError):
                async with world.half_an_upload(channel) as call:
                    server.app.drain()
                    if patience < 1:
                        await call.receive_message()

    found = frames(await circles_of(live))
    assert not found, told(found)


def frames(found: Counter[str]) -> Counter[str]:
    """Without the objects that know each other for as long as a connection or a server is there."""
    return Counter({name: count for name, count in found.items() if name.startswith(("frame", "traceback"))})
