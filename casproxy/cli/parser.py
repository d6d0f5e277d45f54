"""Owns how a wrong command line is answered: one line that says what to do. Refuses to know the commands.

argparse prints its usage text before an error and exits on its own; here an error is an exception like any other, and
is shown by ``cli/errors.py``.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


class UsageError(Exception):
    """The command line is wrong. The text names what is wrong and what to do; exit code 2."""


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line and an exception; its sub-parsers are of this class, too.

    Options are not abbreviated: a script that says ``--out`` would break when an ``--output`` comes.
    """

    def __init__(self, **settings: Any) -> None:
        ours: dict[str, Any] = {"allow_abbrev": False, "formatter_class": _Columns}
        super().__init__(**ours | settings)

    def error(self, message: str) -> NoReturn:
        """What argparse calls for every wrong command line; raises ``UsageError``."""
        raise UsageError(f"{message}; see '{self.prog} --help'")

    def _print_message(self, message: str, file: Any = None) -> None:
        """What argparse prints help and version with; its own swallows the ``BrokenPipeError`` of a reader who left."""
        (file or sys.stderr).write(message)


class _Columns(argparse.HelpFormatter):
    """Makes room for the names of sub-commands: argparse forgets that they are indented."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        for indented in self._iter_indented_subactions(action):
            width = len(self._format_action_invocation(indented)) + self._current_indent
            self._action_max_length = max(self._action_max_length, width)


def add_output_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--output text|json``, the same for every command that prints facts."""
    parser.add_argument(
        "--output", choices=("text", "json"), default="text", help="how results are printed; default: text"
    )


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse all of ``arguments``; what no parser knows is a ``UsageError`` that names the nearest known option."""
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise UsageError(_unknown(_innermost(parser, arguments), unknown[0]))
    return parsed


def unknown_command(word: str, commands: Sequence[str]) -> str:
    """What to say about a first word that is none of ``commands``; empty: there was no word at all."""
    if not word:
        return f"give a command: {', '.join(commands)}; see 'casproxy --help'"
    near = difflib.get_close_matches(word, commands, n=1)
    hint = f"did you mean {near[0]}? See" if near else "see"
    return f"unknown command {word!r}; {hint} 'casproxy --help'"


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The sub-commands of a parser by name, in order; empty when it has none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _innermost(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.ArgumentParser:
    for argument in arguments:
        parser = subparsers(parser).get(argument, parser)
    return parser


def _unknown(parser: argparse.ArgumentParser, argument: str) -> str:
    if not argument.startswith("-"):
        return f"unexpected argument {argument!r}; see '{parser.prog} --help'"
    option = argument.partition("=")[0]
    known = [string for action in parser._actions for string in action.option_strings]
    near = difflib.get_close_matches(option, known, n=1)
    hint = f"did you mean {near[0]}? See" if near else "see"
    return f"unknown option {option}; {hint} '{parser.prog} --help'"
