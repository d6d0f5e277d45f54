"""The page of commands is what the parsers say."""

from __future__ import annotations

from pathlib import Path

import pytest

from casproxy.cli.main import COMMANDS
from casproxy.cli.reference import main, page

PAGE = Path(__file__).parents[2] / "docs/reference/commands.md"


def test_the_page_is_up_to_date() -> None:
    assert main(["--check", "--to", str(PAGE)]) == 0


def test_a_stale_or_missing_page_is_told_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "commands.md"
    assert main(["--check", "--to", str(path)]) == 1
    assert main(["--to", str(path)]) == 0
    assert main(["--check", "--to", str(path)]) == 0
    path.write_text(page() + "x")
    assert main(["--check", "--to", str(path)]) == 1
    assert "run python -m casproxy.cli.reference" in capsys.readouterr().err


def test_every_command_has_its_section() -> None:
    text = page()
    assert all(f"\n## casproxy {command}" in text for command in COMMANDS)
    assert "\n## casproxy config check\n" in text
