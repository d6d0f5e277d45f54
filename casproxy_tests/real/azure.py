"""Owns the process that stands in for Azure Key Vault and Entra ID, for Microsoft's real clients to talk to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from casproxy_tests.fakes.secret_store import Control
from casproxy_tests.real.certificates import authority, write_server_files
from casproxy_tests.real.process import answers, free_port, python, running


@dataclass(frozen=True, slots=True)
class AzureKeyVault:
    """``ca_file``: PEM file with the CA that signed the server's certificate."""

    port: int
    control: Control
    ca_file: Path


@contextmanager
def running_azure() -> Iterator[AzureKeyVault]:
    port, control_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ca_file = directory / "ca.pem"
        ca_file.write_bytes(authority().certificate_pem)
        certificate, key = write_server_files(directory)
        command = python("casproxy_tests.fakes.azure_key_vault", str(port), str(control_port), certificate, key)
        root = Path(__file__).parents[2]
        with running(command, directory, lambda: answers(port), {"PYTHONPATH": str(root)}):
            yield AzureKeyVault(port, Control(control_port), ca_file)
