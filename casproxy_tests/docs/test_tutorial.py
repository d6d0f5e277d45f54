"""The tutorial is executed: every ``sh`` block, in order, in one directory; the ``text`` block is its output.

A comment before a block says what is special about it: ``<!-- run: background -->`` (goes on while the others run,
and is waited for until it is ready), ``exit N``, ``stop`` (the background command gets Ctrl-C first). ``…`` in an
output stands for anything within a line. Other pages are executed in the same way; there ``<!-- needs: WHAT -->`` marks
what a test cannot run (``test_how_tos.py``).
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/tutorial/README.md"
_BLOCK = re.compile(
    r"(?:^ *<!-- (?:run: (?P<how>[^>]*)|needs: (?P<needs>[^>]*)) -->\n)?"
    r"^(?P<indent> *)```sh\n(?P<script>.*?)^(?P=indent)```\n"
    r"(?:^(?P=indent)```text\n(?P<output>.*?)^(?P=indent)```\n)?",
    re.MULTILINE | re.DOTALL,
)
_SLOWEST_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Block:
    """One command block of the page. ``output`` None: not compared. ``needs``: why no test runs it, if none does."""

    script: str
    output: str | None
    how: tuple[str, ...]
    needs: str = ""

    @property
    def exit_code(self) -> int:
        return next((int(word.removeprefix("exit ")) for word in self.how if word.startswith("exit ")), 0)


def blocks(text: str) -> list[Block]:
    """The blocks of a page, in order."""
    return [_block(found) for found in _BLOCK.finditer(text)]


def _block(found: re.Match[str]) -> Block:
    script, output = (
        re.sub(f"^{found['indent']}", "", text, flags=re.MULTILINE) if text is not None else None
        for text in (found["script"], found["output"])
    )
    assert script is not None
    return Block(script, output, tuple((found["how"] or "").split(", ")), found["needs"] or "")


def matches(shown: str, wanted: str) -> bool:
    """Whether an output is the one on the page."""
    return re.fullmatch("[^\n]*".join(map(re.escape, wanted.split("…"))), shown) is not None


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Ours, with ``casproxy`` on the PATH: the one of this interpreter, installed or not."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "casproxy"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m casproxy.cli.main "$@"\n')
    program.chmod(0o755)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CASPROXY_")}
    return inherited | {"PATH": f"{programs}:{inherited['PATH']}", "PYTHONUTF8": "1"}


def test_the_tutorial_does_what_it_says(tmp_path: Path, environment: dict[str, str]) -> None:
    directory = tmp_path / "empty"
    directory.mkdir()
    with background(directory, environment) as server:
        for block in blocks(PAGE.read_text("utf-8")):
            if "stop" in block.how:
                server.stop()
            if "background" in block.how:
                server.start(block)
            else:
                run(block, directory, environment)


def run(block: Block, directory: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.script],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SLOWEST_SECONDS,
        check=False,
    )
    assert done.returncode == block.exit_code, f"{block.script}{done.stdout}"
    assert block.output is None or matches(done.stdout, block.output), f"{block.script}{done.stdout}"


class Background:
    """The one command that runs beside the others."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None

    def start(self, block: Block) -> None:
        """Start a block and return when it has printed its output (at least up to ``Ready.``)."""
        assert self._process is None
        with (self._directory.parent / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", f"exec {block.script}"],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        shown = ""
        for line in self._process.stdout:
            shown += line
            if line.startswith("Ready."):
                break
        assert "\nReady." in shown, f"{shown}{(self._directory / 'server.log').read_text()}"
        assert block.output is None or matches(shown, block.output), shown

    def stop(self) -> None:
        """Ctrl-C, as the page says; it must end well."""
        process, self._process = self._process, None
        if process is not None:
            with process:
                process.send_signal(signal.SIGINT)
                assert process.wait(_SLOWEST_SECONDS) == 0, (self._directory.parent / "server.log").read_text()

    def kill(self) -> None:
        """Whatever happened, nothing is left."""
        if self._process is not None:
            with self._process as process:
                process.kill()


@contextmanager
def background(directory: Path, environment: dict[str, str]) -> Iterator[Background]:
    """The background command for the length of a test; ended as the page ends it when the test went well."""
    server = Background(directory, environment)
    try:
        yield server
        server.stop()
    finally:
        server.kill()


def test_every_shell_block_is_found() -> None:
    text = PAGE.read_text("utf-8")
    found = blocks(text)
    assert len(found) == text.count("```sh\n") > 10
    assert len([block for block in found if block.output is not None]) == text.count("```text\n")
    assert {word for block in found for word in block.how} <= {
        "",
        "background",
        "stop",
        "exit 1",
        "exit 2",
        "exit 3",
        "exit 4",
    }


@pytest.mark.parametrize(
    ("shown", "wanted", "same"),
    [("a 12 b\n", "a … b\n", True), ("a\nb\n", "a…b\n", False), ("a.b\n", "a.b\n", True), ("axb\n", "a.b\n", False)],
)
def test_an_ellipsis_is_anything_within_a_line(shown: str, wanted: str, same: bool) -> None:
    assert matches(shown, wanted) is same
