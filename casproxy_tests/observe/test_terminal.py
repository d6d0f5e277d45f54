"""Who is shown colours and bars."""

from __future__ import annotations

import io

import pytest

from casproxy.observe.terminal import is_watched


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "watched"),
    [
        ({}, True),
        ({"TERM": "xterm", "NO_COLOR": "", "CI": "false"}, True),
        ({"NO_COLOR": "1"}, False),
        ({"CI": "true"}, False),
        ({"CI": "1"}, False),
        ({"CI": "woodpecker"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_only_a_person_at_a_terminal_watches(environ: dict[str, str], watched: bool) -> None:
    assert is_watched(Terminal(), environ) is watched
    assert not is_watched(io.StringIO(), environ)
