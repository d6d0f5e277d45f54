"""A whole server with its secrets in a real OpenBao: one look-up for a crowd, rotation under load, quiet outages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from casproxy.cli.errors import primary
from casproxy.client import Client, open_client
from casproxy.config import Config
from casproxy.config.model import CredentialsService, SecretCache
from casproxy.dev.place import SECRET_ID, Place
from casproxy.digest import Digest
from casproxy.errors import ConfigError
from casproxy_tests.app.serving import Serving, config_of, place_at, serving
from casproxy_tests.cas import PLAIN
from casproxy_tests.secrets.rigs import PREFIX, VaultRig

CROWD = 1_000
LONG_SECONDS = 30


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_at(tmp_path) as made:
        yield made


def with_vault(place: Place, vault: VaultRig, *, ttl: float = 60.0) -> Config:
    service = CredentialsService(secret_prefix=PREFIX, vault=vault.section(), cache=SecretCache(ttl=ttl))
    return msgspec.structs.replace(config_of(place), credentials_service=service)


async def counted(server: Serving, result: str) -> float:
    async with httpx.AsyncClient(verify=PLAIN, trust_env=False) as client:
        text = (await client.get(f"http://{server.metrics}/metrics")).text
    [line] = [
        line for line in text.splitlines() if line.startswith(f'casproxy_secret_cache_total{{result="{result}"}}')
    ]
    return float(line.rsplit(" ", 1)[1])


async def test_a_crowd_on_a_cold_cache_is_one_look_up(place: Place, vault: VaultRig) -> None:
    vault.put(SECRET_ID, {"Path": "artifacts"})
    present = Digest.of(b"present")
    ended: list[bool] = []
    async with serving(with_vault(place, vault)) as server:
        async with open_client(server.grpc, place.uploader_token, insecure=True) as client:

            async def describe() -> None:
                with pytest.raises(Exception, match="not found"):
                    await client.describe(present)
                ended.append(True)

            async with trio.open_nursery() as nursery:
                for _ in range(CROWD):
                    nursery.start_soon(describe)
        assert await counted(server, "lookup") == 1
    assert len(ended) == CROWD


async def test_a_secret_that_changes_while_uploads_run_fails_none_of_them(place: Place, vault: VaultRig) -> None:
    """The secret names the directory: uploads move from the old to the new one, and each is complete in one of them."""
    vault.put(SECRET_ID, {"Path": "old"})
    store = place.root / "store"
    digests: list[Digest] = []

    async def upload_for_ever(client: Client, name: int) -> None:
        for number in range(100_000):
            uploaded = await client.upload(f"{name}.{number}".encode() * 1000)
            digests.append(uploaded.digest)

    async with serving(with_vault(place, vault, ttl=0.2)) as server:
        async with (
            open_client(server.grpc, place.uploader_token, insecure=True) as client,
            trio.open_nursery() as nursery,
        ):
            for name in range(4):
                nursery.start_soon(upload_for_ever, client, name)
            await _until(lambda: any((store / "old").glob("??/*")))
            await trio.to_thread.run_sync(vault.put, SECRET_ID, {"Path": "new"})
            await _until(lambda: len(list((store / "new").glob("??/*"))) >= 20)
            nursery.cancel_scope.cancel()
        assert await counted(server, "failure") == 0
    there = {path.name for directory in ("old", "new") for path in (store / directory).glob("??/*")}
    assert {digest.hex for digest in digests} <= there


async def test_a_dead_vault_is_not_noticed_by_those_whose_secret_is_known(
    place: Place, vault: VaultRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it hangs, a stranger waits for an answer that does not come; everybody else is served."""
    vault.put(SECRET_ID, {"Path": "artifacts"})
    async with (
        serving(with_vault(place, vault)) as server,
        open_client(server.grpc, place.uploader_token, insecure=True) as client,
    ):
        await client.upload(b"before")
        with vault.hang(monkeypatch):
            for number in range(20):
                await client.upload(f"during {number}".encode())
        vault.go_down()
        await client.upload(b"after")
        assert await counted(server, "lookup") == 1


async def test_a_server_with_a_bad_token_does_not_start(place: Place, vault: VaultRig) -> None:
    vault.server.ask("POST", "auth/token/revoke", {"token": vault.token})
    with pytest.RaisesGroup(ConfigError, flatten_subgroups=True, allow_unwrapped=True) as caught:
        async with serving(with_vault(place, vault)):
            pass
    assert str(primary(caught.value)).startswith("credentials_service.vault.token: ")


async def _until(true: Callable[[], bool]) -> None:
    with trio.fail_after(LONG_SECONDS):
        while not true():  # noqa: ASYNC110 - a directory tells nobody
            await trio.sleep(0.01)
