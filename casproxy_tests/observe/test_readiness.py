"""A secret source that dies: what the process says of itself, with and without ``readiness.require_secrets``."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator

import httpx
import msgspec
import pytest
import trio

from casproxy.auth.claims import Claims, Role
from casproxy.auth.mint import mint
from casproxy.client import open_client
from casproxy.config import Config
from casproxy.config.kinds import SecretStr
from casproxy.config.model import CredentialsService, Readiness, SecretCache, VaultSource
from casproxy.dev.place import ORG_ID, Place
from casproxy.rpc.errors import RpcError
from casproxy_tests.app.serving import Serving, config_of, serving
from casproxy_tests.cas import PLAIN
from casproxy_tests.e2e.processes import PROGRAM
from casproxy_tests.real.gate import Gate
from casproxy_tests.real.openbao import OpenBao, running_openbao

KNOWN_WITHIN = 5.0


@pytest.fixture(scope="module")
def openbao() -> Iterator[OpenBao]:
    with running_openbao() as server:
        server.mount("secret")
        server.ask("POST", "secret/data/tenant", {"data": {"Path": "artifacts"}})
        yield server


def with_vault(place: Place, port: int, token: str, *, required: bool) -> Config:
    vault = VaultSource(address=f"http://127.0.0.1:{port}", token=SecretStr(token))
    return msgspec.structs.replace(
        config_of(place),
        credentials_service=CredentialsService(vault=vault, cache=SecretCache(ttl=1.0, stale=600.0)),
        readiness=Readiness(require_secrets=required),
    )


def uploader(place: Place) -> str:
    claims = Claims(Role.UPLOADER, "tenant", "FS", ORG_ID, expires_at=time.time() + 600)
    return mint(place.private_key.read_bytes(), claims, now=time.time())


async def ready(server: Serving) -> bool:
    async with httpx.AsyncClient(verify=PLAIN, trust_env=False) as client:
        return (await client.get(f"http://{server.http}/statusz?readiness=1")).status_code == 200


async def seconds_until(server: Serving, *, want: bool) -> float:
    began = trio.current_time()
    while await ready(server) is not want:
        assert trio.current_time() - began < 60
    return trio.current_time() - began


async def gauge(server: Serving, name: str) -> float:
    async with httpx.AsyncClient(verify=PLAIN, trust_env=False) as client:
        text = (await client.get(f"http://{server.metrics}/metrics")).text
    [value] = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(value)


async def status(server: Serving) -> dict[str, object]:
    """What ``casproxy status`` prints, when its exit code is 0."""
    command = [*PROGRAM, "status", "--addr", server.grpc, "--insecure", "--output", "json"]
    told: dict[str, object] = json.loads((await trio.run_process(command, capture_stdout=True)).stdout)
    return told


@pytest.mark.parametrize("required", [True, False])
async def test_a_dead_source_is_told_and_keeps_traffic_away_only_when_required(
    place: Place, openbao: OpenBao, log_lines: io.StringIO, required: bool
) -> None:
    with Gate(openbao.port) as gate:
        config = with_vault(place, gate.port, openbao.root_token, required=required)
        async with (
            serving(config) as server,
            open_client(server.grpc, uploader(place), insecure=True) as client,
        ):
            await client.upload(b"before")
            assert await gauge(server, "casproxy_secret_source_up") == 1
            gate.shut()
            if required:
                assert await seconds_until(server, want=False) < KNOWN_WITHIN
                with pytest.raises(RpcError, match="not ready"):
                    await client.statusz(readiness=True)
            else:
                await trio.sleep(1.2)  # the secret is no longer fresh, so that this asks the source
                await client.upload(b"another")
                while await gauge(server, "casproxy_secret_source_up") == 1:
                    pass
                assert await ready(server)
                told = await status(server)
                assert told["ready"] is True
                assert "secret source" in str(told["trouble"])
            await client.upload(b"cached secrets go on being served")
            gate.reopen()
            if required:
                assert await seconds_until(server, want=True) < KNOWN_WITHIN
            while await client.statusz(readiness=True):
                pass
            assert await gauge(server, "casproxy_secret_source_up") == 1
            assert 0 < await gauge(server, "casproxy_secret_age_seconds") < math.inf
    events = [json.loads(line)["event"] for line in log_lines.getvalue().splitlines()]
    assert (events.count("secret_source_down"), events.count("secret_source_up")) == (1, 1)
