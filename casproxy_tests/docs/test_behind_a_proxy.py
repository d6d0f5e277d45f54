"""The configurations of nginx and HAProxy on the page are run as they stand, but for addresses and paths."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from casproxy.client import Digest, RpcError, StatusCode, Uploaded, open_client, tls_context
from casproxy.config.settings import walk
from casproxy_tests.architecture import ROOT
from casproxy_tests.docs.test_tutorial import Block, background
from casproxy_tests.real import require_real
from casproxy_tests.real.certificates import authority, client_context, localhost
from casproxy_tests.real.process import answers, free_port, running

PAGE = (ROOT / "docs/how-to/behind-a-proxy.md").read_text("utf-8")
_CONTENT = os.urandom(3_000_000)
_NGINX = """\
daemon off;
pid nginx.pid;
events {{}}
http {{
{}
}}
"""
_DEFAULTS = re.compile(r"`((?:server|transfer)\.[\w.]+)`(?: \| | \()`([^`]*)`")


@dataclass(frozen=True, slots=True)
class Dev:
    """A server of ``casproxy dev``: what its dev.json says, and what it logged."""

    directory: Path

    def __getitem__(self, name: str) -> str:
        return str(json.loads((self.directory / ".casproxy/dev.json").read_text())[name])

    def trouble(self) -> list[str]:
        lines = (self.directory.parent / "server.log").read_text().splitlines()
        return [line for line in lines if json.loads(line)["level"] in {"warning", "error"}]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    directory = tmp_path_factory.mktemp("dev") / "here"
    directory.mkdir()
    command = f"{shlex.quote(sys.executable)} -m casproxy.cli.main dev --grpc-port 0 --http-port 0 --metrics-port 0"
    with background(directory, dict(os.environ)) as server:
        server.start(Block(command, None, ()))
        yield Dev(directory)


async def test_nginx(dev: Dev, tmp_path: Path) -> None:
    port = free_port()
    places = {
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "/etc/nginx/cas.crt": "cas.crt",
        "/etc/nginx/cas.key": "cas.key",
        "/var/log/nginx/cas.log": str(tmp_path / "access.log"),
        "10.0.0.11:9001": dev["grpc"],
        "10.0.0.12:9001": dev["grpc"],
        "10.0.0.11:8001": dev["http"],
        "10.0.0.12:8001": dev["http"],
    }
    (tmp_path / "cas.crt").write_bytes(localhost().certificate_pem)
    (tmp_path / "cas.key").write_bytes(localhost().key_pem)
    (tmp_path / "nginx.conf").write_text(_NGINX.format(placed(snippet("nginx"), places)))
    nginx = require_real("nginx", "the page about proxies")
    command = [nginx, "-e", "stderr", "-p", tmp_path, "-c", tmp_path / "nginx.conf"]
    with running(command, tmp_path, lambda: answers(port)):
        await use(dev, port, tmp_path)
    logged = (tmp_path / "access.log").read_text()
    assert "/google.bytestream.ByteStream/Write" in logged and "/download/" in logged
    assert dev["downloader_token"] not in logged


async def test_haproxy(dev: Dev, tmp_path: Path) -> None:
    port = free_port()
    places = {
        "bind :443 ": f"bind 127.0.0.1:{port} ",
        "/etc/haproxy/cas.pem": str(tmp_path / "cas.pem"),
        "10.0.0.11:9001": dev["grpc"],
        "10.0.0.12:9001": dev["grpc"],
        "10.0.0.11:8001": dev["http"],
        "10.0.0.12:8001": dev["http"],
        "port 8001 ": f"port {dev['http'].rpartition(':')[2]} ",
        "inter 2s": "inter 20ms",
    }
    (tmp_path / "cas.pem").write_bytes(localhost().certificate_pem + localhost().key_pem)
    (tmp_path / "haproxy.cfg").write_text(placed(snippet("haproxy"), places))
    haproxy = require_real("haproxy", "the page about proxies")
    with running([haproxy, "-db", "-f", tmp_path / "haproxy.cfg"], tmp_path, lambda: answers(port)):
        await use(dev, port, tmp_path)
    assert "DOWN" not in (tmp_path / "log.txt").read_text()


def test_the_defaults_on_the_page_are_the_defaults() -> None:
    defaults = {path: str(it.kind.show(it.default)) for path, it in walk() if it.kind is not None and not it.required}
    shown = dict(_DEFAULTS.findall(PAGE))
    assert shown.items() <= defaults.items()
    assert len(shown) == len(_DEFAULTS.findall(PAGE)) == 9


async def use(dev: Dev, port: int, directory: Path) -> None:
    """What clients do: up, up again (answered early), down, a failure with its status, and a download over HTTP."""
    trouble = dev.trouble()
    (directory / "ca.pem").write_bytes(authority().certificate_pem)
    tls, name = tls_context(directory / "ca.pem"), f"localhost:{port}"
    async with open_client(name, dev["uploader_token"], tls=tls) as client:
        assert not (await client.upload(_CONTENT + directory.name.encode(), name="up.bin")).deduplicated
        stored: Uploaded = await client.upload(_CONTENT + directory.name.encode(), name="up.bin")
        assert stored.deduplicated
        assert await client.statusz(readiness=True) == ""
    async with open_client(name, dev["downloader_token"], tls=tls) as client:
        await client.download_file(stored.digest, directory / "down.bin")
        assert (directory / "down.bin").read_bytes() == _CONTENT + directory.name.encode()
        with pytest.raises(RpcError) as failed:
            await client.describe(Digest.of(b"never stored"))
        assert failed.value.code is StatusCode.NOT_FOUND
    async with httpx.AsyncClient(verify=client_context(), trust_env=False) as http:
        url = f"https://{name}/download/{stored.digest}?t={dev['downloader_token']}"
        assert (await http.get(url)).content == _CONTENT + directory.name.encode()
    assert dev.trouble() == trouble  # no probe leaves any either


def snippet(language: str) -> str:
    """The one block of the page in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def placed(text: str, places: dict[str, str]) -> str:
    """``text`` with addresses and paths of this machine in place of the page's."""
    for theirs, ours in places.items():
        assert theirs in text, theirs
        text = text.replace(theirs, ours)
    return text
