"""A server where nothing can be written: every road works, and nobody looks for a place of their own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
import yaml

from casproxy.auth.claims import Claims, Role
from casproxy.auth.mint import generate_keypair, mint
from casproxy.client import open_client
from casproxy.digest import Digest
from casproxy_tests.auth.endpoint import named, open_endpoint
from casproxy_tests.cas import PLAIN
from casproxy_tests.e2e.processes import PROGRAM, SLOWEST_SECONDS
from casproxy_tests.fakes.registry import serve_registry
from casproxy_tests.real import require_root
from casproxy_tests.real.certificates import authority
from casproxy_tests.real.process import free_port

CONTENT = bytes(range(256)) * 40_000  # 10 MB
PRIVATE_PEM, PUBLIC_PEM = generate_keypair()
_READ_ONLY = """\
mount --make-rprivate / || exit 1
for place in / /tmp /var/tmp /dev/shm /run "$TMPDIR"; do
  [ -d "$place" ] || continue
  mount --bind "$place" "$place" && mount -o remount,bind,ro "$place" || exit 1
  if touch "$place/written" 2>/dev/null; then echo "$place can be written" >&2; exit 1; fi
done
cd / && exec "$@"
"""


@asynccontextmanager
async def running_read_only(conf: Path) -> AsyncIterator[dict[str, str]]:
    """``casproxy serve`` where nothing can be written, from top to bottom of the file system; where it is reached."""
    require_root("a mount namespace")
    command = ["unshare", "--mount", "sh", "-c", _READ_ONLY, "read-only", *PROGRAM, "serve", "--conf", str(conf)]
    with _started(command) as process:
        try:
            yield await trio.to_thread.run_sync(_until_serving, process)
            process.terminate()
            rest = await trio.to_thread.run_sync(_read_on, process)
            assert process.wait(SLOWEST_SECONDS) == 0, rest
            assert "Read-only" not in rest, rest
        finally:
            process.kill()


def _started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _until_serving(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if '"serving"' in line:
            found: dict[str, str] = json.loads(line)
            return found
    raise AssertionError("".join(lines))


def _read_on(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.read()


def write_conf(directory: Path, registry: str, keys: str, nowhere: int) -> Path:
    """Everything switched on; what lies ``nowhere`` (a port) is down."""
    secrets, conf = directory / "secrets.yaml", directory / "server.yaml"
    secrets.touch(0o600)
    secrets.write_text(yaml.safe_dump({"tenant": {"Repo": f"{registry}/acme", "Username": "u", "Password": "p"}}))
    (directory / "ca.pem").write_bytes(authority().certificate_pem)
    (directory / "public.pem").write_bytes(PUBLIC_PEM)
    loopback = {"addr": "127.0.0.1:0"}
    sections: dict[str, object] = {
        "server": {"http": {**loopback, "uploads": True}, "grpc": loopback, "http_metrics": loopback},
        "auth": {"public_key_path": str(directory / "public.pem"), "jwks": {"url": keys}},
        "credentials_service": {"file": {"path": str(secrets)}},
        "outbound": {"allow": ["127.0.0.0/8"], "ca_file": str(directory / "ca.pem")},
        "observability": {
            "sentry": {"dsn": f"https://public@127.0.0.1:{nowhere}/1"},
            "tracing": {"enabled": True, "endpoint": f"127.0.0.1:{nowhere}"},
        },
        "nats_server": {"uri": f"tls://127.0.0.1:{nowhere}"},
    }
    conf.write_text(yaml.safe_dump(sections))
    return conf


def token(role: Role) -> str:
    claims = Claims(role, "tenant", "OCI", "00000000-0000-4000-8000-000000000001", expires_at=time.time() + 600)
    return mint(PRIVATE_PEM, claims, now=time.time())


async def test_every_road_works_where_nothing_can_be_written(tmp_path: Path) -> None:
    small, digest, taken = b"over HTTP", Digest.of(CONTENT), bytearray()

    async def take(piece: memoryview) -> None:
        taken.extend(piece)

    async with serve_registry() as registry, open_endpoint(named("other")) as publisher:
        conf = write_conf(tmp_path, registry.host, publisher.url, free_port())
        async with (
            running_read_only(conf) as server,
            httpx.AsyncClient(verify=PLAIN, trust_env=False, timeout=60) as browser,
        ):
            async with open_client(server["grpc"], token(Role.UPLOADER), insecure=True) as client:
                assert (await client.upload(CONTENT)).size == len(CONTENT)
                assert (await client.describe(digest)).size == len(CONTENT)
            async with open_client(server["grpc"], token(Role.DOWNLOADER), insecure=True) as client:
                await client.download(digest, take)
            uploader = {"authorization": f"Bearer {token(Role.UPLOADER)}"}
            up = f"http://{server['http']}/upload"
            assert (await browser.put(f"{up}/{Digest.of(small)}", content=small, headers=uploader)).status_code == 201
            refused = await browser.put(up, content=small, headers=uploader)
            down = f"http://{server['http']}/download/{digest}?t={token(Role.DOWNLOADER)}"
            downloaded = (await browser.get(down)).content
            metrics = (await browser.get(f"http://{server['metrics']}/metrics")).text
    assert Digest.of(bytes(taken)) == Digest.of(downloaded) == digest
    assert (refused.status_code, refused.json()["reason"]) == (400, "DIGEST_REQUIRED")
    assert 'casproxy_spans_total{result="lost"}' in metrics


async def test_a_place_to_stage_is_looked_at_before_anything_starts(tmp_path: Path) -> None:
    conf = write_conf(tmp_path, "localhost:1", "http://127.0.0.1:1/keys", free_port())
    conf.write_text(conf.read_text() + f"staging: {{dir: {tmp_path / 'none'}}}\n")
    with pytest.raises(AssertionError, match=r"staging\.dir: .*none is no directory that this process may write to"):
        async with running_read_only(conf):
            pass
