"""``GET`` and ``HEAD /download/{digest}``, sentence by sentence of the contract, through httpx over real sockets."""

from __future__ import annotations

import hashlib
import io
import json
from base64 import b64encode

import httpx
import pytest
import trio

from casproxy.auth.claims import Role
from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy.errors import (
    BackendBroken,
    BackendRefused,
    BackendUnavailable,
    SecretDenied,
    SecretMalformed,
    SecretNotFound,
    SecretUnavailable,
    StorageFull,
)
from casproxy.pipeline.api import Limits
from casproxy_tests.fakes.faulty_backend import Fault
from casproxy_tests.web.world import ORIGIN, bearer, token, world

CONTENT = bytes(range(256)) * 4096  # 1 MiB
UNKNOWN = Digest.of(b"nobody stored this")


async def test_a_download_has_the_bytes_and_every_header() -> None:
    async with world() as server:
        digest = await server.put(CONTENT, "report.tar.gz")
        answer = await server.get(f"/download/{digest}", bearer())
    assert answer.status_code == 200
    assert answer.content == CONTENT
    headers = dict(answer.headers)
    assert headers.pop("date") and headers.pop("x-request-id")
    assert headers == {
        "content-type": "application/octet-stream",
        "content-length": str(len(CONTENT)),
        "content-disposition": 'attachment; filename="report.tar.gz"',
        "etag": f'"{digest}"',
        "cache-control": "private, immutable",
        "accept-ranges": "bytes",
        "repr-digest": f"sha-256=:{b64encode(hashlib.sha256(CONTENT).digest()).decode()}:",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }


async def test_head_has_the_headers_of_get_and_reads_nothing() -> None:
    async with world() as server:
        digest = await server.put(CONTENT)
        got = await server.get(f"/download/{digest}", bearer())
        reads = server.store.calls["read"]
        head = await server.get(f"/download/{digest}", bearer(), method="HEAD")
    assert head.status_code == 200 and head.content == b""
    changing = {"date", "x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in got.headers.items() if k not in changing
    }
    assert server.store.calls["read"] == reads


async def test_an_empty_artifact_is_an_artifact() -> None:
    async with world() as server:
        await server.put(b"")
        answer = await server.get(f"/download/{EMPTY_DIGEST}", bearer())
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("form", ["{hex}", "sha256:{hex}", "sha256%3A{hex}"])
async def test_forms_of_a_digest(form: str) -> None:
    async with world() as server:
        digest = await server.put(b"x")
        answer = await server.get("/download/" + form.format(hex=digest.hex), bearer())
    assert answer.content == b"x"


# -- who may -----------------------------------------------------------------------------------------


async def test_the_token_may_come_in_the_url_which_wins() -> None:
    async with world() as server:
        digest = await server.put(b"x")
        by_url = await server.get(f"/download/{digest}?t={token()}", {"authorization": "Bearer nonsense"})
        loses = await server.get(f"/download/{digest}?t=nonsense", bearer())
        twice = await server.get(f"/download/{digest}?t={token()}&t={token()}")
    assert by_url.status_code == 200
    assert loses.status_code == twice.status_code == 401


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "JWT token is missing"),
        ({"authorization": "Basic dTpw"}, "JWT token is missing"),
        ({"authorization": "Bearer nonsense"}, "Token is invalid"),
        (bearer(lifetime=-10), "JWT token has expired"),
        (bearer(Role.UPLOADER), "invalid role, got=uploader, want=downloader"),
    ],
)
async def test_401(headers: dict[str, str], message: str) -> None:
    async with world() as server:
        digest = await server.put(b"x")
        answer = await server.get(f"/download/{digest}", headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json() == {"code": 401, "reason": "UNAUTHORIZED", "message": message, "metadata": {}}
    assert server.store.calls.total() == 0


@pytest.mark.parametrize("digest", ["nonsense", "sha256:" + "A" * 64, "sha512:" + "a" * 64, "a" * 63, "..%2F..%2Fx"])
async def test_400_for_what_is_no_digest_and_never_a_call_to_the_store(digest: str) -> None:
    async with world() as server:
        answer = await server.get(f"/download/{digest}", bearer())
    assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_DIGEST")
    assert server.store.calls.total() == 0


async def test_404_for_an_unknown_artifact_and_an_unknown_backend() -> None:
    async with world() as server:
        artifact = await server.get(f"/download/{UNKNOWN}", bearer())
        backend = await server.get(f"/download/{UNKNOWN}", bearer(backend="Nowhere"))
    assert (artifact.status_code, artifact.json()["reason"]) == (404, "ARTIFACT_NOT_FOUND")
    assert (backend.status_code, backend.json()["message"]) == (404, 'backend "Nowhere" not found')


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BackendUnavailable("the store is down"), 503),
        (BackendRefused("the registry refused"), 502),
        (BackendBroken("nonsense came back"), 502),
        (StorageFull("no room"), 507),
        (RuntimeError("a detail for the log"), 500),
    ],
)
async def test_trouble_of_the_store_is_told_with_an_id_that_is_in_the_log(
    error: Exception, status: int, log_lines: io.StringIO
) -> None:
    async with world(Fault("describe", error=error)) as server:
        answer = await server.get(f"/download/{UNKNOWN}?t={token()}")
    assert answer.status_code == status
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "detail" not in answer.text
    error_id = answer.json()["message"].rpartition("(id ")[2].rstrip(")")
    [line] = [line for line in map(json.loads, log_lines.getvalue().splitlines()) if line.get("error_id") == error_id]
    assert type(error).__name__ in line["exception"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SecretNotFound("no such secret"), 502),
        (SecretDenied("denied"), 502),
        (SecretMalformed("malformed"), 502),
        (SecretUnavailable("sealed"), 503),
    ],
)
async def test_trouble_with_the_secret_is_never_a_missing_artifact(error: SecretNotFound, status: int) -> None:
    async with world() as server:
        server.resolver.secret_error = error
        answer = await server.get(f"/download/{UNKNOWN}", bearer())
    assert answer.status_code == status


# -- names -------------------------------------------------------------------------------------------


async def test_the_name_may_be_overridden() -> None:
    async with world() as server:
        digest = await server.put(b"x", "stored.bin")
        answer = await server.get(f"/download/{digest}?filename=se%C3%B1al%20%F0%9F%9A%80.txt", bearer())
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"se_al _.txt\"; filename*=UTF-8''se%C3%B1al%20%F0%9F%9A%80.txt"
    )


# -- ranges and conditions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=1000000-", 1_000_000, len(CONTENT)),
        ("bytes=-1", len(CONTENT) - 1, len(CONTENT)),
        ("bytes=-99999999", 0, len(CONTENT)),
        ("bytes=0-99999999", 0, len(CONTENT)),
    ],
)
async def test_one_range_is_sent(asked: str, start: int, stop: int) -> None:
    async with world() as server:
        digest = await server.put(CONTENT)
        answer = await server.get(f"/download/{digest}", bearer() | {"range": asked})
    assert answer.status_code == 206
    assert answer.content == CONTENT[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=9-5", "bytes=-", "lines=1-2", "bytes=x-y", "bytes 0-1"])
async def test_what_is_not_one_range_is_ignored(asked: str) -> None:
    async with world() as server:
        digest = await server.put(CONTENT)
        answer = await server.get(f"/download/{digest}", bearer() | {"range": asked})
    assert answer.status_code == 200
    assert answer.content == CONTENT


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=-0", f"bytes={10**18}-"])
async def test_416_says_how_long_the_artifact_is(asked: str) -> None:
    async with world() as server:
        digest = await server.put(CONTENT)
        answer = await server.get(f"/download/{digest}", bearer() | {"range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


async def test_if_range_counts_only_for_the_same_artifact() -> None:
    async with world() as server:
        digest = await server.put(CONTENT)
        headers = bearer() | {"range": "bytes=1-2"}
        same = await server.get(f"/download/{digest}", headers | {"if-range": f'"{digest}"'})
        for other in ('"another"', f'W/"{digest}"', "Wed, 21 Oct 2015 07:28:00 GMT"):
            whole = await server.get(f"/download/{digest}", headers | {"if-range": other})
            assert (whole.status_code, len(whole.content)) == (200, len(CONTENT))
    assert same.status_code == 206


@pytest.mark.parametrize("matching", ['"{digest}"', 'W/"{digest}"', '"a", "{digest}"', "*"])
async def test_304_when_the_caller_has_it(matching: str) -> None:
    async with world() as server:
        digest = await server.put(CONTENT)
        condition = {"if-none-match": matching.format(digest=digest)}
        answer = await server.get(f"/download/{digest}", bearer() | condition)
        other = await server.get(f"/download/{digest}", bearer() | {"if-none-match": '"other"'})
        missing = await server.get(f"/download/{UNKNOWN}", bearer() | {"if-none-match": "*"})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{digest}"'
    assert other.status_code == 200
    assert missing.status_code == 404


# -- CORS --------------------------------------------------------------------------------------------


async def test_cors_as_configured() -> None:
    async with world(allow_origins=[ORIGIN]) as server:
        digest = await server.put(b"x")
        simple = await server.get(f"/download/{digest}", bearer() | {"origin": ORIGIN})
        refused = await server.get(f"/download/{digest}", {"origin": ORIGIN})
        stranger = await server.get(f"/download/{digest}", bearer() | {"origin": "https://evil.example"})
        preflight = await server.get(f"/download/{digest}", {"origin": ORIGIN}, method="OPTIONS")
        page = await server.get("/", {"origin": ORIGIN})
    for answer in (simple, refused):  # a page must be able to read why it was refused
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["access-control-expose-headers"] == "Content-Disposition, ETag, Repr-Digest"
    for answer in (simple, refused, stranger, preflight):
        assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in stranger.headers
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
    assert preflight.headers["access-control-allow-headers"] == "Authorization, Content-Type"
    assert preflight.headers["access-control-max-age"] == "86400"
    assert not [name for name in page.headers if name.startswith("access-control")]


async def test_cors_for_everybody_and_for_nobody() -> None:
    async with world(allow_origins=["*"]) as server:
        everybody = await server.get("/infoz", {"origin": ORIGIN})
    async with world() as server:
        nobody = await server.get("/infoz", {"origin": ORIGIN})
        preflight = await server.get("/infoz", {"origin": ORIGIN}, method="OPTIONS")
    assert everybody.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in nobody.headers
    assert preflight.status_code == 204 and "access-control-allow-methods" not in preflight.headers


# -- limits, log, metrics ----------------------------------------------------------------------------


async def test_a_download_beyond_the_limit_is_told_to_come_back() -> None:
    async with world(Fault("describe", stall=True), max_transfers=1) as server, trio.open_nursery() as nursery:
        digest = await server.put(b"x")
        nursery.start_soon(server.get, f"/download/{digest}", bearer())
        await server.store.faults[0].reached.wait()
        answer = await server.get(f"/download/{digest}", bearer())
        nursery.cancel_scope.cancel()
    assert (answer.status_code, answer.json()["reason"]) == (503, "BUSY")
    assert server.limits_reached == ["http_transfers"]


async def test_a_download_that_memory_has_no_room_for_is_told_to_come_back() -> None:
    async with world(memory_budget=1000) as server:
        answer = await server.get(f"/download/{await server.put(CONTENT)}", bearer())
    assert (answer.status_code, answer.json()["reason"]) == (503, "MEMORY_SHORT")
    assert answer.headers["retry-after"]


async def test_with_little_memory_a_download_is_whole_all_the_same() -> None:
    async with world(memory_budget=400_000) as server:
        assert (await server.get(f"/download/{await server.put(CONTENT)}", bearer())).content == CONTENT
        assert server.budget.exposed == 0


async def test_a_draining_server_takes_no_new_download() -> None:
    async with world() as server:
        digest = await server.put(b"x")
        server.draining = True
        assert (await server.get(f"/download/{digest}", bearer())).status_code == 503
        assert (await server.get("/statusz")).status_code == 200


async def test_the_timeout_bounds_a_download_that_has_not_begun() -> None:
    async with world(Fault("receive", stall=True), timeout=0.2) as server:
        digest = await server.put(b"x")
        answer = await server.get(f"/download/{digest}", bearer())
    assert (answer.status_code, answer.json()["reason"]) == (504, "TIMEOUT")


async def test_the_timeout_breaks_off_a_download_that_has() -> None:
    stall = Fault("receive", stall=True, after_bytes=1_500_000)
    async with world(stall, timeout=0.5) as server:
        digest = await server.put(CONTENT * 2)
        with pytest.raises(httpx.RemoteProtocolError):
            await server.get(f"/download/{digest}", bearer())


async def test_a_store_that_does_not_answer_is_given_up() -> None:
    async with world(Fault("describe", stall=True), limits=Limits(lookup_timeout=0.1)) as server:
        answer = await server.get(f"/download/{UNKNOWN}", bearer())
    assert answer.status_code == 503


async def test_too_large_headers_are_refused() -> None:
    async with world(max_header_bytes=2000) as server:
        answer = await server.get("/infoz", {"x-large": "a" * 3000})
    assert (answer.status_code, answer.json()["reason"]) == (431, "HEADERS_TOO_LARGE")


async def test_one_log_line_with_the_facts_and_never_the_query(log_lines: io.StringIO) -> None:
    async with world() as server:
        digest = await server.put(CONTENT)
        secret = token()
        await server.get(f"/download/{digest}?t={secret}&filename=private.txt", {"x-request-id": "abc-1"})
        await server.get(f"/download/nonsense-{secret}?t={secret}", {"x-request-id": "evil\ttab"})
    text = log_lines.getvalue()
    assert secret not in text and "private.txt" not in text
    good, bad = [line for line in map(json.loads, text.splitlines()) if line["event"] == "request"]
    assert good["digest"] == str(digest)
    assert good | {"peer": "", "seconds": 0, "time": ""} == {
        "event": "request",
        "level": "info",
        "method": "GET",
        "route": "/download/{digest}",
        "code": 200,
        "peer": "",
        "http": "1.1",
        "org": "org",
        "role": "downloader",
        "backend": "FS",
        "digest": str(digest),
        "bytes": len(CONTENT),
        "seconds": 0,
        "request_id": "abc-1",
        "time": "",
    }
    assert bad["code"] == 400 and bad["request_id"] != "evil\ttab"


async def test_metrics_of_a_request() -> None:
    async with world() as server:
        digest = await server.put(CONTENT)
        await server.get(f"/download/{digest}", bearer())
        await server.get("/nothing")
        route = {"method": "GET", "route": "/download/{digest}"}
        assert server.metric("casproxy_http_requests_total", **route, code="200") == 1
        assert server.metric("casproxy_http_requests_total", method="GET", route="none", code="404") == 1
        assert server.metric("casproxy_http_body_bytes_total", direction="out", backend="FS") == len(CONTENT)
        assert server.metric("casproxy_http_requests_in_flight") == 0
