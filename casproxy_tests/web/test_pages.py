"""The status and metrics pages, through Hypercorn on a loopback port."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

import httpx
import pytest
import trio

from casproxy.observe.metrics import Metrics
from casproxy.rpc.api import MethodInfo, MethodKind
from casproxy.web.asgi import Page, Request, Response, pages
from casproxy.web.exposition import metrics_pages
from casproxy.web.server import HttpSettings, serve_http
from casproxy.web.status import status_pages
from casproxy_tests.cas import PLAIN


@asynccontextmanager
async def serving(routes: Mapping[str, Page]) -> AsyncIterator[httpx.AsyncClient]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_http, pages(routes), listener, stop)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=PLAIN, trust_env=False) as client:
            yield client
        stop.set()


def status(reason: str = "") -> Mapping[str, Page]:
    return status_pages(version="1.2.3", chart_version="", backends=["OCI", "FS"], not_ready=lambda: reason)


async def test_infoz_has_camel_case_keys_and_unset_fields() -> None:
    async with serving(status()) as client:
        answer = await client.get("/infoz")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == '{"version":"1.2.3","backends":["FS","OCI"],"chartVersion":""}'


@pytest.mark.parametrize(
    ("reason", "query", "code"),
    [
        ("", "", 200),
        ("", "?readiness=1", 200),
        ("", "?readiness=true", 200),
        ("draining", "", 200),
        ("draining", "?readiness=0", 200),
        ("draining", "?readiness=1", 503),
        ("draining", "?readiness=true", 503),
        ("", "?readiness=maybe", 400),
    ],
)
async def test_statusz(reason: str, query: str, code: int) -> None:
    async with serving(status(reason)) as client:
        answer = await client.get(f"/statusz{query}")
    assert answer.status_code == code
    assert (answer.json() == {}) == (code == 200)
    assert ("draining" in answer.text) == (code == 503)


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    async with serving(status()) as client:
        got, head = await client.get("/infoz"), await client.head("/infoz")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(got.content))


async def test_other_paths_and_methods_are_refused() -> None:
    async with serving(status()) as client:
        assert (await client.get("/nothing?t=secret")).status_code == 404
        refused = await client.post("/infoz")
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, HEAD"


async def test_a_page_that_fails_answers_500_and_the_next_one_works(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_request: Request) -> object:
        raise RuntimeError("a detail for the log")

    async with serving({**status(), "/broken": broken}) as client:  # type: ignore[dict-item]
        answer = await client.get("/broken")
        assert answer.status_code == 500
        assert "detail" not in answer.text
        assert (await client.get("/infoz")).status_code == 200


async def test_metrics_are_prometheus_text_or_openmetrics_on_request() -> None:
    metrics = Metrics([MethodInfo("cas.v1.StatusService", "Infoz", MethodKind.UNARY)])
    async with serving(metrics_pages(metrics)) as client:
        text = await client.get("/metrics", headers={"accept": "*/*"})
        openmetrics = await client.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
    assert text.headers["content-type"].startswith("text/plain; version=")
    assert 'grpc_server_started_total{grpc_method="Infoz"' in text.text
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_stop_ends_the_server_while_a_client_is_connected_and_frees_the_port() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    stop = trio.Event()
    async with await trio.open_tcp_stream(*address) as idle:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_http, pages(status()), listener, stop)
            await idle.send_all(b"GET /infoz HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += await idle.receive_some(4096)
            assert answer.startswith(b"HTTP/1.1 200")
            stop.set()
        assert await idle.receive_some(4096) == b""
    socket.create_server(address).close()


async def test_a_client_that_stops_reading_cannot_hold_up_the_stop() -> None:
    asked = trio.Event()

    def huge(_request: Request) -> Response:
        asked.set()
        return Response(HTTPStatus.OK, bytes(64 * 1024 * 1024), "application/octet-stream")

    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    stop = trio.Event()
    async with await trio.open_tcp_stream(*address) as deaf, trio.open_nursery() as nursery:
        settings = HttpSettings(grace=lambda: 0.1)
        await nursery.start(serve_http, pages({"/huge": huge}), listener, stop, settings)
        await deaf.send_all(b"GET /huge HTTP/1.1\r\nhost: x\r\n\r\n")
        await asked.wait()
        stop.set()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /infoz HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"GET /infoz HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
)
async def test_garbage_ends_its_own_connection_and_no_other(garbage: bytes) -> None:
    async with serving(status()) as client:
        address = client.base_url
        async with await trio.open_tcp_stream(address.host, address.port or 0) as stream:
            with contextlib.suppress(trio.BrokenResourceError):  # it may be closed before all is sent or read
                await stream.send_all(garbage)
                await stream.send_eof()
                while await stream.receive_some(4096):
                    pass
        assert (await client.get("/infoz")).status_code == 200
