"""Owns ``casproxy config check|show|schema``. Refuses to know a setting: ``casproxy/config`` does.

``check`` lists everything that is wrong, one line each on stderr; ``show`` and ``schema`` write to stdout.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from casproxy.config import Config


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``casproxy config`` with its three commands."""
    parser = commands.add_parser(
        "config", help="check, show or describe the configuration", description="Check, show or describe configuration."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = _action(actions, "check", "validate; one line per error and warning, then ok")
    show = _action(actions, "show", "print what is in effect as YAML, secrets hidden")
    _action(actions, "schema", "print a JSON Schema of the configuration file")
    for reading in (check, show):
        reading.add_argument(
            "--conf",
            "-conf",
            type=Path,
            metavar="PATH",
            help="YAML file, or directory whose YAML files are merged; without it: the defaults and CAS_ variables",
        )
    check.add_argument("--strict", action="store_true", help="make unknown keys errors")
    check.add_argument("--live", action="store_true", help="also try the secret source, and the stores of --secret")
    check.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="[BACKEND:]ID",
        help="with --live: try login, pull and push with this secret (repeatable; BACKEND is OCI if not given)",
    )
    parser.set_defaults(run=_run)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, does: str
) -> argparse.ArgumentParser:
    return actions.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.", allow_abbrev=False)


def _run(args: argparse.Namespace) -> int:
    if args.action == "check":
        return _check(args.conf, strict=args.strict, live=args.secret if args.live else None)
    return _show(args.conf) if args.action == "show" else _schema()


def _check(conf: Path | None, *, strict: bool, live: list[str] | None) -> int:
    """``live``: the secrets to try, None: nothing is tried."""
    import os

    from casproxy.config.load import InvalidConfig, load
    from casproxy.errors import ConfigError

    errors: list[str] = []
    warnings: list[str] = []
    try:
        loaded = load(conf, os.environ)
    except InvalidConfig as error:
        errors, warnings = error.problems, error.warnings
    except ConfigError as error:
        errors = [str(error)]
    else:
        errors = loaded.unknown_keys if strict else []
        warnings = [warning for warning in loaded.warnings if warning not in errors]
    _tell("error", errors)
    _tell("warning", warnings)
    if not errors and live is not None:
        return _check_live(loaded.config, live)
    if not errors:
        print("ok")
    return 1 if errors else 0


def _check_live(config: Config, secrets: list[str]) -> int:
    import trio

    from casproxy.cli.live_check import check_live, parse_tenant
    from casproxy.cli.text import printable

    findings = trio.run(check_live, config, [parse_tenant(text) for text in secrets])
    for finding in findings:
        print(printable(finding.text))
    return 0 if all(finding.good for finding in findings) else 1


def _show(conf: Path | None) -> int:
    import os

    from casproxy.config.load import load
    from casproxy.config.render import to_yaml

    loaded = load(conf, os.environ)
    _tell("warning", loaded.warnings)
    print(to_yaml(loaded.config), end="")
    return 0


def _schema() -> int:
    from casproxy.config.reference import schema_text

    print(schema_text(), end="")
    return 0


def _tell(severity: str, lines: list[str]) -> None:
    import sys

    from casproxy.cli.text import printable

    for line in lines:
        print(f"{severity}: {printable(line)}", file=sys.stderr)
