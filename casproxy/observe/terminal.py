"""Owns whether a person watches a stream: colours and bars are for them alone. Refuses to know what is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO


def is_watched(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """True for a terminal that shows more than plain text.

    Not with ``NO_COLOR`` (no-color.org: any value counts), nor in a CI job (``CI``, set by all of them), some of which
    give their jobs a terminal and keep what it shows as a log, nor where ``TERM`` is ``dumb``.
    """
    if environ.get("NO_COLOR") or environ.get("CI", "").lower() not in ("", "0", "false"):
        return False
    return environ.get("TERM") != "dumb" and stream.isatty()
