"""Vault's own ways, against a real OpenBao: logins, seals, mounts, namespaces, and what a proxy before it may say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from casproxy.config.kinds import SecretStr
from casproxy.config.model import AppRole, KubernetesLogin, VaultSource
from casproxy.errors import ConfigError, SecretDenied, SecretError, SecretMalformed, SecretNotFound, SecretUnavailable
from casproxy.secrets.vault import Vault, open_vault
from casproxy_tests.secrets.reports import everything
from casproxy_tests.secrets.rigs import PREFIX, VaultRig

TTL_SECONDS = 2
PASSWORD = "canary-correct-horse"


def app_role(rig: VaultRig, *, seconds: int = TTL_SECONDS, most_seconds: int = 0) -> AppRole:
    role_id, secret_id = rig.server.app_role(rig.name, rig.name, seconds=seconds, most_seconds=most_seconds)
    return AppRole(role_id=role_id, secret_id=SecretStr(secret_id))


@asynccontextmanager
async def opened(rig: VaultRig, **changes: Any) -> AsyncIterator[Vault]:
    async with open_vault(rig.section(**changes), PREFIX, rig.timeout) as source:
        yield source


async def password(source: Vault) -> str:
    return (await source.read("a")).text("password")


# -- logins -----------------------------------------------------------------------------------------


async def test_an_app_role_outlives_its_tokens(vault: VaultRig) -> None:
    """Tokens live for 2 s, and for 3 s with renewals: renewed, then logged in anew, and no read is ever refused."""
    role = await trio.to_thread.run_sync(lambda: app_role(vault, most_seconds=3))
    seen = set()
    async with opened(vault, app_role=role) as source:
        await source.check()
        until = trio.current_time() + 3 * TTL_SECONDS + 1
        while trio.current_time() < until:
            assert await password(source) == PASSWORD
            seen.add((await source.tokens.get()).reveal())
            await trio.sleep(0.05)
    assert len(seen) >= 2


async def test_a_revoked_token_is_replaced_by_the_next_read_but_a_young_one_is_not(
    vault: VaultRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = await trio.to_thread.run_sync(lambda: app_role(vault, seconds=60))
    async with opened(vault, app_role=role) as source:
        assert await password(source) == PASSWORD
        token = await source.tokens.get()
        await trio.to_thread.run_sync(lambda: vault.server.ask("POST", "auth/token/revoke", {"token": token.reveal()}))
        with pytest.raises(SecretDenied):
            await password(source)
        monkeypatch.setattr("casproxy.secrets.vault_token._RELOGIN_SECONDS", 0.0)
        assert await password(source) == PASSWORD
        assert await source.tokens.get() != token


async def test_a_policy_that_says_no_is_no_reason_for_more_than_one_login(
    vault: VaultRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casproxy.secrets.vault_token._RELOGIN_SECONDS", 0.0)
    role = await trio.to_thread.run_sync(lambda: app_role(vault, seconds=60))
    async with opened(vault, app_role=role) as source:
        await password(source)
        vault.deny(monkeypatch)
        with pytest.raises(SecretDenied):
            await password(source)


async def test_a_wrong_secret_id_is_named_at_the_start(vault: VaultRig) -> None:
    role = await trio.to_thread.run_sync(lambda: app_role(vault))
    wrong = AppRole(role_id=role.role_id, secret_id=SecretStr("canary-wrong"))
    async with opened(vault, app_role=wrong) as source:
        with pytest.raises(ConfigError, match=r"^credentials_service\.vault\.app_role: .* refuses the login") as caught:
            await source.check()
    assert "canary" not in everything(caught.value)


async def test_kubernetes_sends_the_pods_token_as_it_is_now(vault: VaultRig, tmp_path: Path) -> None:
    """No cluster here: the gate answers the login as Vault does, and the token it hands out is a real one."""
    token_file = tmp_path / "token"
    login = KubernetesLogin(role="casproxy", token_file=token_file)
    auth = {"client_token": vault.token, "lease_duration": 60, "renewable": True}
    async with opened(vault, kubernetes=login) as source:
        with pytest.raises(SecretDenied, match="service account token cannot be read"):
            await source.read("a")
        token_file.write_text("canary-service-account-token\n")
        with vault.gate.answering("200 OK", json.dumps({"auth": auth})) as asked:
            assert (await source.tokens.get()).reveal() == vault.token
        assert await password(source) == PASSWORD
    request = bytes(asked).decode()
    assert request.startswith("POST /v1/auth/kubernetes/login HTTP/1.1\r\n")
    assert json.loads(request.partition("\r\n\r\n")[2]) == {"role": "casproxy", "jwt": "canary-service-account-token"}


# -- states of the server ---------------------------------------------------------------------------


async def test_sealed_is_an_outage_and_passes(vault: VaultRig) -> None:
    async with opened(vault) as source:
        assert await password(source) == PASSWORD
        await trio.to_thread.run_sync(vault.server.seal)
        try:
            for secret_id in ("a", "missing"):
                with pytest.raises(SecretUnavailable, match="sealed") as caught:
                    await source.read(secret_id)
                assert "HTTP 503" in str(caught.value.__cause__)
            with pytest.raises(
                ConfigError, match=r"^credentials_service\.vault\.address: .*HTTP 503.*; check the address"
            ):
                await source.check()
        finally:
            await trio.to_thread.run_sync(vault.server.unseal)
        assert await password(source) == PASSWORD


async def test_a_deleted_version_is_missing(vault: VaultRig) -> None:
    vault.server.ask("DELETE", f"{vault.name}/data/a")
    async with opened(vault) as source:
        with pytest.raises(SecretNotFound):
            await source.read("a")


async def test_a_redirect_is_not_followed_and_takes_no_token_along(vault: VaultRig) -> None:
    elsewhere = f"Location: http://127.0.0.1:{vault.server.port}/v1/{vault.name}/data/a\r\n"
    async with opened(vault) as source:
        with (
            vault.gate.answering("307 Temporary Redirect", "", headers=elsewhere),
            pytest.raises(SecretUnavailable, match="standby"),
        ):
            await source.read("a")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        ("404 Not Found", "<html>no such page</html>", SecretUnavailable),
        ("404 Not Found", '{"errors": []}', SecretNotFound),
        ("404 Not Found", '{"errors": ["no handler for route"]}', SecretUnavailable),
        ("403 Forbidden", '{"errors": ["permission denied"]}', SecretDenied),
        ("429 Too Many Requests", '{"errors": []}', SecretUnavailable),
        ("473 Standby", "", SecretUnavailable),
        ("502 Bad Gateway", "<html>", SecretUnavailable),
        ("200 OK", f'{{"data": {{"data": "{PASSWORD}"}}}}', SecretMalformed),
        ("200 OK", f'{{"data": {{"data": ["{PASSWORD}"]}}}}', SecretMalformed),
        ("200 OK", f'{{"data": ["{PASSWORD}"]}}', SecretMalformed),
        ("200 OK", f'["{PASSWORD}"]', SecretMalformed),
        ("200 OK", f'{{"data": {{"data": {{"Password": "{PASSWORD}"', SecretMalformed),
    ],
)
async def test_answers(vault: VaultRig, status: str, body: str, error: type[SecretError]) -> None:
    async with opened(vault) as source:
        with vault.gate.answering(status, body), pytest.raises(error) as caught:
            await source.read("a")
        assert PASSWORD not in everything(caught.value)


# -- what is sent -----------------------------------------------------------------------------------


async def test_the_namespace_and_the_token_are_sent_and_nothing_of_the_environment(
    vault: VaultRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_ADDR"):
        monkeypatch.setenv(name, "canary-environment")
    async with opened(vault, namespace="team1/") as source:
        with vault.gate.answering("404 Not Found", '{"errors": []}') as asked, pytest.raises(SecretNotFound):
            await source.read("a")
    head = bytes(asked).decode().lower()
    assert "\r\nx-vault-namespace: team1/\r\n" in head and f"\r\nx-vault-token: {vault.token.lower()}\r\n" in head
    assert "canary" not in head


async def test_a_namespace_keeps_its_secrets_to_itself(vault: VaultRig) -> None:
    async with opened(vault, namespace="nowhere") as source:
        with pytest.raises(SecretError):
            await source.read("a")


async def test_a_mount_below_a_path(vault: VaultRig) -> None:
    mount = f"below/{vault.name}/kv"
    vault.server.mount(mount)
    vault.server.policy(vault.name, f'path "{mount}/data/*" {{ capabilities = ["read"] }}')
    vault.server.ask("POST", f"{mount}/data/a", {"data": {"Password": PASSWORD}})
    async with opened(vault, mount_path=f"/{mount}/") as source:
        assert await password(source) == PASSWORD
        await source.check()


# -- the check at start -----------------------------------------------------------------------------


async def refused(section: VaultSource, timeout: float = 5.0) -> str:
    async with open_vault(section, PREFIX, timeout) as source:
        with pytest.raises(ConfigError) as caught:
            await source.check()
    return str(caught.value)


async def test_a_bad_token_is_named(vault: VaultRig) -> None:
    text = await refused(vault.section(token=SecretStr("canary-bad-token")))
    assert text.startswith("credentials_service.vault.token: http://127.0.0.1:")
    assert "refuses to read" in text and "chainloop/chainloop-non-existing" in text and "canary" not in text


async def test_a_bad_address_is_named(vault: VaultRig) -> None:
    text = await refused(vault.section(address="http://user:canary@127.0.0.1:1"))
    assert text.startswith("credentials_service.vault.address: http://127.0.0.1:1 cannot be used: ConnectionError")
    assert "canary" not in text
    text = await refused(vault.section(address="nonsense"))
    assert text.startswith("credentials_service.vault.address: nonsense cannot be used: MissingSchema")


async def test_a_server_of_another_kind_is_named(vault: VaultRig) -> None:
    with vault.gate.answering("200 OK", "<html>welcome</html>"):
        text = await refused(vault.section())
    assert text.startswith("credentials_service.vault.address: ")


async def test_a_missing_mount_is_named(vault: VaultRig) -> None:
    text = await refused(vault.section(mount_path="nowhere", token=SecretStr(vault.server.root_token)))
    assert text.startswith("credentials_service.vault.mount_path: ") and "no KV engine of version 2 at nowhere" in text


async def test_a_silent_server_is_named_in_time(vault: VaultRig, monkeypatch: pytest.MonkeyPatch) -> None:
    with vault.hang(monkeypatch):
        text = await refused(vault.section(), timeout=0.3)
    assert text.startswith("credentials_service.vault.address: ")


async def test_a_ca_nobody_knows_is_named(vault: VaultRig, tmp_path: Path) -> None:
    text = await refused(vault.section(ca_file=tmp_path / "none.pem", address="https://127.0.0.1:1"))
    assert text.startswith("credentials_service.vault.address: https://127.0.0.1:1 cannot be used")


async def test_a_probe_that_is_there_is_named(vault: VaultRig) -> None:
    vault.put("chainloop/chainloop-non-existing", {"a": "b"})
    assert "there is a secret chainloop/chainloop-non-existing" in await refused(vault.section())
