"""The developer's environment: its services fit the image, the configuration and the commands there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from casproxy.cli.main import build_parser
from casproxy.config import Config
from casproxy.listen import reached_at
from casproxy_tests.deploy import CONTRIB, PROGRAM, UID, documents, loaded

SERVICES: dict[str, dict[str, Any]] = documents(CONTRIB / "compose.yml")[0]["services"]
VOLUMES: dict[str, Any] = documents(CONTRIB / "compose.yml")[0]["volumes"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return loaded(tmp_path, CONTRIB / "compose/server.yaml").config


def test_casproxy_runs_as_in_production() -> None:
    service = SERVICES["casproxy"]
    assert service["user"] == f"{UID}:{UID}"
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["mem_limit"] == "384m"
    assert all(volume.endswith(":ro") for volume in service["volumes"])


def test_ports_are_those_of_the_configuration_on_the_loopback(config: Config) -> None:
    server = config.server
    ports = [reached_at(part.addr, setting="addr")[1] for part in (server.grpc, server.http, server.http_metrics)]
    assert SERVICES["casproxy"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports]


def test_paths_are_mounted(config: Config) -> None:
    mounts = dict(volume.split(":")[1::-1] for volume in SERVICES["casproxy"]["volumes"])
    assert (CONTRIB / mounts["/data/conf"] / "server.yaml").exists()
    key = config.auth.public_key_path
    assert key is not None and mounts[str(key.parent)] == "keys"
    assert SERVICES["keys"]["volumes"] == ["keys:/data/jwt"]
    assert "keys" in VOLUMES


def test_neighbours_are_reached_under_their_names(config: Config) -> None:
    vault = config.credentials_service.vault
    assert vault is not None and vault.token is not None
    assert vault.address == SERVICES["secret"]["environment"]["BAO_ADDR"]
    assert vault.address.startswith("http://openbao:") and "openbao" in SERVICES
    assert vault.token.reveal() == SERVICES["secret"]["environment"]["BAO_TOKEN"]
    assert f"-dev-root-token-id={vault.token.reveal()}" in SERVICES["openbao"]["command"]
    [registry] = config.oci.insecure_registries
    assert f"Repo={registry}/dev" in SERVICES["secret"]["command"] and registry.partition(":")[0] in SERVICES


def test_the_tenant_is_where_the_check_at_start_looks(config: Config) -> None:
    path = SERVICES["secret"]["command"][3]
    assert path.startswith(f"{config.credentials_service.secret_prefix}/")


def test_waits_are_for_what_can_be_waited_for() -> None:
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            healthy = wait["condition"] == "service_healthy"
            assert healthy == ("healthcheck" in SERVICES[name]), name


def test_commands_of_ours_exist() -> None:
    [_, *health] = SERVICES["casproxy"]["healthcheck"]["test"]
    lines = (line.partition(PROGRAM)[2] for line in SERVICES["keys"]["command"][0].splitlines())
    commands = [health[1:], *(line.split() for line in lines if line)]
    assert health[0] == PROGRAM and len(commands) == 2
    for command in commands:
        build_parser().parse_args(command)
