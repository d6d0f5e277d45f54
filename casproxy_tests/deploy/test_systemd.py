"""The service unit: systemd's own tools have nothing against it, and its commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from casproxy.cli.main import build_parser
from casproxy.config import Config
from casproxy_tests.deploy import CONTRIB, PROGRAM
from casproxy_tests.real import require_real

UNIT = CONTRIB / "systemd/casproxy.service"
_EXPOSURE = re.compile(r"Overall exposure level for \S+: ([0-9.]+) ")


def analyze(*arguments: str | Path) -> str:
    program = require_real("systemd-analyze", "checking the service unit")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_takes_it(tmp_path: Path) -> None:
    installed = tmp_path / UNIT.name
    installed.write_text(UNIT.read_text().replace(PROGRAM, "/bin/true"))  # verify wants to see the program
    assert not analyze("verify", "--man=no", installed)


def test_it_is_as_closed_as_it_can_be() -> None:
    found = _EXPOSURE.search(analyze("security", "--offline=true", "--no-pager", UNIT))
    assert found is not None and float(found[1]) <= 1.5, found


def test_commands_of_ours_exist() -> None:
    text = UNIT.read_text()
    commands = re.findall(rf"{PROGRAM} ([^;\n]+)", text)
    assert [shlex.split(command)[0] for command in commands] == ["config", "serve", "probe"]
    for command in commands:
        build_parser().parse_args(shlex.split(command))


def test_it_is_given_time_to_drain() -> None:
    found = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None and int(found[1]) > Config().server.drain_grace + 3
