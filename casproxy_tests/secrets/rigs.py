"""Owns the rigs of remote sources: a store that a test can change, take away, forbid, jam and break.

One server serves a whole run; each rig has a corner of it for itself and a gate of its own before it.
"""

from __future__ import annotations

import json
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import grpc
import pytest
import trio
from google.auth.credentials import AnonymousCredentials

from casproxy.config.kinds import SecretStr
from casproxy.config.model import AwsCreds, AwsSource, AzureSource, GcpSource, VaultSource
from casproxy.secrets.api import SecretSource
from casproxy.secrets.aws import open_aws
from casproxy.secrets.azure import open_azure
from casproxy.secrets.gcp import open_gcp
from casproxy.secrets.remote import SdkThreads
from casproxy.secrets.vault import open_vault
from casproxy_tests.fakes.azure_key_vault import CLIENT_SECRET, TENANT
from casproxy_tests.real.azure import AzureKeyVault
from casproxy_tests.real.gate import Gate
from casproxy_tests.real.google import GoogleSecretManager
from casproxy_tests.real.moto import REGION, Moto
from casproxy_tests.real.openbao import OpenBao

PREFIX = "chainloop"
TIMEOUT_SECONDS = 5.0


class RemoteRig(ABC):
    """What all of them share. ``timeout`` in seconds bounds one request of sources opened from then on."""

    module: str

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.timeout = TIMEOUT_SECONDS
        self.name = f"t{uuid.uuid4().hex[:12]}"
        self._threads: list[SdkThreads] = []

    def id(self, text: str) -> str:
        """``text`` as an id that this store takes."""
        return text

    @asynccontextmanager
    async def open(self) -> AsyncIterator[SecretSource]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"casproxy.secrets.{self.module}.SdkThreads", self._new_threads)
            async with self._open() as source:
                yield source

    def _new_threads(self, *settings: Any) -> SdkThreads:
        """Made by the source, and remembered here even if it is cancelled while it opens."""
        self._threads.append(SdkThreads(*settings))
        return self._threads[-1]

    @abstractmethod
    def _open(self) -> AbstractAsyncContextManager[SecretSource]: ...

    def put(self, secret_id: str, value: object) -> None:
        self.put_text(secret_id, json.dumps(value))

    @abstractmethod
    def put_text(self, secret_id: str, text: str) -> None: ...

    @abstractmethod
    def remove(self, secret_id: str) -> None: ...

    @abstractmethod
    def deny(self, patch: pytest.MonkeyPatch) -> None: ...

    @abstractmethod
    def broken(self) -> AbstractContextManager[object]:
        """Within the block the store answers every request with an internal error."""

    def go_down(self) -> None:
        self.gate.shut()

    def come_back(self) -> None:
        self.gate.reopen()

    @contextmanager
    def hang(self, patch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
        with self.gate.jammed() as begun:
            yield begun

    async def idle(self) -> None:
        for threads in self._threads:
            await threads.wait_idle()
        await trio.to_thread.run_sync(self.gate.wait_idle)


class VaultRig(RemoteRig):
    """A KV mount with a policy and a token."""

    module = "vault"

    def __init__(self, server: OpenBao, gate: Gate) -> None:
        super().__init__(gate)
        self.server = server
        server.mount(self.name)
        self._allow("read")
        self.token = server.token(self.name)

    def _allow(self, capability: str) -> None:
        self.server.policy(self.name, f'path "{self.name}/data/*" {{ capabilities = ["{capability}"] }}')

    def section(self, **changes: Any) -> VaultSource:
        login = {"token": SecretStr(self.token)} if not changes.keys() & {"app_role", "kubernetes"} else {}
        address = f"http://127.0.0.1:{self.gate.port}"
        return VaultSource(**({"address": address, "mount_path": self.name} | login | changes))

    def _open(self) -> AbstractAsyncContextManager[SecretSource]:
        return open_vault(self.section(), PREFIX, self.timeout)

    def put(self, secret_id: str, value: object) -> None:
        self.server.ask("POST", f"{self.name}/data/{secret_id}", {"data": value})

    def put_text(self, secret_id: str, text: str) -> None:
        raise NotImplementedError("Vault takes nothing but objects")

    def remove(self, secret_id: str) -> None:
        self.server.ask("DELETE", f"{self.name}/metadata/{secret_id}")

    def deny(self, patch: pytest.MonkeyPatch) -> None:
        self._allow("deny")

    def broken(self) -> AbstractContextManager[object]:
        return self.gate.answering("500 Internal Server Error", '{"errors": ["internal error"]}')


class AwsRig(RemoteRig):
    """A user, and secrets under a prefix."""

    module = "aws"

    def __init__(self, server: Moto, gate: Gate, patch: pytest.MonkeyPatch) -> None:
        super().__init__(gate)
        self.server = server
        self.user = server.reader(self.name)
        patch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://127.0.0.1:{gate.port}")

    def id(self, text: str) -> str:
        return f"{self.name}/{text}"

    def section(self) -> AwsSource:
        creds = AwsCreds(access_key=self.user.access_key, secret_key=SecretStr(self.user.secret_key))
        return AwsSource(region=REGION, creds=creds)

    def _open(self) -> AbstractAsyncContextManager[SecretSource]:
        return open_aws(self.section(), PREFIX, self.timeout)

    def put_text(self, secret_id: str, text: str) -> None:
        self.server.put(secret_id, text)

    def remove(self, secret_id: str) -> None:
        self.server.remove(secret_id)

    def deny(self, patch: pytest.MonkeyPatch) -> None:
        self.server.forbid(self.user)

    def broken(self) -> AbstractContextManager[object]:
        body = '{"__type": "InternalServiceError", "Message": "An error occurred on the server side."}'
        return self.gate.answering("500 Internal Server Error", body)


class GcpRig(RemoteRig):
    """A project of its own."""

    module = "gcp"

    def __init__(self, server: GoogleSecretManager, gate: Gate) -> None:
        super().__init__(gate)
        self.server = server

    def id(self, text: str) -> str:
        return "".join(char if char.isalnum() else "-" for char in text)

    def section(self) -> GcpSource:
        return GcpSource(project_id=self.name)

    def _open(self) -> AbstractAsyncContextManager[SecretSource]:
        def channel(host: str, *, options: Any, **_unused: Any) -> grpc.Channel:
            return grpc.insecure_channel(f"127.0.0.1:{self.gate.port}", options=options)

        anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
        return open_gcp(self.section(), PREFIX, self.timeout, credentials=anonymous, open_channel=channel)

    def put_text(self, secret_id: str, text: str) -> None:
        self.server.control.put(self._path(secret_id), text)

    def remove(self, secret_id: str) -> None:
        self.server.control.remove(self._path(secret_id))

    def _path(self, secret_id: str) -> str:
        return f"projects/{self.name}/secrets/{secret_id}"

    def deny(self, patch: pytest.MonkeyPatch) -> None:
        self.server.control.fail("PERMISSION_DENIED")

    @contextmanager
    def broken(self) -> Iterator[None]:
        with failing(self.server.control.fail, "INTERNAL"):
            yield


class AzureRig(RemoteRig):
    """Secrets under a prefix; what fails, fails for all, so one test at a time."""

    module = "azure"

    def __init__(self, server: AzureKeyVault, gate: Gate) -> None:
        super().__init__(gate)
        self.server = server

    def id(self, text: str) -> str:
        return f"{self.name}-" + "".join(char if char.isalnum() else "-" for char in text)

    def section(self, **changes: Any) -> AzureSource:
        login: dict[str, Any] = {
            "tenant_id": TENANT,
            "client_id": "casproxy",
            "client_secret": SecretStr(CLIENT_SECRET),
        }
        return AzureSource(**({"vault_uri": f"https://127.0.0.1:{self.gate.port}"} | login | changes))

    def sdk_options(self) -> dict[str, Any]:
        return {
            "authority": f"https://127.0.0.1:{self.gate.port}",
            "connection_verify": str(self.server.ca_file),
            "disable_instance_discovery": True,
            "verify_challenge_resource": False,
        }

    def _open(self) -> AbstractAsyncContextManager[SecretSource]:
        return open_azure(self.section(), PREFIX, self.timeout, self.sdk_options())

    def put_text(self, secret_id: str, text: str) -> None:
        self.server.control.put(secret_id, text)

    def remove(self, secret_id: str) -> None:
        self.server.control.remove(secret_id)

    def deny(self, patch: pytest.MonkeyPatch) -> None:
        self.server.control.fail("403")

    @contextmanager
    def broken(self) -> Iterator[None]:
        with failing(self.server.control.fail, "500"):
            yield


@contextmanager
def failing(fail: Any, status: str) -> Iterator[None]:
    fail(status)
    try:
        yield
    finally:
        fail("")
