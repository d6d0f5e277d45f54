"""``casproxy probe`` against servers in every state a health check may find them."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from casproxy.errors import ConfigError
from casproxy.listen import reached_at
from casproxy_tests.cli.command import run_to_end
from casproxy_tests.e2e.processes import running_dev
from casproxy_tests.real.certificates import write_server_files


def write_config(directory: Path, address: str) -> str:
    path = directory / "server.yaml"
    path.write_text(json.dumps({"server": {"http": {"addr": address}}}))
    return str(path)


@contextmanager
def answering(status: int, body: bytes, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server with one answer: its address, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_server_that_serves(tmp_path: Path) -> None:
    with running_dev(tmp_path) as dev:
        config = write_config(tmp_path, dev.facts["http"])
        for flags, text in (((), "ready\n"), (("--live",), "live\n")):
            result = run_to_end("probe", "--conf", config, *flags)
            assert (result.returncode, result.stdout, result.stderr) == (0, text, "")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"code": 503, "reason": "NOT_READY", "message": "not ready: draining"}', "not ready: draining\n"),
        (b"[]", "HTTP status 503\n"),
        (b"\xff", "HTTP status 503\n"),
    ],
)
def test_a_server_that_is_not_ready(tmp_path: Path, body: bytes, text: str) -> None:
    with answering(503, body) as (address, asked):
        result = run_to_end("probe", "--conf", write_config(tmp_path, address))
    assert (result.returncode, result.stdout, result.stderr) == (1, text, "")
    assert asked == ["/statusz?readiness=1"]


def test_live_asks_for_no_readiness(tmp_path: Path) -> None:
    with answering(200, b"{}") as (address, asked):
        assert run_to_end("probe", "--conf", write_config(tmp_path, address), "--live").returncode == 0
    assert asked == ["/statusz"]


def test_a_server_with_tls_whoever_vouches_for_it(tmp_path: Path) -> None:
    certificate, key = write_server_files(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with answering(200, b"{}", context) as (address, asked):
        config = tmp_path / "server.yaml"
        tls = {"certificate": str(certificate), "private_key": str(key)}
        config.write_text(json.dumps({"server": {"http": {"addr": address, "tls_config": tls}}}))
        result = run_to_end("probe", "--conf", str(config))
    assert (result.returncode, result.stdout, result.stderr) == (0, "ready\n", "")
    assert asked == ["/statusz?readiness=1"]


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as bound:  # bound and not listening: refused, and nobody else can take it
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        result = run_to_end("probe", "--conf", write_config(tmp_path, address))
    assert (result.returncode, result.stderr) == (1, f"casproxy: {address}: Connection refused\n")


def test_a_server_that_is_silent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        result = run_to_end("probe", "--conf", write_config(tmp_path, address), "--timeout", "0.05")
    assert (result.returncode, result.stderr) == (1, f"casproxy: {address}: timed out\n")


@pytest.mark.parametrize(
    ("address", "network", "reached"),
    [
        ("0.0.0.0:8001", "tcp", ("127.0.0.1", 8001)),
        (":8001", "tcp", ("127.0.0.1", 8001)),
        (":8001", "tcp6", ("::1", 8001)),
        ("[::]:8001", "tcp", ("::1", 8001)),
        ("10.1.2.3:8001", "tcp", ("10.1.2.3", 8001)),
    ],
)
def test_where_a_server_is_reached(address: str, network: str, reached: tuple[str, int]) -> None:
    assert reached_at(address, setting="x", network=network) == reached


def test_a_port_nobody_knows() -> None:
    with pytest.raises(ConfigError, match="set a port"):
        reached_at("127.0.0.1:0", setting="server.http.addr")


@pytest.mark.parametrize(
    ("status", "body", "code", "facts"),
    [
        (200, b"{}", 0, {"ready": True, "reason": ""}),
        (503, b'{"message": "the keys are not read yet"}', 1, {"ready": False, "reason": "the keys are not read yet"}),
    ],
)
def test_facts_as_json(tmp_path: Path, status: int, body: bytes, code: int, facts: dict[str, object]) -> None:
    with answering(status, body) as (address, _):
        result = run_to_end("probe", "--conf", write_config(tmp_path, address), "--output", "json")
    assert (result.returncode, json.loads(result.stdout)) == (code, facts)
