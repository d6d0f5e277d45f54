"""Owns ``casproxy secrets read|check``: what an operator needs to see of the secret source, with values hidden.

The source is asked directly: no server takes part, and no cache. Refuses to know a source: ``casproxy/secrets`` does.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from casproxy.cli.parser import add_output_flag

if TYPE_CHECKING:
    from casproxy.config import Config
    from casproxy.secrets.api import SecretSource


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``casproxy secrets`` with its two commands."""
    parser = commands.add_parser(
        "secrets",
        help="try the secret source as configured",
        description="Try the secret source as configured; values are never shown.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="do the start-up check; say in a line whether the source works",
        description="Do the check that the server does at start, then read the secrets that are named. One line each; "
        "exit code 1 when one of them does not work.",
    )
    check.add_argument("secret_ids", nargs="*", metavar="SECRET_ID", help="a secret to read as well")
    read = actions.add_parser(
        "read",
        help="read one secret; print the names of its fields",
        description="Read one secret, and print the names of its fields with their values hidden.",
    )
    read.add_argument("secret_id", metavar="SECRET_ID", help="the secret's id, as in a token's secret-id")
    for action in (check, read):
        action.add_argument(
            "--conf", "-conf", type=Path, required=True, metavar="PATH", help="the server's configuration"
        )
        add_output_flag(action)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import os

    from casproxy.cli.session import run
    from casproxy.config.load import load
    from casproxy.observe import log

    log.configure("warning", "console")
    config = load(args.conf, os.environ).config
    if args.action == "check":
        results = run(lambda: _check(config, args.secret_ids))
        _print_results(results, args.output)
        return 1 if any(results.values()) else 0
    _print_fields(args.secret_id, run(lambda: _read(config, args.secret_id)), args.output)
    return 0


async def _check(config: Config, secret_ids: Sequence[str]) -> dict[str, str]:
    """What is wrong, by what was tried; an empty text for what works."""
    from casproxy.errors import ConfigError
    from casproxy.secrets.resolve import open_source, source_name
    from casproxy.trust import open_trust

    results, service = {}, config.credentials_service
    try:
        with open_trust(config.outbound.ca_file) as trust:
            async with open_source(service, trust) as source:
                await source.check()
                results[source_name(service)] = ""
                for secret_id in secret_ids:
                    results[secret_id] = await _fault(source, secret_id, service.timeout)
    except ConfigError as error:
        results[source_name(service)] = str(error)
    return results


async def _fault(source: SecretSource, secret_id: str, timeout: float) -> str:
    from casproxy.errors import SecretError

    try:
        await _look_up(source, secret_id, timeout)
    except SecretError as error:
        return str(error)
    return ""


async def _read(config: Config, secret_id: str) -> Mapping[str, str]:
    from casproxy.secrets.resolve import open_source
    from casproxy.trust import open_trust

    with open_trust(config.outbound.ca_file) as trust:
        async with open_source(config.credentials_service, trust) as source:
            return await _look_up(source, secret_id, config.credentials_service.timeout)


async def _look_up(source: SecretSource, secret_id: str, timeout: float) -> Mapping[str, str]:
    """The kinds of a secret's fields. The store's own words, which callers of a server never get, are in the error."""
    import trio

    from casproxy.errors import SecretError, SecretUnavailable
    from casproxy.secrets.api import check_secret_id

    check_secret_id(secret_id)
    with trio.move_on_after(timeout):
        try:
            return (await source.read(secret_id)).kinds()
        except SecretError as error:
            said = f": {error.__cause__}" if error.__cause__ is not None else ""
            raise type(error)(f"{error}{said}") from error
    raise SecretUnavailable(f"no answer within credentials_service.timeout, {timeout:g} s")


def _print_results(results: Mapping[str, str], output: str) -> None:
    from casproxy.cli.text import print_fields, print_json

    if output == "json":
        print_json({name: {"ok": not trouble, "error": trouble} for name, trouble in results.items()})
    else:
        print_fields({name: trouble or "ok" for name, trouble in results.items()})


def _print_fields(secret_id: str, kinds: Mapping[str, str], output: str) -> None:
    from casproxy.cli.text import print_fields, print_json, printable

    if output == "json":
        print_json({"secret_id": secret_id, "fields": kinds})
    elif kinds:
        print_fields({printable(name): f"****** ({kind})" for name, kind in kinds.items()})
    else:
        print("the secret has no fields")
