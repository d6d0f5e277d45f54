"""Golden vectors, made by Go's own encoders: what other implementations write and read, byte for byte."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def load(name: str) -> Any:
    """The parsed JSON of ``{name}.json`` in this directory."""
    return json.loads(resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8"))
