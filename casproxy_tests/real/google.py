"""Owns the process that stands in for GCP Secret Manager, for Google's real client to talk to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from casproxy_tests.fakes.secret_store import Control
from casproxy_tests.real.process import answers, free_port, python, require_package, running


@dataclass(frozen=True, slots=True)
class GoogleSecretManager:
    port: int
    control: Control


@contextmanager
def running_google() -> Iterator[GoogleSecretManager]:
    require_package("grpc", "secrets in GCP Secret Manager")
    port, control_port = free_port(), free_port()
    command = python("casproxy_tests.fakes.google_secret_manager", str(port), str(control_port))
    root = Path(__file__).parents[2]
    with (
        tempfile.TemporaryDirectory() as name,
        running(command, Path(name), lambda: answers(port), {"PYTHONPATH": str(root)}),
    ):
        yield GoogleSecretManager(port, Control(control_port))
