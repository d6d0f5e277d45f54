"""``casproxy config check|show|schema`` as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from casproxy.cli.main import main
from casproxy.config.load import load


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("CAS_"):
            monkeypatch.delenv(name)


def conf(tmp_path: Path, text: str) -> str:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("flag", ["--conf", "-conf"])
def test_check_says_ok(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", flag, conf(tmp_path, "server: {grpc: {addr: ':1'}}")]) == 0
    assert capsys.readouterr() == ("ok\n", "")


def test_check_prints_warnings_and_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = conf(tmp_path, "server: {grcp: {}}")
    assert main(["config", "check", "--conf", path]) == 0
    out, err = capsys.readouterr()
    assert out == "ok\n"
    assert err == f"warning: {path}:1: unknown key server.grcp; the nearest known key is server.grpc\n"


def test_strict_makes_unknown_keys_errors_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = conf(tmp_path, "server: {grcp: {}}\nauth: {robot_account_public_key_path: p}")
    assert main(["config", "check", "--conf", path, "--strict"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"error: {path}:1: unknown key server.grcp; the nearest known key is server.grpc",
        f"warning: {path}:2: auth.robot_account_public_key_path is deprecated; call it public_key_path",
    ]
    assert (
        main(["config", "check", "--strict", "--conf", conf(tmp_path, "auth: {robot_account_public_key_path: p}")]) == 0
    )


def test_check_prints_one_line_per_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = conf(tmp_path, "server:\n  grpc: {addr: x}\n  http: 5\n")
    assert main(["config", "check", "--conf", path]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(": ")[:3] for line in err.splitlines()] == [
        ["error", f"{path}:3", "server.http"],
        ["error", f"{path}:2", "server.grpc.addr"],
    ]


def test_check_of_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--conf", str(tmp_path / "x.yaml")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/x.yaml: cannot be read: No such file or directory\n"


def test_a_hostile_file_name_cannot_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a\x1b[2Jb.yaml"
    path.write_text("server: 5")
    assert main(["config", "check", "--conf", str(path)]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_show_prints_what_is_in_effect_without_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAS_server.grpc.addr", ":7")
    monkeypatch.setenv("CAS_NATS_TOKEN", "hunter2")
    assert main(["config", "show", "--conf", conf(tmp_path, "nats_server: {uri: u, token: '${NATS_TOKEN}'}")]) == 0
    out, err = capsys.readouterr()
    assert "hunter2" not in out + err
    shown = tmp_path / "shown.yaml"
    shown.write_text(out)
    config = load(shown, {}).config
    assert config.server.grpc.addr == ":7"
    assert config.server.http.addr == "0.0.0.0:8001"
    assert config.nats_server.uri == "u"


def test_show_of_a_wrong_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = conf(tmp_path, "server: {grpc: {timeout: soon}}")
    assert main(["config", "show", "--conf", path]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "server.grpc.timeout" in err


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["server"]["type"] == ["object", "null"]


@pytest.mark.parametrize("arguments", [["config"], ["config", "chekc"], ["config", "check", "--strct"]])
def test_a_wrong_command_line_is_one_line_that_says_what_to_do(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "--help" in err
