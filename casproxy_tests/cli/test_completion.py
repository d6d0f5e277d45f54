"""The completion scripts in the shells they are for: somebody types, presses Tab, then Enter."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from casproxy.cli.completion_command import SHELLS
from casproxy.cli.main import COMMANDS, main
from casproxy_tests.cli.command import watched
from casproxy_tests.real import require_real

_LINES = [
    ("casproxy upl\t", "upload"),
    ("casproxy upload --jo\t 2", "upload --jobs 2"),
    ("casproxy upload fi\t", "upload file.txt"),
    ("casproxy status --output js\t", "status --output json"),
    ("casproxy config sch\t", "config schema"),
    ("casproxy keys generate --out di\t", "keys generate --out directory"),
]
"""What is typed, and the arguments that the command then gets (a slash or blank after the last one is the shell's)."""


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name == "bash":
        require_real(name, "completion in it")
    elif shutil.which(name) is None:
        pytest.skip(f"no {name} on this machine")
    return name


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def test_the_script_is_one_and_names_every_command(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "script"
    path.write_text(script(shell, capsys))
    subprocess.run([shell, "-n", path], check=True)
    assert all(command in path.read_text() for command in COMMANDS)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the shell is: ``di`` is the beginning of one directory's name and of one file's."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "diary").touch()
    (tmp_path / "file.txt").touch()
    return tmp_path


@pytest.mark.parametrize("shell", ["bash", "zsh"], indirect=True)
def test_what_is_typed_is_completed(shell: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scripts = directory / "scripts"
    scripts.mkdir()
    (scripts / "_casproxy").write_text(script(shell, capsys))
    with typing(shell, directory) as terminal:
        terminal.type(_set_up(shell, scripts))
        terminal.wait_for("READY")
        for typed, arguments in _LINES:
            terminal.type(f"{typed}\r")
            assert terminal.wait_for("got<", ">").strip(" /") == arguments


def _set_up(shell: str, scripts: Path) -> str:
    """Load the script, and put a function in the place of the command that shows what arguments it got."""
    source = f". {shlex.quote(str(scripts / '_casproxy'))}"
    load = source if shell == "bash" else f"fpath=({scripts} $fpath); autoload -Uz compinit; compinit -u -D"
    return f'{load}; casproxy() {{ echo "got<$*"">"; }}; echo REA""DY\r'


@pytest.mark.parametrize("shell", ["fish"], indirect=True)
def test_fish_offers_the_same(shell: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``complete -C`` is what Tab does there."""
    source = script(shell, capsys)
    for typed, arguments in _LINES:
        line = typed.partition("\t")[0]
        asked = subprocess.run(
            [shell, "--no-config", "-c", f"{source}\ncomplete -C {shlex.quote(line)}"],
            cwd=directory,
            capture_output=True,
            text=True,
            check=True,
        )
        offered = [answer.partition("\t")[0].strip("/") for answer in asked.stdout.splitlines()]
        wanted = arguments.removesuffix(" 2").split()[-1]
        assert wanted in offered, asked
        assert all(answer.startswith(line.split()[-1]) for answer in offered)


class Terminal:
    """A terminal with a shell in it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._shown = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait_for(self, start: str, end: str = "") -> str:
        """What is shown between ``start`` and ``end``, once it is; the next search begins behind it."""
        while True:
            _, found, rest = self._shown.partition(start)
            text, ended, after = rest.partition(end) if end else ("", "", rest)
            if found and (ended or not end):
                self._shown = after
                return text
            self._shown += os.read(self._descriptor, 65536).decode()


@contextmanager
def typing(shell: str, cwd: Path) -> Iterator[Terminal]:
    """An interactive shell without anybody's settings; it has ended when the block has."""
    bare = ["--norc", "--noprofile"] if shell == "bash" else ["-f"]
    descriptor, end = pty.openpty()
    try:
        process = subprocess.Popen(
            [shell, *bare, "-i"],
            cwd=cwd,
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
            env=watched(HOME=str(cwd)),
        )
        with process:
            try:
                yield Terminal(descriptor)
            finally:
                process.kill()
    finally:
        os.close(end)
        os.close(descriptor)


def test_a_shell_nobody_knows() -> None:
    assert main(["completion", "tcsh"]) == 2
