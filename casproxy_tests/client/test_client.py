"""The client against the real RPC stack; the server's misbehaviour is chosen by each test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from casproxy.client import (
    Client,
    Phase,
    ServerInfo,
    SourceChanged,
    TargetExists,
    UnexpectedAnswer,
    Uploaded,
    open_client,
)
from casproxy.client.worker_file import PIECE_SIZE
from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy.errors import ArtifactCorrupt, DigestMismatch, InvalidRequest
from casproxy.rpc.errors import RpcError
from casproxy.wire.status import StatusCode
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.client.settle import settled
from casproxy_tests.client.sinks import Collected
from casproxy_tests.fakes.artifact_server import ArtifactServer, serve

SIZES = [0, 1, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 3 * PIECE_SIZE + 7]
NAMES = ["plain.txt", "señal-日本語-🚀.tar.gz", 'a "b";c.bin']


async def upload(server: ArtifactServer, *args: object, **options: object) -> Uploaded:
    async with serve(server) as address, open_client(address, "up", insecure=True) as client:
        return await client.upload(*args, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_goes_up_and_comes_back_the_same(tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(content := os.urandom(size))
    server = ArtifactServer()
    async with serve(server) as address, open_client(address, "tok.en", insecure=True) as client:
        uploaded = await client.upload(source)
        assert uploaded == Uploaded(Digest.of(content), size, "in", deduplicated=False)
        assert await client.download_file(uploaded.digest, target) == target
    assert target.read_bytes() == content
    assert set(server.tokens) == {"Bearer tok.en"}


@pytest.mark.parametrize("name", NAMES)
async def test_names_survive(tmp_path: Path, name: str) -> None:
    source, back = tmp_path / name, tmp_path / "back"
    source.write_bytes(b"content")
    back.mkdir()
    async with serve(ArtifactServer()) as address, open_client(address, insecure=True) as client:
        uploaded = await client.upload(source)
        assert uploaded.file_name == name
        resource = await client.describe(uploaded.digest)
        assert (resource.file_name, resource.size) == (name, 7)
        assert await client.download_file(uploaded.digest, back) == back / name
    assert (back / name).read_bytes() == b"content"


@pytest.mark.parametrize("size", SIZES)
async def test_the_messages_are_those_of_the_contract(size: int) -> None:
    server = ArtifactServer()
    await upload(server, bytes(size), name="n")
    (requests,) = server.writes
    assert [bool(request.resource_name) for request in requests] == [True] + [False] * (len(requests) - 1)
    assert [request.finish_write for request in requests] == [False] * (len(requests) - 1) + [True]
    assert all(len(request.data) == PIECE_SIZE for request in requests[:-1])
    assert sum(len(request.data) for request in requests) == size
    assert {request.write_offset for request in requests} == {0}


async def test_without_a_name_the_digest_is_the_name() -> None:
    assert (await upload(ArtifactServer(), b"")).file_name == EMPTY_DIGEST.hex


async def test_what_is_stored_already_is_not_sent_again() -> None:
    server, content = ArtifactServer(), bytes(64 * PIECE_SIZE)
    server.put("old", content)
    uploaded = await upload(server, content)
    assert uploaded.deduplicated
    assert server.bytes_received == PIECE_SIZE


async def test_an_early_refusal_ends_the_sending(tmp_path: Path) -> None:
    server = ArtifactServer(refuse=RpcError(StatusCode.UNAUTHENTICATED, "JWT token is missing"))
    with pytest.raises(RpcError) as caught:
        await upload(server, bytes(64 * PIECE_SIZE))
    assert (caught.value.code, caught.value.message) == (StatusCode.UNAUTHENTICATED, "JWT token is missing")


async def test_a_file_overwritten_meanwhile_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(PIECE_SIZE))

    def overwrite(phase: Phase, done: int, total: int | None) -> None:
        if phase is Phase.HASH:
            path.write_bytes(b"x" * PIECE_SIZE)

    server = ArtifactServer()
    with pytest.raises(SourceChanged, match=f"{path} changed while it was uploaded; nothing was stored"):
        await upload(server, path, progress=overwrite)
    assert server.stored == {}


async def test_a_file_cut_meanwhile_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(3 * PIECE_SIZE))

    def cut(phase: Phase, done: int, total: int | None) -> None:
        if phase is Phase.SEND and path.stat().st_size:
            os.truncate(path, 0)

    server = ArtifactServer()
    with pytest.raises(SourceChanged, match="changed"):
        await upload(server, path, progress=cut)
    assert server.stored == {}


async def test_a_growing_file_is_stored_as_it_was_when_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"line 1\n")

    def grow(phase: Phase, done: int, total: int | None) -> None:
        with path.open("ab") as file:
            file.write(b"line 2\n")

    server = ArtifactServer()
    uploaded = await upload(server, path, progress=grow)
    assert server.stored[uploaded.digest.hex][1] == b"line 1\n"


async def test_a_wrong_digest_of_the_caller_is_a_mismatch() -> None:
    with pytest.raises(DigestMismatch) as caught:
        await upload(ArtifactServer(), b"abc", digest=EMPTY_DIGEST)
    assert (caught.value.got, caught.value.want) == (Digest.of(b"abc").hex, EMPTY_DIGEST.hex)


async def test_a_server_that_committed_less_is_not_believed() -> None:
    with pytest.raises(UnexpectedAnswer, match="committed 2 bytes of 3"):
        await upload(ArtifactServer(answer_size=2), b"abc")


async def test_progress_of_both_ways(tmp_path: Path) -> None:
    seen: list[tuple[Phase, int, int | None]] = []
    source, size = tmp_path / "in", 2 * PIECE_SIZE
    source.write_bytes(bytes(size))
    async with serve(ArtifactServer()) as address, open_client(address, insecure=True) as client:
        uploaded = await client.upload(source, progress=lambda *args: seen.append(args))
        await client.download(uploaded.digest, Collected(), progress=lambda *args: seen.append(args))
    assert seen == [
        (Phase.HASH, size, size),
        (Phase.SEND, PIECE_SIZE, size),
        (Phase.SEND, size, size),
        (Phase.RECEIVE, PIECE_SIZE, size),
        (Phase.RECEIVE, size, size),
    ]


@pytest.mark.parametrize("size", [1, PIECE_SIZE, 3 * PIECE_SIZE])
async def test_corrupt_bytes_never_make_a_file_nor_a_complete_sink(tmp_path: Path, size: int) -> None:
    server, sink = ArtifactServer(corrupt=True), Collected()
    digest = Digest(server.put("f", bytes(size)))
    async with serve(server) as address, open_client(address, insecure=True) as client:
        with pytest.raises(ArtifactCorrupt, match="checksum mismatch"):
            await client.download_file(digest, tmp_path / "out")
        with pytest.raises(ArtifactCorrupt):
            await client.download(digest, sink)
    assert os.listdir(tmp_path) == []
    assert len(sink.content) < size


async def test_a_download_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    server = ArtifactServer(fail_read_after=1)
    digest = Digest(server.put("f", bytes(3 * PIECE_SIZE)))
    async with serve(server) as address, open_client(address, insecure=True) as client:
        with pytest.raises(RpcError, match="the store went away"):
            await client.download_file(digest, tmp_path / "out")
    assert os.listdir(tmp_path) == []


async def test_an_existing_file_is_kept_and_nothing_is_read(tmp_path: Path) -> None:
    server = ArtifactServer()
    digest = Digest(server.put("../evil/f", b"new"))
    (tmp_path / "f").write_bytes(b"old")
    async with serve(server) as address, open_client(address, insecure=True) as client:
        with pytest.raises(TargetExists):
            await client.download_file(digest, tmp_path)
        assert not server.reading.is_set()
        await client.download_file(digest, tmp_path, force=True)
    assert (tmp_path / "f").read_bytes() == b"new"


async def test_unknown_artifact(tmp_path: Path) -> None:
    async with serve(ArtifactServer()) as address, open_client(address, insecure=True) as client:
        for call in (client.describe(EMPTY_DIGEST), client.download_file(EMPTY_DIGEST, tmp_path / "out")):
            with pytest.raises(RpcError) as caught:
                await call
            assert caught.value.code is StatusCode.NOT_FOUND
    assert os.listdir(tmp_path) == []


async def test_status() -> None:
    server = ArtifactServer()
    async with serve(server) as address, open_client(address, insecure=True) as client:
        assert await client.infoz() == ServerInfo("9.9", ("FS", "OCI"), "")
        await client.statusz(readiness=True)
        server.not_ready = "starting"
        with pytest.raises(RpcError, match="starting"):
            await client.statusz(readiness=True)
    assert set(server.tokens) == {""}  # no token, no header


async def test_a_timeout_is_a_deadline() -> None:
    with pytest.raises(RpcError) as caught:
        await upload(ArtifactServer(stall=True), b"abc", timeout=0.05)
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED


async def test_the_error_of_the_block_is_not_hidden_in_a_group() -> None:
    with pytest.raises(LookupError, match="mine"):
        async with open_client("127.0.0.1:1", insecure=True):
            raise LookupError("mine")


async def test_nobody_listens() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
    await listener.aclose()
    async with open_client(address, insecure=True) as client:
        with pytest.raises(RpcError, match=f"cannot connect to {address}: Connection refused") as caught:
            await client.infoz()
    assert caught.value.code is StatusCode.UNAVAILABLE


@pytest.mark.parametrize("token", ["a b", "a\nb", "ä", "a\x00"])
async def test_a_token_that_cannot_be_one_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        async with open_client("127.0.0.1:1", token, insecure=True):
            pytest.fail("opened")
    assert token not in str(caught.value)


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff"), "a\nb", "a\x9b", "é" * 512 + "x"])
async def test_a_name_no_server_takes_is_refused_before_anything_is_hashed(tmp_path: Path, name: str) -> None:
    server = ArtifactServer()
    with pytest.raises(InvalidRequest, match="--name"):
        await upload(server, tmp_path / name)
    assert server.writes == []


async def test_an_upload_cancelled_anywhere_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(content := bytes(PIECE_SIZE + 1))
    server = ArtifactServer()
    async with serve(server) as address:

        async def scenario() -> Uploaded:
            async with open_client(address, insecure=True) as client:
                return await client.upload(path)

        async def check(run: Run[Uploaded]) -> None:
            assert run.value is None or run.value.size == len(content)
            server.stored.clear()

        assert await cancel_everywhere(scenario, check, settle=settled) > 5


async def test_a_download_cancelled_anywhere_leaves_a_whole_file_or_none(tmp_path: Path) -> None:
    server = ArtifactServer()
    content = os.urandom(PIECE_SIZE + 1)
    digest = Digest(server.put("f", content))
    async with serve(server) as address:

        async def scenario() -> Path:
            async with open_client(address, insecure=True) as client:
                return await client.download_file(digest, tmp_path)

        async def check(run: Run[Path]) -> None:
            assert run.cancelled or os.listdir(tmp_path) == ["f"]
            assert os.listdir(tmp_path) in ([], ["f"])
            if os.listdir(tmp_path):
                assert (tmp_path / "f").read_bytes() == content
                (tmp_path / "f").unlink()

        assert await cancel_everywhere(scenario, check, settle=settled) > 5


async def test_many_transfers_at_once(tmp_path: Path) -> None:
    contents = [os.urandom(PIECE_SIZE + number) for number in range(8)]

    async def there_and_back(client: Client, content: bytes) -> None:
        uploaded = await client.upload(content)
        await client.download(uploaded.digest, sink := Collected())
        assert sink.content == content

    async with (
        serve(ArtifactServer()) as address,
        open_client(address, insecure=True) as client,
        trio.open_nursery() as nursery,
    ):
        for content in contents:
            nursery.start_soon(there_and_back, client, content)
