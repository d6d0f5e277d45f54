"""``casproxy secrets``: what an operator sees, and never a value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from casproxy_tests.cli.command import run_to_end
from casproxy_tests.secrets.file_rig import MapRig

PASSWORD = "canary-of-the-command"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    rig = MapRig(tmp_path)
    rig.put("team/a", {"Repository": "registry.example/a", "Password": PASSWORD, "Empty": ""})
    rig.put("broken", PASSWORD)
    path = tmp_path / "conf.yaml"
    path.write_text(f"credentials_service: {{file: {{path: {rig.path}}}}}")
    return path


def test_read_shows_names_and_hides_values(conf: Path) -> None:
    done = run_to_end("secrets", "read", "team/a", "--conf", str(conf))
    assert done.stdout.split("\n") == [
        "empty       ****** (text)",
        "password    ****** (text)",
        "repository  ****** (text)",
        "",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_read_as_json(conf: Path) -> None:
    done = run_to_end("secrets", "read", "team/a", "--conf", str(conf), "--output", "json")
    assert json.loads(done.stdout) == {
        "secret_id": "team/a",
        "fields": {"empty": "text", "password": "text", "repository": "text"},
    }


@pytest.mark.parametrize(
    ("secret_id", "text"),
    [
        ("missing", "secret missing not found"),
        ("../etc", "no secret can have the id '../etc'"),
        ("broken", "secret broken is not a JSON or YAML object"),
    ],
)
def test_what_cannot_be_read_is_one_line(conf: Path, secret_id: str, text: str) -> None:
    done = run_to_end("secrets", "read", secret_id, "--conf", str(conf))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"casproxy: {text}\n")


def test_check_says_in_a_line_that_the_source_works(conf: Path) -> None:
    done = run_to_end("secrets", "check", "--conf", str(conf))
    assert (done.returncode, done.stdout, done.stderr) == (0, "file  ok\n", "")


def test_check_reads_what_is_named_as_well(conf: Path) -> None:
    done = run_to_end("secrets", "check", "team/a", "broken", "--conf", str(conf))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "file    ok",
        "team/a  ok",
        "broken  secret broken is not a JSON or YAML object",
    ]


def test_check_names_the_key_to_fix(conf: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets.yaml").unlink()
    done = run_to_end("secrets", "check", "--conf", str(conf), "--output", "json")
    assert done.returncode == 1
    found = json.loads(done.stdout)["file"]
    assert not found["ok"] and found["error"].startswith("credentials_service.file.path: ")


def test_check_of_a_vault_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text("credentials_service: {vault: {address: 'http://user:pw@127.0.0.1:1', token: canary-token}}")
    done = run_to_end("secrets", "check", "--conf", str(path))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        "vault  credentials_service.vault.address: http://127.0.0.1:1 cannot be used: "
        "ConnectionError: Connection refused; check the address and the server's state\n"
    )
