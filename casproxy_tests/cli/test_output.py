"""``--output json``: one object on one line of stdout, from every command that prints facts."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casproxy.cli.main import build_parser, main
from casproxy.cli.parser import subparsers
from casproxy_tests.cli.command import PROGRAM

_WITHOUT = {
    "casproxy completion": "prints a script",
    "casproxy config schema": "prints JSON in any case",
    "casproxy keys jwks": "prints JSON in any case",
    "casproxy serve": "prints nothing; its log is JSON where it is not a terminal",
}


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    below = subparsers(parser)
    if not below:
        yield parser
    for child in below.values():
        yield from leaves(child)


def test_every_command_that_prints_facts_has_the_flag() -> None:
    flags = {
        leaf.prog: {flag for action in leaf._actions for flag in action.option_strings}
        for leaf in leaves(build_parser())
    }
    assert {name for name, known in flags.items() if "--output" not in known} == set(_WITHOUT)


def output(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert main([*arguments, "--output", "json"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    return json.loads(out)


def test_keys_and_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = output(capsys, "keys", "generate", "--out", str(tmp_path / "k"))
    assert set(made) == {"private_key", "public_key", "kid"}
    assert Path(made["private_key"]).is_file()
    flags = ("--role=uploader", "--backend=FS", "--secret-id=dev", "--org-id=org", "--expires=1m")
    signed = output(capsys, "token", *flags, f"--private-key={made['private_key']}")
    assert signed["token"].count(".") == 2
    assert signed["claims"]["role"] == "uploader"
    assert signed["claims"]["exp"] - signed["claims"]["iat"] in (60, 61)


def test_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("server: {grcp: {}}")
    bad.write_text("server: {http: 5}")
    verdict = output(capsys, "config", "check", "--conf", str(good))
    assert (verdict["ok"], verdict["errors"], verdict["live"]) == (True, [], [])
    assert "unknown key server.grcp" in verdict["warnings"][0]
    verdict = output(capsys, "config", "check", "--conf", str(bad), code=1)
    assert (verdict["ok"], len(verdict["errors"])) == (False, 1)
    assert main(["config", "show", "--conf", str(good), "--output", "json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["server"]["grpc"]["addr"] == "0.0.0.0:9001"
    assert shown.err.startswith("warning: ")


def test_a_live_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secrets, conf = tmp_path / "secrets.yaml", tmp_path / "c.yaml"
    secrets.write_text('{"dev": {"Path": "here"}}')
    secrets.chmod(0o600)
    conf.write_text(
        json.dumps(
            {"credentials_service": {"file": {"path": str(secrets)}}, "storage": {"fs": {"root": str(tmp_path)}}}
        )
    )
    command = ("config", "check", "--conf", str(conf), "--live", "--secret", "FS:dev", "--secret", "FS:other")
    verdict = output(capsys, *command, code=1)
    assert [finding["ok"] for finding in verdict["live"]] == [True, True, False]
    assert verdict["live"][1]["text"] == "FS dev: login ok, pull ok, push ok"


def test_dev_tells_a_program_when_it_is_ready(tmp_path: Path) -> None:
    command = [*PROGRAM, "dev", "--grpc-port=0", "--http-port=0", "--metrics-port=0", "--output=json"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ""
        assert process.wait() == 0
    assert facts["grpc"].startswith("127.0.0.1:")
    assert facts["directory"] == ".casproxy"
    assert [command.split()[1] for command in facts["commands"]] == ["upload", "download"]
