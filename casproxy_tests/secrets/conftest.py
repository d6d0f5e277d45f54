"""Fixtures of the secret sources' own tests: one server each for the whole run, a corner of it for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from casproxy_tests.secrets.rigs import AwsRig, AzureRig, GcpRig, VaultRig
from casproxy_tests.secrets.stores import STORES, OpenRig

SECRET = {"Path": "tenants/a", "Password": "canary-correct-horse"}


@contextmanager
def _rig(store: OpenRig, directory: Path, kind: type) -> Iterator[object]:
    with pytest.MonkeyPatch.context() as patch, store(directory, patch) as made:
        assert isinstance(made, kind)
        made.put(made.id("a"), SECRET)
        yield made


@pytest.fixture(scope="session")
def vault_store() -> Iterator[OpenRig]:
    with STORES["vault"]() as store:
        yield store


@pytest.fixture
def vault(vault_store: OpenRig, tmp_path: Path) -> Iterator[VaultRig]:
    with _rig(vault_store, tmp_path, VaultRig) as rig:
        assert isinstance(rig, VaultRig)
        yield rig


@pytest.fixture(scope="session")
def aws_store() -> Iterator[OpenRig]:
    with STORES["aws"]() as store:
        yield store


@pytest.fixture
def aws(aws_store: OpenRig, tmp_path: Path) -> Iterator[AwsRig]:
    with _rig(aws_store, tmp_path, AwsRig) as rig:
        assert isinstance(rig, AwsRig)
        yield rig


@pytest.fixture(scope="session")
def gcp_store() -> Iterator[OpenRig]:
    with STORES["gcp"]() as store:
        yield store


@pytest.fixture
def gcp(gcp_store: OpenRig, tmp_path: Path) -> Iterator[GcpRig]:
    with _rig(gcp_store, tmp_path, GcpRig) as rig:
        assert isinstance(rig, GcpRig)
        yield rig


@pytest.fixture(scope="session")
def azure_store() -> Iterator[OpenRig]:
    with STORES["azure"]() as store:
        yield store


@pytest.fixture
def azure(azure_store: OpenRig, tmp_path: Path) -> Iterator[AzureRig]:
    with _rig(azure_store, tmp_path, AzureRig) as rig:
        assert isinstance(rig, AzureRig)
        yield rig
