"""Owns ``casproxy config check|show|schema``. Refuses to know a setting: ``casproxy/config`` does.

``check`` lists everything that is wrong, one line each on stderr, or all of it in one JSON object on stdout; ``show``
and ``schema`` write to stdout.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from casproxy.cli.parser import add_output_flag

if TYPE_CHECKING:
    from casproxy.cli.live_check import Finding
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
        add_output_flag(reading)
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
        return _check(args.conf, args.output, strict=args.strict, live=args.secret if args.live else None)
    return _show(args.conf, args.output) if args.action == "show" else _schema()


def _check(conf: Path | None, output: str, *, strict: bool, live: list[str] | None) -> int:
    """``live``: the secrets to try, None: nothing is tried."""
    import os

    from casproxy.cli.text import printable
    from casproxy.config.load import InvalidConfig, load
    from casproxy.errors import ConfigError

    errors: list[str] = []
    warnings: list[str] = []
    findings: list[Finding] = []
    try:
        loaded = load(conf, os.environ)
    except InvalidConfig as error:
        errors, warnings = error.problems, error.warnings
    except ConfigError as error:
        errors = [str(error)]
    else:
        errors = loaded.unknown_keys if strict else []
        warnings = [warning for warning in loaded.warnings if warning not in errors]
    if output == "text":
        _tell("error", errors)
        _tell("warning", warnings)
    if not errors and live is not None:
        findings = _check_live(loaded.config, live)
    good = not errors and all(finding.good for finding in findings)
    if output == "json":
        _print_verdict(good, errors, warnings, findings)
    elif findings or not errors:
        print("\n".join(printable(finding.text) for finding in findings) or "ok")
    return 0 if good else 1


def _check_live(config: Config, secrets: list[str]) -> list[Finding]:
    import trio

    from casproxy.cli.live_check import check_live, parse_tenant

    return trio.run(check_live, config, [parse_tenant(text) for text in secrets])


def _print_verdict(good: bool, errors: list[str], warnings: list[str], findings: list[Finding]) -> None:
    from casproxy.cli.text import print_json

    live = [{"ok": finding.good, "text": finding.text} for finding in findings]
    print_json({"ok": good, "errors": errors, "warnings": warnings, "live": live})


def _show(conf: Path | None, output: str) -> int:
    import os

    from casproxy.cli.text import print_json
    from casproxy.config.load import load
    from casproxy.config.render import to_plain, to_yaml

    loaded = load(conf, os.environ)
    _tell("warning", loaded.warnings)
    if output == "json":
        print_json(to_plain(loaded.config))
    else:
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
