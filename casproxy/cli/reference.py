"""Owns the reference of commands, docs/reference/commands.md, made from the parsers. Refuses to hold a fact about them.

``python -m casproxy.cli.reference`` writes the page; ``--check`` only compares and exits 1 when it is stale. argparse's
own help text is not used: its layout differs between Python versions and terminals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from casproxy.cli.main import build_parser
from casproxy.cli.parser import subparsers

_HEAD = """\
# Commands

<!-- Made by `python -m casproxy.cli.reference` from the parsers in casproxy/cli/: change those, then run it again. -->

`casproxy COMMAND --help` shows the same for one command. Results go to stdout, errors to stderr: one line that says
what to do. With `CASPROXY_DEBUG=1` the traceback comes as well.

| exit code | meaning |
| --- | --- |
| 0 | ok |
| 1 | failed |
| 2 | usage: the command line is wrong |
| 3 | nothing is stored under this digest, or the token's backend is unknown |
| 4 | unauthenticated: no token, or one that does not entitle to this |
| 5 | integrity: the bytes are not those their digest names |
| 130, 143 | ended by Ctrl-C, by SIGTERM |
| 141 | the reader of our output left |

Where a client command finds its server: `--addr`, else `./.casproxy/dev.json`, which `casproxy dev` writes and which is
believed only when it is yours, mode 0600 and its address a loopback one. Where it finds its token: `--token` or
`--token-file`, else the variable `CASPROXY_TOKEN`, else dev.json, whose tokens go to the address of dev.json only.

With `--output json` a command prints one JSON object on one line; `upload` prints one line for each file. Sizes are in
bytes. Errors stay what they are: a line on stderr and the exit code.

Progress bars and colours are for people: there are none when the stream is not a terminal, when `CI` is set, when
`NO_COLOR` is set, and when `TERM` is `dumb`.
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_section(parser) for parser in _leaves(build_parser()))


def _leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    below = subparsers(parser)
    if not below:
        yield parser
    for child in below.values():
        yield from _leaves(child)


def _section(parser: argparse.ArgumentParser) -> str:
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    rows = "".join(f"| {_form(action)} | {_meaning(parser, action)} |\n" for action in actions)
    table = f"\n| argument | meaning |\n| --- | --- |\n{rows}" if rows else ""
    return f"\n## {parser.prog}\n\n{parser.description or ''}\n{table}"


def _form(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.choices is not None:
        value = "\\|".join(map(str, action.choices))
    if not action.option_strings:
        return f"`{value}`" + {"*": " …", "+": " …", "?": ""}.get(str(action.nargs), "")
    takes_value = action.nargs != 0
    return ", ".join(f"`{option} {value}`" if takes_value else f"`{option}`" for option in action.option_strings)


def _meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = (action.help or "") % {"default": action.default, "prog": parser.prog, "choices": action.choices}
    return (text + (" (required)" if action.required and action.option_strings else "")).replace("|", "\\|")


def main(argv: list[str] | None = None) -> int:
    """Write the page, or compare it with ``--check``; returns the exit code."""
    arguments = argparse.ArgumentParser(prog="python -m casproxy.cli.reference", description=__doc__)
    arguments.add_argument("--check", action="store_true", help="compare only")
    arguments.add_argument("--to", type=Path, default=Path("docs/reference/commands.md"), metavar="FILE")
    args = arguments.parse_args(argv)
    if not args.check:
        args.to.write_text(page(), "utf-8")
        return 0
    if args.to.is_file() and args.to.read_text("utf-8") == page():
        return 0
    print(f"{args.to} is stale: run python -m casproxy.cli.reference", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
