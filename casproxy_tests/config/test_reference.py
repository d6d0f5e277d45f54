"""The model describes itself: every setting has a meaning, and the checked-in reference is what the model says."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import casproxy
from casproxy.config.files import parse
from casproxy.config.load import interpret
from casproxy.config.reference import main, schema, table
from casproxy.config.settings import walk
from casproxy_tests.config.test_load import DOCUMENTED

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_every_setting_has_a_meaning_a_version_and_a_kind() -> None:
    for path, setting in walk():
        assert setting.meaning.endswith("."), path
        assert setting.since, path
        assert (setting.kind is None) != (setting.section is None), path
        assert setting.name == setting.name.lower(), path


def test_every_number_has_a_unit() -> None:
    numbers = {"count", "count or auto", "duration", "ratio", "size"}
    found = [(path, setting) for path, setting in walk() if setting.kind is not None and setting.kind.name in numbers]
    assert {setting.kind.name for _, setting in found if setting.kind is not None} == numbers
    assert not [path for path, setting in found if not setting.unit]


def test_every_setting_that_is_not_planned_is_read_by_somebody() -> None:
    """A setting nobody reads would be a promise nobody keeps; ``since=PLANNED`` says so and warns."""
    package = Path(casproxy.__file__).parent
    modules = [
        path for path in package.rglob("*.py") if path.parent != package / "config" and "_proto" not in path.parts
    ]
    nodes = (node for path in modules for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    planned = tuple(f"{path}." for path, setting in walk() if setting.planned)
    for path, setting in walk():
        without_effect = path.startswith("server.http_metrics.cors") or setting.alias_of
        if setting.kind is not None and not f"{path}.".startswith(planned) and not without_effect:
            assert setting.name in read, path


def test_every_default_reads_back_as_itself() -> None:
    for path, setting in walk():
        if setting.kind is not None and not setting.required and setting.default is not None and not setting.kind.many:
            shown = str(setting.kind.show(setting.default))
            assert setting.kind.secret or not shown or setting.kind.parse(shown) == setting.default, path


def test_the_checked_in_reference_is_current() -> None:
    assert main(["--check", "--dir", str(REFERENCE)]) == 0


def test_a_stale_reference_is_found_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--dir", str(tmp_path)]) == 1
    assert "stale; run python -m casproxy.config.reference" in capsys.readouterr().err
    assert main(["--dir", str(tmp_path)]) == 0
    assert main(["--check", "--dir", str(tmp_path)]) == 0


def test_the_table_has_every_setting_once() -> None:
    rows = [line.split(" | ")[0].strip("| `") for line in table().splitlines() if line.startswith("| `")]
    values = [path for path, setting in walk() if setting.kind is not None]
    assert set(values) <= set(rows)
    assert len(rows) == len(set(rows))


def test_what_has_no_effect_yet_is_planned() -> None:
    (row,) = [line for line in table().splitlines() if line.startswith("| `server.http_metrics.timeout`")]
    assert row.split(" | ")[4] == "planned"


def test_the_schema_has_every_setting() -> None:
    described = schema()
    for path, setting in walk():
        here: Any = described
        for key in path.split("."):
            here = here["properties"][key]
        assert here["description"] == setting.meaning
        assert (setting.name in _parent(described, path).get("required", [])) == setting.required
    assert json.loads(json.dumps(described)) == described


def _parent(described: dict[str, Any], path: str) -> dict[str, Any]:
    for key in path.split(".")[:-1]:
        described = described["properties"][key]
    return described


def test_the_documented_file_has_only_described_keys() -> None:
    assert interpret(parse(DOCUMENTED, "f"), {}).unknown_keys == []
