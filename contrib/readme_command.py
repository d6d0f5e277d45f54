"""Print one of the two commands at the top of README.md, word for word: ``readme_command.py run|test``.

Owns the only way from the README to what continuous integration executes, so that the two cannot drift apart.
Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
_FENCED = re.compile(r"^```sh\n(python3 -m venv [^\n]*)\n```$", re.MULTILINE)
_NAMES = ("run", "test")


def commands(text: str) -> dict[str, str]:
    """The commands by name. ``ValueError`` unless the README has exactly the two, each in a block of its own."""
    found: list[str] = _FENCED.findall(text)
    return dict(zip(_NAMES, found, strict=True))


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in _NAMES:
        sys.exit(f"usage: readme_command.py {'|'.join(_NAMES)}")
    print(commands(README.read_text(encoding="utf-8"))[sys.argv[1]])
