"""The audit trail against real NATS servers: what arrives, and what happens when nothing can."""

from __future__ import annotations

import io
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from casproxy.auth.claims import Claims, Role
from casproxy.auth.mint import mint
from casproxy.client import open_client
from casproxy.config import Config
from casproxy.config.kinds import SecretStr
from casproxy.config.model import NatsServer
from casproxy.dev.place import BACKEND, ORG_ID, SECRET_ID, Place
from casproxy.digest import Digest
from casproxy.observe.audit import AuditSettings, AuditTrail, open_trail
from casproxy.observe.audit_event import event_data, go_json
from casproxy.observe.facts import Caller, Downloaded, Fact, Uploaded
from casproxy.observe.nats import parse_servers
from casproxy_tests.app.serving import config_of, serving
from casproxy_tests.cancellation.harness import Run, cancel_everywhere
from casproxy_tests.cas import PLAIN
from casproxy_tests.real.certificates import client_context, write_server_files
from casproxy_tests.real.gate import Gate
from casproxy_tests.real.nats import VERSIONS, Nats, running_nats
from casproxy_tests.real.process import free_port

CALLER = Caller(ORG_ID, "uploader", BACKEND)
FACT = Uploaded(Digest.of(b"x"), 1, "x", skipped=False)
EAGER = AuditSettings(first_pause=0.02, longest_pause=0.1)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def nats(tmp_path: Path, version: str) -> Iterator[Nats]:
    with running_nats(tmp_path / "nats", version) as server:
        server.create_stream()
        yield server


def audited(place: Place, uri: str, token: str = "") -> Config:
    server = NatsServer(uri=uri, token=SecretStr(token) if token else None)
    return msgspec.structs.replace(config_of(place), nats_server=server)


async def discard(_piece: memoryview) -> None:
    """Take a piece of a download."""


async def arrived(server: Nats, count: int) -> list[tuple[str, dict[str, Any]]]:
    messages = await trio.to_thread.run_sync(server.wait_for, count)
    return [(subject, json.loads(payload)) for subject, payload in messages]


def lines(out: io.StringIO, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, out.getvalue().splitlines()) if line["event"] == event]


def record(trail: AuditTrail, count: int) -> None:
    for number in range(count):
        trail.record(CALLER, Uploaded(FACT.digest, number, "", skipped=False))


async def until(trail: AuditTrail, **counts: int) -> None:
    """Return when the trail counts this."""
    while any(trail.counts()[name] < count for name, count in counts.items()):
        await trail.changed()


async def until_down(trail: AuditTrail) -> None:
    """Return when the trail has noticed that nothing gets through."""
    while trail.up:
        await trail.changed()


# -- what arrives -----------------------------------------------------------------------------------


async def test_uploads_and_downloads_arrive_in_the_originals_form(place: Place, nats: Nats) -> None:
    name = "<señal> & \u2028 日本語.tar.gz"
    content, digest = b"x" * 1024, Digest.of(b"x" * 1024)
    async with serving(audited(place, nats.uri)) as server:
        async with open_client(server.grpc, place.uploader_token, insecure=True) as client:
            await client.upload(content, name=name)
            await client.upload(content, name="another name")
        async with open_client(server.grpc, place.downloader_token, insecure=True) as client:
            await client.download(digest, discard)
        async with httpx.AsyncClient(verify=PLAIN, trust_env=False) as http:
            url = f"http://{server.http}/download/{digest}"
            part = {"range": "bytes=0-9", "authorization": f"Bearer {place.downloader_token}"}
            assert (await http.get(url, headers=part)).status_code == 206
            assert (await http.get(url, params={"t": place.downloader_token})).content == content
            assert (await http.head(url, params={"t": place.downloader_token})).status_code == 200
        got = await arrived(nats, 4)
    facts: list[Fact] = [
        Uploaded(digest, 1024, name, skipped=False),
        Uploaded(digest, 1024, name, skipped=True),
        Downloaded(digest, 1024),
        Downloaded(digest, 1024, name),
    ]
    want = [event_data(CALLER, fact) for fact in facts]
    assert sorted(go_json(event["Data"]) for _, event in got) == sorted(map(go_json, want))
    assert {subject for subject, _ in got} == {
        "audit.casartifact.casartifactuploaded",
        "audit.casartifact.casartifactdownloaded",
    }
    assert all(list(event) == ["EventType", "Timestamp", "Data"] for _, event in got)


async def test_the_control_plane_itself_leaves_no_trail(place: Place, nats: Nats, log_lines: io.StringIO) -> None:
    private, now = place.private_key.read_bytes(), time.time()
    claims = [
        Claims(Role.UPLOADER, SECRET_ID, BACKEND, ORG_ID, source_internal=True, expires_at=now + 600),
        Claims(Role.UPLOADER, SECRET_ID, BACKEND, "not-a-uuid", expires_at=now + 600),
        Claims(Role.UPLOADER, SECRET_ID, BACKEND, ORG_ID, expires_at=now + 600),
    ]
    async with serving(audited(place, nats.uri)) as server:
        for number, claim in enumerate(claims):
            async with open_client(server.grpc, mint(private, claim, now=now), insecure=True) as client:
                await client.upload(b"%d" % number)
        [(_, only)] = await arrived(nats, 1)
    assert only["Data"]["Info"]["digest"] == Digest.of(b"2").hex
    assert len(lines(log_lines, "audit_event_skipped")) == 1


# -- when nothing can arrive ------------------------------------------------------------------------


async def test_a_server_that_comes_late_gets_everything_once(
    tmp_path: Path, version: str, log_lines: io.StringIO
) -> None:
    port = free_port()
    async with open_trail(parse_servers(f"nats://127.0.0.1:{port}"), EAGER) as trail:
        record(trail, 200)
        await until_down(trail)
        with running_nats(tmp_path / "nats", version, port=port) as server:
            server.create_stream()
            await until(trail, published=200)
            assert len(await arrived(server, 200)) == 200
    assert len(lines(log_lines, "audit_unavailable")) == 1
    assert len(lines(log_lines, "audit_available")) == 1


async def test_a_server_that_goes_and_comes_back_has_each_event_once(tmp_path: Path, version: str) -> None:
    port = free_port()
    async with open_trail(parse_servers(f"nats://127.0.0.1:{port}"), EAGER) as trail:
        with running_nats(tmp_path / "nats", version, port=port) as server:
            server.create_stream()
            record(trail, 500)
            await until(trail, published=1)
        record(trail, 500)
        with running_nats(tmp_path / "nats", version, port=port) as server:
            await until(trail, published=1000)
            sizes = [event["Data"]["Info"]["size_bytes"] for _, event in await arrived(server, 1000)]
    assert sorted(sizes) == sorted([*range(500), *range(500)])
    assert trail.counts()["dropped"] == 0


async def test_a_server_that_is_killed_gets_what_it_had_not_acknowledged(
    tmp_path: Path, version: str, log_lines: io.StringIO
) -> None:
    """What it had acknowledged and not yet written is its own loss: JetStream does not wait for the disk."""
    port = free_port()
    async with open_trail(parse_servers(f"nats://127.0.0.1:{port}"), EAGER) as trail:
        with running_nats(tmp_path / "nats", version, port=port) as server:
            server.create_stream()
            record(trail, 2000)
            await until(trail, published=1)
            server.kill()
            acknowledged = trail.counts()["published"]
            await until_down(trail)
            record(trail, 100)
        with running_nats(tmp_path / "nats", version, port=port) as server:
            await until(trail, published=2100)
            messages = await arrived(server, 2100 - acknowledged)
    events = [event["Data"]["Info"]["size_bytes"] for _, event in messages]
    assert len(events) - len(set(events)) <= 100, "an event is there twice"
    assert set(events) >= set(range(acknowledged, 2000)), "what was not acknowledged is sent again"
    assert events[-100:] == list(range(100))
    assert trail.counts()["dropped"] == trail.counts()["rejected"] == 0
    assert len(lines(log_lines, "audit_unavailable")) == len(lines(log_lines, "audit_available")) == 1


async def test_connections_that_break_again_and_again_lose_and_double_nothing(nats: Nats) -> None:
    with Gate(nats.port) as gate:
        async with open_trail(parse_servers(f"nats://127.0.0.1:{gate.port}"), EAGER) as trail:
            for broken in range(5):
                record(trail, 200)
                await until(trail, published=broken * 200 + 1)
                gate.shut()  # with acknowledgements on their way
                gate.reopen()
                await until(trail, published=broken * 200 + 200)
            await trail.empty()
    sizes = [event["Data"]["Info"]["size_bytes"] for _, event in await arrived(nats, 1000)]
    assert sorted(sizes) == sorted([*range(200)] * 5)


async def test_events_wait_for_a_stream_that_is_missing(tmp_path: Path, version: str, log_lines: io.StringIO) -> None:
    with running_nats(tmp_path / "nats", version) as server:
        async with open_trail(parse_servers(server.uri), EAGER) as trail:
            record(trail, 10)
            await until_down(trail)
            assert trail.waiting == 10
            server.create_stream()
            await until(trail, published=10)
    [line] = lines(log_lines, "audit_unavailable")
    assert "no stream" in line["error"]


async def test_transfers_go_on_while_the_server_is_silent(place: Place, nats: Nats) -> None:
    with Gate(nats.port) as gate:
        async with serving(audited(place, f"nats://127.0.0.1:{gate.port}")) as server:
            with gate.jammed():
                async with open_client(server.grpc, place.uploader_token, insecure=True) as client:
                    for number in range(20):
                        await client.upload(b"%d" % number)
            assert len(await arrived(nats, 20)) == 20


async def test_what_does_not_fit_is_dropped_counted_and_logged_once(log_lines: io.StringIO) -> None:
    settings = AuditSettings(queue_size=3, first_pause=0.02, flush=0.1)
    async with open_trail(parse_servers(f"nats://127.0.0.1:{free_port()}"), settings) as trail:
        record(trail, 10)
        assert trail.counts()["dropped"] == 7 and trail.waiting == 3
    assert trail.counts()["dropped"] == 10
    assert len(lines(log_lines, "audit_events_dropped")) == 1


async def test_an_event_the_stream_never_takes_does_not_block_the_rest(tmp_path: Path, version: str) -> None:
    with running_nats(tmp_path / "nats", version) as server:
        server.create_stream(max_msg_size=1000)
        async with open_trail(parse_servers(server.uri), EAGER) as trail:
            trail.record(CALLER, Uploaded(FACT.digest, 1, "x" * 1000, skipped=False))
            trail.record(CALLER, FACT)
            await until(trail, published=1, rejected=1)


# -- who lets us in ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["setting", "address"])
async def test_the_token_is_shown(place: Place, tmp_path: Path, version: str, form: str) -> None:
    with running_nats(tmp_path / "nats", version, token="s3cret") as server:
        server.create_stream()
        address = server.uri if form == "setting" else f"nats://s3cret@127.0.0.1:{server.port}"
        config = audited(place, address, "s3cret" if form == "setting" else "")
        async with serving(config) as serves:
            async with open_client(serves.grpc, place.uploader_token, insecure=True) as client:
                await client.upload(b"x")
            await arrived(server, 1)


async def test_a_wrong_token_is_an_outage_that_is_told_without_it(
    tmp_path: Path, version: str, log_lines: io.StringIO
) -> None:
    with running_nats(tmp_path / "nats", version, token="s3cret") as server:
        async with open_trail(parse_servers(server.uri, "wr0ng"), EAGER) as trail:
            await until_down(trail)
    [line] = lines(log_lines, "audit_unavailable")
    assert "Authorization" in line["error"]
    assert "wr0ng" not in log_lines.getvalue()


async def test_tls_is_spoken_when_the_server_wants_it(tmp_path: Path, version: str, log_lines: io.StringIO) -> None:
    certificate, key = write_server_files(tmp_path)
    flags = ("--tls", "--tlskey", key, "--tlscert", certificate)
    with running_nats(tmp_path / "nats", version, *flags, jetstream=False) as server:
        async with open_trail(parse_servers(server.uri), EAGER, client_context()) as trail:
            record(trail, 1)
            await until_down(trail)
        async with open_trail(parse_servers(server.uri), EAGER, ssl.create_default_context()) as distrusting:
            await until_down(distrusting)
    reasons = [line["error"] for line in lines(log_lines, "audit_unavailable")]
    assert "JetStream is off" in reasons[0] and "certificate verify failed" in reasons[1]


async def test_cancelled_at_every_await_it_leaves_nothing(tmp_path: Path, nats: Nats) -> None:
    async def live() -> None:
        async with open_trail(parse_servers(nats.uri), EAGER) as trail:
            record(trail, 3)
            await until(trail, published=3)

    async def check(_run: Run[None]) -> None:
        """The harness has looked for tasks and files."""

    assert await cancel_everywhere(live, check) > 10
