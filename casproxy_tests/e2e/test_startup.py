"""``casproxy dev`` and ``casproxy serve``: what they prepare, how they end, and the one line when they cannot start."""

from __future__ import annotations

import json
import os
import shlex
import socket
import stat
import subprocess
from pathlib import Path

import httpx
import pytest

from casproxy.digest import Digest
from casproxy_tests.cas import PLAIN
from casproxy_tests.e2e.processes import (
    FREE_PORTS,
    PROGRAM,
    SLOWEST_SECONDS,
    Dev,
    casproxy,
    error_line,
    files,
    running_dev,
)
from casproxy_tests.real import require_root

NOBODY = 65534
KEYS = {
    "grpc",
    "http",
    "metrics",
    "backend",
    "secret_id",
    "org_id",
    "uploader_token",
    "downloader_token",
    "public_key",
    "private_key",
}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_it_makes_is_private(dev: Dev) -> None:
    root = dev.directory / ".casproxy"
    assert mode(root) == 0o700
    for path in root.iterdir():
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_dev_json_tells_everything(dev: Dev) -> None:
    facts = dev.facts
    assert facts.keys() == KEYS
    assert facts["backend"] == "FS"
    assert facts["grpc"].startswith("127.0.0.1:")
    assert "BEGIN PUBLIC KEY" in Path(facts["public_key"]).read_text()
    assert "BEGIN PRIVATE KEY" in Path(facts["private_key"]).read_text()
    assert httpx.get(f"http://{facts['http']}/infoz", verify=PLAIN, trust_env=False).json()["backends"] == ["FS", "OCI"]
    assert httpx.get(f"http://{facts['http']}/statusz?readiness=1", verify=PLAIN, trust_env=False).status_code == 200
    scrape = httpx.get(f"http://{facts['metrics']}/metrics", verify=PLAIN, trust_env=False).text
    assert 'grpc_service="google.bytestream.ByteStream"' in scrape
    assert 'grpc_code="DataLoss"' in scrape


def test_the_printed_commands_can_be_copied(dev: Dev) -> None:
    commands = [shlex.split(line) for line in dev.lines if line.startswith("  casproxy ")]
    assert [command[1] for command in commands] == ["upload", "download"]
    up, down = (casproxy(dev.directory, *command[1:]) for command in commands)
    assert up.returncode == 0, up.stderr
    assert down.returncode == 0, down.stderr
    assert Digest.of(down.stdout) == Digest.parse(commands[1][2])
    assert any(" ms." in line for line in dev.lines)


def test_with_another_directory_the_printed_commands_carry_their_flags(tmp_path: Path) -> None:
    with running_dev(tmp_path, "--dir", "some where") as dev:
        commands = [shlex.split(line) for line in dev.lines if line.startswith("  casproxy ")]
        elsewhere = [casproxy(tmp_path, *command[1:]) for command in commands]
    assert [result.returncode for result in elsewhere] == [0, 0], elsewhere


def test_a_second_start_keeps_keys_and_data_and_the_tokens_stay_good(tmp_path: Path) -> None:
    with running_dev(tmp_path) as dev:
        first = dev.facts
        assert casproxy(tmp_path, "upload", "-", stdin=b"kept").returncode == 0
        private_key = Path(first["private_key"]).read_bytes()
        kept = files(dev.store)
    assert not (tmp_path / ".casproxy/dev.json").exists()
    with running_dev(tmp_path) as dev:
        assert Path(dev.facts["private_key"]).read_bytes() == private_key
        assert files(dev.store) == kept
        (tmp_path / "old.token").write_text(first["downloader_token"])
        address = ("--addr", dev.facts["grpc"], "--insecure", "--token-file", "old.token")
        result = casproxy(tmp_path, "download", str(Digest.of(b"kept")), "-o", "-", *address)
        assert result.stdout == b"kept"


def test_a_second_one_in_the_same_directory_is_refused_and_the_first_goes_on(dev: Dev) -> None:
    result = casproxy(dev.directory, "dev", *FREE_PORTS)
    assert result.returncode == 1
    assert "another casproxy dev is running" in error_line(result)
    assert casproxy(dev.directory, "status").returncode == 0


def test_a_usual_port_that_is_taken_is_skipped(tmp_path: Path) -> None:
    with running_dev(tmp_path) as dev:
        taken = int(dev.facts["grpc"].rpartition(":")[2])
        other = tmp_path / "other"
        other.mkdir()
        refused = casproxy(other, "dev", *FREE_PORTS, "--grpc-port", str(taken))
        assert refused.returncode == 1
        assert error_line(refused) == (
            f"--grpc-port: 127.0.0.1:{taken} is in use by another process; stop it or set another port"
        )


def test_without_a_server_the_client_says_what_is_missing(tmp_path: Path) -> None:
    result = casproxy(tmp_path, "describe", f"sha256:{'0' * 64}")
    assert result.returncode == 2
    assert "casproxy dev" in error_line(result)


def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    require_root("making a directory of another user")
    (tmp_path / ".casproxy").mkdir(mode=0o700)
    os.chown(tmp_path / ".casproxy", NOBODY, NOBODY)
    result = casproxy(tmp_path, "dev", *FREE_PORTS)
    assert result.returncode == 1
    assert "belongs to another user" in error_line(result)


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / ".casproxy").symlink_to("real")
    result = casproxy(tmp_path, "dev", *FREE_PORTS)
    assert result.returncode == 1
    assert "symbolic link" in error_line(result)


def test_a_key_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    with running_dev(tmp_path):
        pass
    (tmp_path / ".casproxy/private.pem").chmod(0o644)
    result = casproxy(tmp_path, "dev", *FREE_PORTS)
    assert result.returncode == 1
    mend = error_line(result).partition("run ")[2]
    assert mend == "chmod 600 .casproxy/private.pem"
    subprocess.run(shlex.split(mend), cwd=tmp_path, check=True)
    with running_dev(tmp_path):
        pass


def test_an_unwritable_directory_is_one_line(tmp_path: Path) -> None:
    # Root may write anywhere as long as it holds CAP_DAC_OVERRIDE; take it away.
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    tmp_path.chmod(0o500)
    result = casproxy(tmp_path, "dev", *FREE_PORTS, prefix=prefix)
    tmp_path.chmod(0o700)
    assert result.returncode == 1
    assert "cannot create the directory .casproxy" in error_line(result)


def test_an_unknown_option_is_one_line(tmp_path: Path) -> None:
    result = casproxy(tmp_path, "dev", "--prot", "1")
    assert result.returncode == 2
    assert "--prot" in error_line(result)
    assert error_line(casproxy(tmp_path, "dev", "--grpc-port", "x"))


# -- serve ------------------------------------------------------------------------------------------


def write_config(dev_directory: Path, directory: Path, **addresses: str) -> Path:
    """A configuration on the keys and secrets that ``casproxy dev`` made."""
    made = dev_directory / ".casproxy"
    config = {
        "server": {name: {"addr": addresses.get(name, "127.0.0.1:0")} for name in ("grpc", "http", "http_metrics")},
        "auth": {"public_key_path": str(made / "public.pem")},
        "credentials_service": {"file": {"path": str(made / "secrets.yaml")}},
        "storage": {"fs": {"root": str(directory / "store")}},
    }
    path = directory / "config.yaml"
    path.write_text(json.dumps(config))  # YAML is a superset of JSON
    return path


@pytest.mark.parametrize("flag", ["--conf", "-conf"])
def test_serve_serves_a_configuration_and_drains(dev: Dev, tmp_path: Path, flag: str) -> None:
    config = write_config(dev.directory, tmp_path)
    with subprocess.Popen([*PROGRAM, "serve", flag, str(config)], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            serving = next(line for line in map(json.loads, process.stderr) if line["event"] == "serving")
            (tmp_path / "token").write_text(dev.facts["uploader_token"])
            address = ("--addr", serving["grpc"], "--insecure", "--token-file", "token")
            assert casproxy(tmp_path, "upload", "-", *address, stdin=b"x").returncode == 0
            process.terminate()
            events = [json.loads(line)["event"] for line in process.stderr]
            assert process.wait(SLOWEST_SECONDS) == 0
        finally:
            process.kill()
    assert events == ["call", "draining", "drained"]


def test_serve_names_the_setting_of_a_port_in_use(dev: Dev, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = casproxy(tmp_path, "serve", "--conf", str(write_config(dev.directory, tmp_path, http=address)))
    assert result.returncode == 1
    assert error_line(result).startswith(f"server.http.addr: {address} is in use")


def test_serve_without_a_usable_key_is_one_line(dev: Dev, tmp_path: Path) -> None:
    config = write_config(dev.directory, tmp_path)
    settings = json.loads(config.read_text())
    for auth, text in (
        ({}, "auth.public_key_path is not set"),
        ({"public_key_path": str(tmp_path / "none.pem")}, "cannot read the public key"),
        ({"public_key_path": dev.facts["private_key"]}, "holds a private key"),
    ):
        config.write_text(json.dumps(settings | {"auth": auth}))
        result = casproxy(tmp_path, "serve", "--conf", str(config))
        assert result.returncode == 1
        assert text in error_line(result)


def test_serve_with_a_broken_certificate_is_one_line(dev: Dev, tmp_path: Path) -> None:
    config = write_config(dev.directory, tmp_path)
    settings = json.loads(config.read_text())
    for certificate, text in (("none.pem", "cannot read"), ("config.yaml", "not a PEM certificate")):
        path = str(tmp_path / certificate)
        settings["server"]["grpc"]["tls_config"] = {"certificate": path, "private_key": path}
        config.write_text(json.dumps(settings))
        result = casproxy(tmp_path, "serve", "--conf", str(config))
        assert result.returncode == 1
        assert text in error_line(result)


def test_serve_without_a_configuration_is_one_line(tmp_path: Path) -> None:
    assert casproxy(tmp_path, "serve").returncode == 2
    missing = casproxy(tmp_path, "serve", "--conf", str(tmp_path / "none.yaml"))
    assert missing.returncode == 1
    assert "none.yaml" in error_line(missing)
