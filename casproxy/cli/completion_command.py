"""Owns ``casproxy completion``: a script that makes a shell complete our commands. Refuses to know shells: shtab does.

The script is made from the parsers and holds everything: pressing Tab starts no Python.
"""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish")
_FILES = frozenset({"FILE", "PATH", "KEY", "PUB.pem"})
"""Metavars of arguments that are files or directories."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands in a shell",
        description="Print a script that makes a shell complete commands, options, their values and files. For this "
        'bash: eval "$(casproxy completion bash)". For every bash to come: casproxy completion bash > '
        "~/.local/share/bash-completion/completions/casproxy. For zsh: as _casproxy into a directory of $fpath. For "
        "fish: as ~/.config/fish/completions/casproxy.fish.",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to run it")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import shtab

    from casproxy.cli.main import build_parser

    parser = build_parser()
    _prepare(parser)
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _prepare(parser: argparse.ArgumentParser) -> None:
    """Tell shtab which arguments are files or directories (it reads an attribute), and to show the short help."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                child: argparse.ArgumentParser = action.choices[choice.dest]
                child.description = choice.help
                _prepare(child)
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
