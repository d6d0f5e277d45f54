"""The manifests fit the image, the configuration in them, and each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from casproxy.config import Config
from casproxy.listen import reached_at
from casproxy_tests.deploy import CONTRIB, UID, documents, loaded

DIRECTORY = CONTRIB / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((DIRECTORY / "kustomization.yaml").read_text())
SELECTOR = {"app.kubernetes.io/name": "casproxy"}
CHART_MEMORY = "384Mi"


def resources() -> dict[str, dict[str, Any]]:
    """Every object by ``Kind/name``."""
    found = [document for name in KUSTOMIZATION["resources"] for document in documents(DIRECTORY / name)]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in found}


@pytest.fixture
def pod() -> dict[str, Any]:
    spec: dict[str, Any] = resources()["Deployment/casproxy"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    [only] = pod["containers"]
    found: dict[str, Any] = only
    return found


@pytest.fixture
def config(tmp_path: Path) -> Config:
    given = tmp_path / "config.secret.yaml"
    given.write_bytes((DIRECTORY / "config.secret.example.yaml").read_bytes())
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    return loaded(mounted, DIRECTORY / "server.yaml", given).config


def test_kustomize_knows_every_file() -> None:
    listed = {*KUSTOMIZATION["resources"], *KUSTOMIZATION["configMapGenerator"][0]["files"]}
    there = {path.name for path in DIRECTORY.iterdir()}
    assert there - listed == {"kustomization.yaml", "config.secret.example.yaml"}
    assert set(resources()) == {
        "Namespace/casproxy",
        "Deployment/casproxy",
        "Service/casproxy-grpc",
        "Service/casproxy-http",
        "Service/casproxy-metrics",
        "HorizontalPodAutoscaler/casproxy",
        "PodDisruptionBudget/casproxy",
        "NetworkPolicy/casproxy",
    }


def test_the_pod_is_nobody_and_cannot_write(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsNonRoot"]) == (UID, True)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(mount["readOnly"] for mount in container["volumeMounts"])
    assert container["resources"]["limits"] == {"memory": CHART_MEMORY}


def test_ports_are_those_of_the_configuration(container: dict[str, Any], config: Config) -> None:
    server = config.server
    addresses = {"grpc": server.grpc.addr, "http": server.http.addr, "metrics": server.http_metrics.addr}
    configured = {name: reached_at(address, setting=name)[1] for name, address in addresses.items()}
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == configured
    for name in configured:
        [port] = resources()[f"Service/casproxy-{name}"]["spec"]["ports"]
        assert (port["name"], port["targetPort"]) == (name, name)


def test_probes_ask_what_the_server_answers(container: dict[str, Any]) -> None:
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    live, ready = {"path": "/statusz", "port": "http"}, {"path": "/statusz?readiness=1", "port": "http"}
    assert probes == {"startup": live, "liveness": live, "readiness": ready}


def test_the_grace_period_holds_the_drain(pod: dict[str, Any], container: dict[str, Any], config: Config) -> None:
    [_, seconds] = container["lifecycle"]["preStop"]["exec"]["command"]
    closing = 3  # the last answers over HTTP
    assert float(seconds) + config.server.drain_grace + closing < pod["terminationGracePeriodSeconds"]


def test_what_the_configuration_names_is_mounted(
    pod: dict[str, Any], container: dict[str, Any], config: Config
) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"config": "/data/conf", "jwt-public-key": str(config.auth.public_key_path)}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    config_map = KUSTOMIZATION["configMapGenerator"][0]["name"]
    assert pod["volumes"][0]["projected"]["sources"][0] == {"configMap": {"name": config_map}}


def test_everything_selects_the_pods() -> None:
    found = resources()
    deployment = found["Deployment/casproxy"]["spec"]
    assert deployment["template"]["metadata"]["labels"] == deployment["selector"]["matchLabels"] == SELECTOR
    services = [item["spec"]["selector"] for key, item in found.items() if key.startswith("Service/")]
    assert services == [SELECTOR] * 3
    assert found["PodDisruptionBudget/casproxy"]["spec"]["selector"]["matchLabels"] == SELECTOR
    assert found["NetworkPolicy/casproxy"]["spec"]["podSelector"]["matchLabels"] == SELECTOR


def test_the_autoscaler_owns_the_number_and_asks_for_a_metric_there_is() -> None:
    found = resources()
    scaler = found["HorizontalPodAutoscaler/casproxy"]["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "casproxy"}
    assert "replicas" not in found["Deployment/casproxy"]["spec"]
    assert scaler["minReplicas"] > found["PodDisruptionBudget/casproxy"]["spec"]["maxUnavailable"]
    name = scaler["metrics"][0]["pods"]["metric"]["name"]
    assert f"`{name}`" in (CONTRIB.parent / "docs/how-to/observe.md").read_text()


def test_the_network_policy_lets_clients_scrapes_and_sources_through(container: dict[str, Any], config: Config) -> None:
    policy = resources()["NetworkPolicy/casproxy"]["spec"]
    opened = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
    assert sorted(opened) == sorted(port["name"] for port in container["ports"])
    out = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert config.credentials_service.vault is not None
    assert int(config.credentials_service.vault.address.rpartition(":")[2]) in out
    assert {53, 443} <= out
