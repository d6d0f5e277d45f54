"""Whoever we call is believed when its CA lies in one of the places, and never otherwise: every client, every place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from casproxy_tests.real.certificates import authority, new_authority, write_server_files
from casproxy_tests.real.nats import running_nats
from casproxy_tests.real.process import answers, free_port, python, running, wait_until
from casproxy_tests.trust.clients import ERRANDS, Errand, NotDelivered, Ports
from casproxy_tests.trust.places import PLACES, Machine, machine


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    directory = tmp_path_factory.mktemp("servers")
    certificate, key = write_server_files(directory)
    root = {"PYTHONPATH": str(Path(__file__).parents[2])}
    everybody = Ports(free_port(), free_port(), free_port())
    command = python("casproxy_tests.trust.server", everybody.https, everybody.grpc, certificate, key)
    flags = ("--tls", "--tlskey", key, "--tlscert", certificate)
    with (
        running(command, directory, lambda: answers(everybody.https), root),
        running_nats(directory / "nats", "python-package", *flags, port=everybody.nats, jetstream=False),
    ):
        yield everybody


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine on which nobody has heard of the servers' CA."""
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "OTEL_EXPORTER_OTLP_CERTIFICATE"):
        monkeypatch.delenv(name, raising=False)
    return machine(tmp_path, new_authority("a stranger").certificate_pem)


@pytest.fixture(autouse=True)
def closed_in_the_end() -> Iterator[None]:
    """gRPC closes its sockets in a thread of its own, some time after a channel was closed."""
    before = _sockets()
    yield
    wait_until(lambda: _sockets() <= before)


def _sockets() -> int:
    return len(psutil.Process().net_connections())


@pytest.mark.parametrize("errand", ERRANDS, ids=lambda errand: errand.__name__)
@pytest.mark.parametrize(
    "place", ["the system's file", "SSL_CERT_FILE", "SSL_CERT_DIR", "the chart's mount", "outbound.ca_file"]
)
async def test_a_ca_is_found_wherever_it_lies(
    place: str, errand: Errand, ports: Ports, strangers: Machine, tmp_path: Path
) -> None:
    with PLACES[place](strangers, tmp_path, authority().certificate_pem).open() as trust:
        await errand(trust, ports)


@pytest.mark.parametrize("errand", ERRANDS, ids=lambda errand: errand.__name__)
async def test_nobody_else_is_believed(
    errand: Errand, ports: Ports, strangers: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0.2")  # an exporter tries again for this long
    with strangers.open() as trust, pytest.raises(ERRANDS[errand]) as refused:
        await errand(trust, ports)
    reasons = f"{refused.value} {refused.value.__cause__}".lower()
    assert "certificate" in reasons or refused.type is NotDelivered
