"""The README's two commands are a promise to a newcomer: they stay, and CI runs what stands there."""

from __future__ import annotations

import subprocess
import sys

from casproxy_tests.architecture import ROOT

_RUN = "python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/casproxy dev"
_TEST = "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest"


def _command(name: str) -> str:
    script = ROOT / "contrib" / "readme_command.py"
    return subprocess.run([sys.executable, script, name], check=True, capture_output=True, text=True).stdout.rstrip(
        "\n"
    )


def test_the_readme_has_exactly_the_two_commands() -> None:
    assert (_command("run"), _command("test")) == (_RUN, _TEST)


def test_ci_executes_what_the_readme_says() -> None:
    """CI reads the command from the README instead of repeating it, so there is no second copy to drift."""
    script = (ROOT / ".ci" / "run").read_text()
    assert "test_command=$(python3 contrib/readme_command.py test)" in script
    assert 'bash -euo pipefail -c "$test_command"' in script
    assert "venv/bin/pytest" not in script
