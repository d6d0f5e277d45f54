"""Owns ``docs/explanation/faults.md``: the rows of ``cases``, for people.

``python -m casproxy_tests.faults.page`` writes it, with ``--check`` it only compares.

The page says what the rows say, and ``test_matrix.py`` makes every row happen: so the page is true or a test fails.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from casproxy.wire.status import StatusCode
from casproxy_tests.faults.cases import Case, cases

PAGE = Path(__file__).parent.parent.parent / "docs" / "explanation" / "faults.md"
_HEAD = """\
# What a caller gets when a registry fails

Generated from `casproxy_tests/faults/cases.py`; every row is made to happen by `casproxy_tests/faults/test_matrix.py`
against a registry that fails on command, under a virtual clock. Change a row there, run
`python -m casproxy_tests.faults.page`, and the tests tell whether it is true.

What holds in every row, and is checked in every row:

- The caller hears the status below within the time below, never later and never nothing.
- OK after an upload means that the artifact is there; after a download, that every byte is right.
- Anything else means that nothing new is visible, no upload session is left open at the registry and no connection is
  in use: the upload can be sent again as it is, and succeeds once the registry is well.

UNAVAILABLE says that sending the same call again may help; the service has then tried again by itself wherever it still
had what it needed. In the middle of a layer that streams through, it does not: nobody has the beginning any more.
"""

_COLUMNS = """
| the registry | the caller gets | within |
| --- | --- | --- |
"""

_TAIL = """
## A real registry, killed and started again

Made to happen by `casproxy_tests/registries/test_restart.py` with docker-registry.

| when it is killed | the caller gets |
| --- | --- |
| in the middle of an upload | `UNAVAILABLE`; after its restart nothing is visible, and the upload can be sent again |
| in the middle of a download, and it comes back | success: it goes on from the byte reached, verified as a whole |
| never, but its tokens live for 5 s and the upload takes longer | success: tokens are renewed on the way |
"""


def render(rows: Iterable[Case]) -> str:
    """The page."""
    parts = [_HEAD]
    for (operation, step), group in groupby(rows, key=lambda case: (case.operation, case.step)):
        parts.append(f"\n## {operation.capitalize()}: {step}\n{_COLUMNS}")
        for case in group:
            result = "success" if case.code is StatusCode.OK else f"`{case.code.name}`"
            parts.append(f"| {case.fault} | {result}{'; ' + case.note if case.note else ''} | {case.within:g} s |\n")
    return "".join([*parts, _TAIL])


def main(arguments: list[str]) -> int:
    """Write the page, or (``--check``) fail when it is not what the rows say."""
    text = render(cases())
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.stderr.write(f"{PAGE.name} is out of date: run python -m casproxy_tests.faults.page\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
