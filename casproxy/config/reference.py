"""Owns the reference of configuration: one table of every setting, and the JSON Schema. Both are made from the model.

``python -m casproxy.config.reference`` writes them under docs/reference; ``--check`` only compares and exits 1 when
they are stale. Refuses to hold a fact about a setting: those are in ``model.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from casproxy.config.model import SOURCES, Config, CredentialsService
from casproxy.config.render import shown
from casproxy.config.section import PLANNED, Section
from casproxy.config.settings import Setting, settings_of, walk

_TABLE = "configuration.md"
_SCHEMA = "config.schema.json"

_HEAD = """\
# Configuration

<!-- Made by `python -m casproxy.config.reference` from casproxy/config/model.py: change that, then run it again. -->

`casproxy serve --conf PATH` reads a YAML file, or every `.yaml`, `.yml` and `.json` file of a directory in name order:
maps merge, lists and single values replace. Hidden entries and sub-directories are skipped.

- **Keys** are written in snake_case or lowerCamelCase. An unknown key is a warning that names the nearest known one,
  and an error with `casproxy config check --strict`.
- **Placeholders**: `${a.b}` or `${a.b:default}`, anywhere in a value, become the key `a.b`, else the variable
  `CAS_a.b`, else the default, else nothing. `${VAULT_TOKEN}` reads `CAS_VAULT_TOKEN`, never `VAULT_TOKEN`.
- **Variables** with a dotted name override a key: `CAS_server.grpc.addr=0.0.0.0:9001`. Their text is taken as it is; a
  list is separated by commas.
- **Durations** are written `500ms`, `30s`, `1m30s`, `2h`; **sizes** `65536`, `256KiB`, `100MiB` (powers of 1024) or
  `100MB` (powers of 1000).
- An empty value counts as not set.

`casproxy config check` finds mistakes, `casproxy config show` prints what is in effect with secrets hidden, and
`casproxy config schema` prints the JSON Schema ([config.schema.json](config.schema.json)) that editors understand.
A setting whose *since* is *planned* is accepted, warned about, and without effect in this version.

"""


def table() -> str:
    """The page: introduction and one table of all settings."""
    rows = [("key", "type", "default", "unit", "since", "meaning"), ("---",) * 6, *_rows()]
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows() -> Iterator[tuple[str, ...]]:
    planned: tuple[str, ...] = ()
    for path, setting in walk():
        if setting.planned:
            planned += (f"{path}.",)
        if setting.kind is not None or setting.default is None:
            kind = setting.kind.name if setting.kind is not None else "map"
            since = PLANNED if path.startswith(planned) else setting.since
            yield f"`{path}`", kind, _default(path, setting), setting.unit, since, setting.meaning


def _default(path: str, setting: Setting) -> str:
    if setting.required:
        return f"required in `{path.rpartition('.')[0]}`"
    if setting.default is None:
        return setting.when_unset or "none"
    value = shown(setting, setting.default)
    text = ", ".join(value) if isinstance(value, list) else json.dumps(value).strip('"')
    return f"`{text}`" if text else "empty"


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration file in snake_case."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "casproxy configuration",
        **_section_schema(Config),
    }


def _section_schema(section: type[Section]) -> dict[str, Any]:
    settings = settings_of(section)
    described: dict[str, Any] = {
        "type": ["object", "null"],
        "properties": {setting.name: _setting_schema(setting) for setting in settings},
        "additionalProperties": False,
    }
    required = [setting.name for setting in settings if setting.required]
    if required:
        described["required"] = required
    if section is CredentialsService:
        named: list[dict[str, Any]] = [{"required": [source]} for source in SOURCES]
        described["oneOf"] = [*named, {"not": {"anyOf": named}}]
    return described


def _setting_schema(setting: Setting) -> dict[str, Any]:
    about: dict[str, Any] = {"description": setting.meaning}
    if setting.alias_of:
        about["deprecated"] = True
    if setting.section is not None:
        return about | _section_schema(setting.section)
    assert setting.kind is not None  # noqa: S101 - a setting is a section or has a kind
    if not setting.required and setting.default is not None:
        about["default"] = shown(setting, setting.default)
    item = dict(setting.kind.schema)
    if setting.kind.many:
        return about | {"anyOf": [{"type": "array", "items": item}, _PLACEHOLDER, _NOTHING]}
    return about | {"anyOf": [item, _PLACEHOLDER, _NOTHING]}


_PLACEHOLDER = {"type": "string", "pattern": r"\$\{.*\}"}
_NOTHING = {"type": "null"}


def schema_text() -> str:
    """The JSON Schema as it is printed and checked in."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write both files, or compare them; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m casproxy.config.reference", description="Configuration reference.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    parser.add_argument("--dir", type=Path, default=Path("docs/reference"), help="where the files are")
    args = parser.parse_args(argv)
    wanted = {args.dir / _TABLE: table(), args.dir / _SCHEMA: schema_text()}
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
    if args.check:
        for path in stale:
            print(f"{path}: stale; run python -m casproxy.config.reference", file=sys.stderr)
        return 1 if stale else 0
    args.dir.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(wanted[path], "utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
