"""A server process that asks for client certificates: who shows one comes in, who does not is told what to give."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from casproxy.digest import Digest
from casproxy_tests.cas import PLAIN
from casproxy_tests.e2e.processes import PROGRAM, SLOWEST_SECONDS, Dev, casproxy, error_line
from casproxy_tests.real.certificates import Identity, authority, new_authority, new_client, write_server_files

CONTENT = b"only for those who are known"
TLS_1_2 = """openssl_conf = all
[all]
ssl_conf = tls
[tls]
system_default = newest
[newest]
MaxProtocol = TLSv1.2
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. ``directory``: where commands run; it holds all the files."""

    addr: str
    metrics: str
    directory: Path

    def run(self, command: str, *, shows: str = "", tls_1_2: bool = False) -> subprocess.CompletedProcess[bytes]:
        """``upload`` or ``download`` of ``CONTENT``, with a certificate if ``shows`` names one."""
        subject = {"upload": ("-",), "download": (str(Digest.of(CONTENT)), "--out", "-")}[command]
        shown = ("--cert", f"{shows}.crt", "--key", f"{shows}.key") if shows else ()
        address = ("--addr", self.addr, "--ca", "ca.pem", "--token-file", f"{command}.token")
        prefix = ("env", "OPENSSL_CONF=tls_1_2.cnf") if tls_1_2 else ()
        return casproxy(self.directory, command, *subject, *address, *shown, stdin=CONTENT, prefix=prefix)

    def refused_handshakes(self) -> float:
        text = httpx.get(f"http://{self.metrics}/metrics", verify=PLAIN, trust_env=False).text
        name = 'casproxy_limit_reached_total{limit="tls_handshake"} '
        [value] = [line.removeprefix(name) for line in text.splitlines() if line.startswith(name)]
        return float(value)


def write_pair(directory: Path, name: str, ca: Identity) -> None:
    made = new_client(name, ca)
    (directory / f"{name}.crt").write_bytes(made.certificate_pem)
    (directory / f"{name}.key").write_bytes(made.key_pem)


@contextmanager
def running_server(directory: Path, dev: Dev) -> Iterator[Server]:
    """``casproxy serve`` on the keys of ``dev``, for clients that show a certificate of the CA in ``clients.pem``."""
    certificate, key = write_server_files(directory)
    tls = {"certificate": str(certificate), "private_key": str(key), "client_ca_file": str(directory / "clients.pem")}
    made = dev.directory / ".casproxy"
    config = {
        "server": {name: {"addr": "127.0.0.1:0"} for name in ("http", "http_metrics")}
        | {"grpc": {"addr": "127.0.0.1:0", "tls_config": tls}},
        "auth": {"public_key_path": str(made / "public.pem")},
        "credentials_service": {"file": {"path": str(made / "secrets.yaml")}},
        "storage": {"fs": {"root": str(directory / "store")}},
    }
    (directory / "config.yaml").write_text(json.dumps(config))  # YAML is a superset of JSON
    command = [*PROGRAM, "serve", "--conf", str(directory / "config.yaml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            serving = next(line for line in map(json.loads, process.stderr) if line["event"] == "serving")
            yield Server(f"localhost:{serving['grpc'].rpartition(':')[2]}", serving["metrics"], directory)
            process.terminate()
            process.stderr.read()
            assert process.wait(SLOWEST_SECONDS) == 0
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(dev: Dev, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("client-certificates")
    clients = new_authority("clients")
    (directory / "ca.pem").write_bytes(authority().certificate_pem)
    (directory / "clients.pem").write_bytes(clients.certificate_pem)
    write_pair(directory, "known", clients)
    write_pair(directory, "stranger", new_authority("strangers"))
    (directory / "tls_1_2.cnf").write_text(TLS_1_2)
    for command in ("upload", "download"):
        (directory / f"{command}.token").write_text(dev.facts[f"{command}er_token"])
    with running_server(directory, dev) as running:
        yield running


def test_who_shows_a_certificate_uploads_and_downloads(server: Server) -> None:
    uploaded = server.run("upload", shows="known")
    assert uploaded.returncode == 0, uploaded.stderr
    downloaded = server.run("download", shows="known", tls_1_2=True)
    assert (downloaded.returncode, downloaded.stdout) == (0, CONTENT), downloaded.stderr


@pytest.mark.parametrize(
    ("command", "shows", "tls_1_2", "says"),
    [
        ("upload", "", False, "the server asks for a client certificate; give one with --cert FILE and --key FILE"),
        ("download", "", False, "the server asks for a client certificate; give one with --cert FILE and --key FILE"),
        ("upload", "", True, "the server ended the TLS handshake: it may ask for a client certificate; give one with"),
        ("upload", "stranger", False, "the server does not trust the CA of this client's certificate; give another"),
    ],
)
def test_who_shows_none_that_counts_is_told_so_at_the_first_attempt(
    command: str, shows: str, tls_1_2: bool, says: str, server: Server
) -> None:
    before = server.refused_handshakes()
    refused = server.run(command, shows=shows, tls_1_2=tls_1_2)
    assert refused.returncode == 1
    assert error_line(refused).startswith(says)
    assert "--cert" in error_line(refused)
    assert server.refused_handshakes() == before + 1
