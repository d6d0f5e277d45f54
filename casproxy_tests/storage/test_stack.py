"""From token to store: which backends there are, and what an opened one is keyed by."""

from __future__ import annotations

from pathlib import Path

import pytest

from casproxy.errors import BackendNotFound, BackendRefused, ConfigError, SecretMalformed, SecretUnavailable
from casproxy.secrets.api import Secret
from casproxy.storage.api import Tenant
from casproxy.storage.memory import MemoryBackend
from casproxy.storage.stack import Stack, open_stack
from casproxy_tests.conformance.traffic import get, put


class Secrets:
    """A source that counts."""

    def __init__(self, **secrets: dict[str, object]) -> None:
        self.secrets = secrets
        self.reads: list[str] = []

    async def read(self, secret_id: str) -> Secret:
        self.reads.append(secret_id)
        return Secret(self.secrets[secret_id])


def memory_stack(secrets: Secrets, capacity: int = 8) -> Stack:
    return Stack(secrets.read, {"MEM": lambda secret, tenant: MemoryBackend()}, capacity=capacity)


async def test_an_unknown_type_is_told_before_the_secret_is_read() -> None:
    secrets = Secrets()
    with pytest.raises(BackendNotFound, match='backend "S3" not found'):
        await memory_stack(secrets).resolve(Tenant("S3", "a"))
    assert secrets.reads == []


async def test_a_backend_is_keyed_by_type_secret_id_secret_and_organisation() -> None:
    secrets = Secrets(a={"k": 1}, same={"K": 1}, b={"k": 2})
    stack = memory_stack(secrets)
    first = await stack.resolve(Tenant("MEM", "a", "org"))
    assert await stack.resolve(Tenant("MEM", "a", "org")) is first
    assert await stack.resolve(Tenant("MEM", "same", "org")) is not first
    assert await stack.resolve(Tenant("MEM", "a", "other")) is not first
    assert await stack.resolve(Tenant("MEM", "b", "org")) is not first
    secrets.secrets["a"] = {"k": 3}
    assert await stack.resolve(Tenant("MEM", "a", "org")) is not first


async def test_the_least_recently_used_backend_goes() -> None:
    stack = memory_stack(Secrets(a={"k": 1}, b={"k": 2}, c={"k": 3}), capacity=2)
    a = await stack.resolve(Tenant("MEM", "a"))
    b = await stack.resolve(Tenant("MEM", "b"))
    assert await stack.resolve(Tenant("MEM", "a")) is a
    await stack.resolve(Tenant("MEM", "c"))
    assert await stack.resolve(Tenant("MEM", "a")) is a
    assert await stack.resolve(Tenant("MEM", "b")) is not b


async def test_a_secret_error_passes() -> None:
    async def read(secret_id: str) -> Secret:
        raise SecretUnavailable("down")

    with pytest.raises(SecretUnavailable):
        await Stack(read, {"MEM": lambda secret, tenant: MemoryBackend()}).resolve(Tenant("MEM", "a"))


async def test_fs_is_absent_without_a_root() -> None:
    async with open_stack(fs_root=None, read_secret=Secrets().read) as stack:
        assert stack.backend_types() == []
        with pytest.raises(BackendNotFound):
            await stack.resolve(Tenant("FS", "a"))


async def test_fs_tenants_are_apart(tmp_path: Path) -> None:
    secrets = Secrets(
        a={"path": "tenants/a"}, b={"PATH": "tenants/b"}, none={}, empty={"Path": ""}, up={"Path": "../x"}
    )
    async with open_stack(fs_root=tmp_path / "root", read_secret=secrets.read) as stack:
        assert stack.backend_types() == ["FS"]
        a, b = await stack.resolve(Tenant("FS", "a")), await stack.resolve(Tenant("FS", "b"))
        digest = (await put(a, b"mine")).digest
        assert await get(a, digest) == b"mine"
        assert (tmp_path / "root/tenants/a" / digest.hex[:2] / digest.hex / "oci-layout").exists()
        assert not (tmp_path / "root/tenants/b").exists()
        await put(b, b"mine", file_name="other")
        for secret_id in ("none", "empty"):
            with pytest.raises(SecretMalformed):
                await stack.resolve(Tenant("FS", secret_id))
        with pytest.raises(BackendRefused):
            await stack.resolve(Tenant("FS", "up"))


async def test_an_unusable_root_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^storage\.fs\.root: cannot use .*file.*: not a directory; name"):
        async with open_stack(fs_root=tmp_path / "file" / "below", read_secret=Secrets().read):
            pass
