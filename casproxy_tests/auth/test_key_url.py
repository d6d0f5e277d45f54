"""JWK Sets from a server: what it may answer, what it may not, and what is told about it."""

from __future__ import annotations

import gzip
import json
import ssl
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from casproxy.auth.key_parts import Reading
from casproxy.auth.key_url import KeyUrl
from casproxy.auth.keys import VerificationKey
from casproxy.errors import ConfigError
from casproxy_tests.auth import forge
from casproxy_tests.auth.endpoint import Endpoint, document, named, open_endpoint
from casproxy_tests.cancellation import Run, cancel_everywhere

GOOD = (named("a"),)


def part(url: str, tls: ssl.SSLContext | None = None) -> KeyUrl:
    return KeyUrl(url, setting="auth.jwks.url", every=300.0, max_stale=60.0, tls=tls)


async def test_keys_are_fetched() -> None:
    async with open_endpoint(*GOOD) as endpoint:
        assert await part(endpoint.url).read() == Reading(GOOD)
        head = endpoint.requests[0].decode()
    assert head.startswith("GET /keys.json HTTP/1.1\r\n")
    assert "accept-encoding: identity\r\n" in head.lower() and "user-agent: casproxy/" in head.lower()


async def test_the_same_document_gives_the_same_keys_and_is_not_told_again() -> None:
    async with open_endpoint(*GOOD) as endpoint:
        endpoint.body = json.dumps({"keys": [{"kty": "oct"}, *json.loads(document(*GOOD))["keys"]]}).encode()
        keys = part(endpoint.url)
        with capture_logs() as logs:
            first, second = await keys.read(), await keys.read()
        assert first.keys is second.keys
    assert [line["event"] for line in logs] == ["jwks_key_skipped"]


async def test_an_outage_keeps_the_last_good_keys() -> None:
    async with open_endpoint(*GOOD) as endpoint:
        keys = part(endpoint.url)
        await keys.read()
        endpoint.down = True
        reading = await keys.read()
        assert reading.keys == GOOD
        assert reading.fault.startswith(f"cannot fetch {endpoint.url}: ")
        endpoint.down, endpoint.body = False, document(named("b"))
        assert await keys.read() == Reading((named("b"),))
    reading = await keys.read()
    assert reading.keys == (named("b"),) and "cannot fetch" in reading.fault


def answer(body: bytes = document(*GOOD), status: str = "200 OK", **headers: str) -> tuple[str, bytes, dict[str, str]]:
    return status, body, {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (answer(status="404 Not Found"), "the server answered 404"),
        (answer(status="500 Oops"), "the server answered 500"),
        (answer(status="204 No Content", body=b""), "the server answered 204"),
        (answer(status="206 Partial Content"), "the server answered 206"),
        (answer(status="302 Found", location="http://127.0.0.1/x"), "it redirects, which is not followed"),
        (answer(status="308 Permanent", location="/keys.json"), "it redirects, which is not followed"),
        (answer(gzip.compress(document(*GOOD)), content_encoding="gzip"), "the answer is encoded"),
        (answer(gzip.compress(bytes(10**7)), content_encoding="gzip"), "the answer is encoded"),
        (answer(b" " * 1_048_577), "an answer of more than 1048576 bytes"),
        (answer(content_length="10000"), "the answer ends"),
        (answer(b"<html>sign in</html>"), "is not JSON"),
        (answer(b'{"keys":[]}'), "holds no key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_answer_keeps_the_keys(wrong: tuple[str, bytes, dict[str, str]], text: str) -> None:
    async with open_endpoint(*GOOD) as endpoint:
        keys = part(endpoint.url)
        await keys.read()
        endpoint.status, endpoint.body, endpoint.headers = wrong
        reading = await keys.read()
        assert reading.keys == GOOD and text in reading.fault and endpoint.url in reading.fault
        assert len(endpoint.requests) == 2


async def test_the_largest_document() -> None:
    async with open_endpoint() as endpoint:
        endpoint.body = document(*GOOD).ljust(1_048_576)
        assert await part(endpoint.url).read() == Reading(GOOD)


@pytest.mark.parametrize(
    "url",
    ["", "keys.json", "ftp://h/k", "file:///etc/passwd", "https://", "https:///k", "http://h:99999/", "http://[::1/"],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^auth\.jwks\.url is no address of a document \(.*\): want https://"):
        part(url)


async def test_a_query_is_used_and_never_told() -> None:
    async with open_endpoint(*GOOD) as endpoint:
        keys = part(f"{endpoint.url}?key=hunter2")
        assert (await keys.read()).keys == GOOD
        assert b"GET /keys.json?key=hunter2 " in endpoint.requests[0]
        endpoint.status = "403 Forbidden"
        assert (await keys.read()).fault == f"cannot fetch {endpoint.url}: the server answered 403"


def test_cleartext_is_warned_about() -> None:
    with capture_logs() as logs:
        part("http://control-plane/keys?key=hunter2")
        part("https://control-plane/keys")
    assert [line["event"] for line in logs] == ["keys_over_cleartext"] and "hunter2" not in repr(logs)


async def test_a_name_that_leads_nowhere() -> None:
    reading = await part("https://nowhere.invalid/keys").read()
    assert reading.fault == "cannot fetch https://nowhere.invalid/keys: nowhere.invalid does not resolve"


async def test_certificates_are_checked(tmp_path: Path) -> None:
    certificate = forge.self_signed(tmp_path, "localhost")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate)
    async with open_endpoint(*GOOD, tls=server) as endpoint:
        trusting = ssl.create_default_context(cafile=certificate)
        assert await part(f"https://localhost:{endpoint.port}/", trusting).read() == Reading(GOOD)
        by_another_name = await part(f"https://127.0.0.1:{endpoint.port}/", trusting).read()
        stranger = await part(f"https://localhost:{endpoint.port}/").read()
        await endpoint.idle()
    assert "its certificate is not trusted" in by_another_name.fault and not by_another_name.keys
    assert "its certificate is not trusted" in stranger.fault and not stranger.keys


async def test_cancelled_anywhere_nothing_is_left() -> None:
    async with open_endpoint(*GOOD) as endpoint:

        async def scenario() -> tuple[VerificationKey, ...]:
            return (await part(endpoint.url).read()).keys

        async def check(run: Run[tuple[VerificationKey, ...]]) -> None:
            assert run.cancelled or run.value == GOOD

        assert await cancel_everywhere(scenario, check, settle=endpoint.idle) >= 2  # to connect, and to be answered


async def test_a_server_that_never_answers_can_be_left() -> None:
    async with open_endpoint(*GOOD) as endpoint:
        endpoint.stalled = True
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(part(endpoint.url).read)
                await _asked(endpoint)
                scope.cancel()
        await endpoint.idle()


async def _asked(endpoint: Endpoint) -> None:
    while not endpoint.requests:
        await trio.lowlevel.checkpoint()
