"""Which third-party package may be named where: a vendor's change then changes one file of ours."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from casproxy_tests.architecture import modules

_EVERYWHERE_BUT_WIRE = ("msgspec", "structlog", "trio")
_HOMES = {
    "azure": ("secrets.azure", "storage.azure_blob"),
    "boto3": ("secrets.aws", "storage.s3", "storage.s3_access_point"),
    "botocore": ("secrets.aws", "storage.s3", "storage.s3_access_point"),
    "certifi": ("trust",),
    "cryptography": ("auth.*", "certificates", "dev.*"),
    "google.api_core": ("secrets.gcp",),
    "google.auth": ("secrets.gcp",),
    "google.cloud": ("secrets.gcp",),
    "google.oauth2": ("secrets.gcp",),
    "google.protobuf": ("services.*", "client.*", "bench.*"),
    "google.rpc": ("services.*", "client.*", "cli.errors"),
    "grpc": ("bench.grpcio_driver", "observe.tracing", "secrets.gcp"),
    "h11": ("web.http1", "outbound.connection"),
    "h2": ("wire.*", "web.http2"),
    "hpack": ("wire.*",),
    "httpx": ("outbound*", "secrets.*", "storage.*", "auth.*"),
    "hvac": ("secrets.vault",),
    "hypercorn": ("app", "web.*", "observe.log"),
    "hyperframe": ("wire.*",),
    "jwt": ("auth.*",),
    "opentelemetry": ("observe.tracing",),
    "prometheus_client": ("observe.*", "web.*", "workers.merge"),
    "requests": ("secrets.gcp",),
    "resvg_py": ("bench.plot",),
    "rich": ("cli.*", "dev.*"),
    "sentry_sdk": ("observe.sentry",),
    "shtab": ("cli.completion_command",),
    "yaml": ("config.*", "secrets.file", "cli.config_command"),
}


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "google")


def _package(name: str) -> str:
    """The part of a dotted name that is one installable thing: ``google`` is shared by many."""
    return ".".join(name.split(".")[: 2 if name.startswith("google.") else 1])


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts[1:])


@pytest.mark.parametrize("path", [path for path in modules() if path.parts[0] == "casproxy"], ids=str)
def test_third_party_packages_stay_at_home(path: Path) -> None:
    """Everything not in the table is either the standard library, ours, or a decision somebody has yet to make."""
    module = _module(path)
    for name in sorted({_package(name) for name in _imports(modules()[path])} - {"google"}):
        if name in sys.stdlib_module_names or name == "casproxy":
            continue
        homes = _HOMES.get(name, ())
        at_home = any(fnmatchcase(module, home) for home in homes)
        everywhere = name in _EVERYWHERE_BUT_WIRE and not module.startswith("wire.")
        assert at_home or everywhere, f"casproxy.{module} imports {name}; its homes: {homes or 'none'}"
