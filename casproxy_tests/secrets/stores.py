"""Owns the list of stores of secrets that tests run against, and how a rig in each is made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event
from typing import Protocol, TypeAlias

import grpc
import pytest

from casproxy.secrets.api import SecretSource
from casproxy_tests.real.azure import running_azure
from casproxy_tests.real.gate import Gate
from casproxy_tests.real.google import running_google
from casproxy_tests.real.moto import running_moto
from casproxy_tests.real.openbao import running_openbao
from casproxy_tests.secrets.file_rig import DirectoryRig, MapRig
from casproxy_tests.secrets.rigs import AwsRig, AzureRig, GcpRig, VaultRig


class Rig(Protocol):
    """A store of secrets, empty at first.

    ``id``: a text as an id that the store takes, its own corner included. ``put_text``: a value that is any text.
    ``hang``: reads begun in the block do not end before it does; its event tells that one has begun.
    ``idle``: wait until no thread of a source opened here is at work, an abandoned one included.
    """

    def open(self) -> AbstractAsyncContextManager[SecretSource]: ...
    def id(self, text: str) -> str: ...
    def put(self, secret_id: str, value: object) -> None: ...
    def put_text(self, secret_id: str, text: str) -> None: ...
    def remove(self, secret_id: str) -> None: ...
    def go_down(self) -> None: ...
    def come_back(self) -> None: ...
    def deny(self, patch: pytest.MonkeyPatch) -> None: ...
    def hang(self, patch: pytest.MonkeyPatch) -> AbstractContextManager[Event]: ...
    async def idle(self) -> None: ...


OpenRig: TypeAlias = Callable[[Path, pytest.MonkeyPatch], AbstractContextManager[Rig]]
"""Makes a rig from an empty directory, for one test."""


def _file(kind: type[MapRig]) -> Callable[[], AbstractContextManager[OpenRig]]:
    @contextmanager
    def rig(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Rig]:
        yield kind(directory)

    @contextmanager
    def store() -> Iterator[OpenRig]:
        yield rig

    return store


@contextmanager
def _vault() -> Iterator[OpenRig]:
    with running_openbao() as server:

        @contextmanager
        def rig(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Rig]:
            with Gate(server.port) as gate:
                yield VaultRig(server, gate)

        yield rig


@contextmanager
def _aws() -> Iterator[OpenRig]:
    with running_moto() as server:

        @contextmanager
        def rig(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Rig]:
            with Gate(server.port) as gate:
                yield AwsRig(server, gate, patch)

        yield rig


@contextmanager
def _gcp() -> Iterator[OpenRig]:
    with running_google() as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=30)  # so that gRPC's own files are open before any test

        @contextmanager
        def rig(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Rig]:
            with Gate(server.port) as gate:
                try:
                    yield GcpRig(server, gate)
                finally:
                    server.control.fail("")

        yield rig


@contextmanager
def _azure() -> Iterator[OpenRig]:
    with running_azure() as server:

        @contextmanager
        def rig(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Rig]:
            # pytest keeps log records, these keep their errors, and these the answer with its connection
            patch.setattr(logging.getLogger("azure.identity._internal.get_token_mixin"), "disabled", True)
            with Gate(server.port) as gate:
                try:
                    yield AzureRig(server, gate)
                finally:
                    server.control.fail("")

        yield rig


STORES: dict[str, Callable[[], AbstractContextManager[OpenRig]]] = {
    "map": _file(MapRig),
    "directory": _file(DirectoryRig),
    "vault": _vault,
    "aws": _aws,
    "gcp": _gcp,
    "azure": _azure,
}
REMOTE = ("vault", "aws", "gcp", "azure")
