"""The command itself: help, version, wrong command lines, and that none of these loads the heavy parts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from casproxy import __version__
from casproxy.cli.main import COMMANDS, build_parser, main
from casproxy.cli.parser import subparsers
from casproxy_tests.cli.command import PROGRAM, run_to_end

HEAVY = {
    "trio",
    "httpx",
    "h2",
    "google",
    "boto3",
    "rich",
    "shtab",
    "cryptography",
    "jwt",
    "yaml",
    "hypercorn",
    "structlog",
    "msgspec",
}


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"casproxy {__version__}\n"


def test_help_names_every_command_and_every_exit_code() -> None:
    result = run_to_end("--help")
    assert result.returncode == 0
    assert all(re.search(rf"^    {command} ", result.stdout, re.MULTILINE) for command in COMMANDS)
    assert "0 ok, 1 failed, 2 usage" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_no_abbreviations(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: casproxy {command}" in capsys.readouterr().out
    assert not subparsers(build_parser((command,)))[command].allow_abbrev


@pytest.mark.parametrize("arguments", [("--help",), ("upload", "--help"), ("upload", "missing"), ("frobnicate",)])
def test_answers_that_need_nothing_load_nothing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in result.stderr.splitlines() if "|" in line}
    assert "argparse" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), f"give a command: {', '.join(COMMANDS)}; see 'casproxy --help'"),
        (("upolad",), "unknown command 'upolad'; did you mean upload? See 'casproxy --help'"),
        (("xyzzy",), "unknown command 'xyzzy'; see 'casproxy --help'"),
        (("--verson",), "the following arguments are required: COMMAND; see 'casproxy --help'"),
        (
            ("upload", "f", "--tiemout", "3"),
            "unknown option --tiemout; did you mean --timeout? See 'casproxy upload --help'",
        ),
        (("upload", "--frobnicate=x", "f"), "unknown option --frobnicate; see 'casproxy upload --help'"),
        (("config", "check", "--xyzzy"), "unknown option --xyzzy; see 'casproxy config check --help'"),
        (("download", "a", "b"), "unexpected argument 'b'; see 'casproxy download --help'"),
        (("download", "-o"), "argument -o/--out: expected one argument; see 'casproxy download --help'"),
        (("status", "--output", "xml"), "argument --output: invalid choice: 'xml'"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_says_what_to_do(
    arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"casproxy: {text}")
    assert captured.err.count("\n") == 1
