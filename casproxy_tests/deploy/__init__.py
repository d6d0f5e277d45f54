"""What operators take from ``contrib/``: manifests, the developer's environment, the service unit.

No cluster and no engine here: the files are read, and held to the image, to each other and to the configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from casproxy.config.load import LoadedConfig, load

ROOT = Path(__file__).resolve().parents[2]
CONTRIB = ROOT / "contrib"
PROGRAM = "/opt/casproxy/bin/casproxy"
UID = 1001


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def loaded(directory: Path, *files: Path) -> LoadedConfig:
    """What a server makes of these files in one directory; nothing may be said against them."""
    for file in files:
        (directory / file.name).write_bytes(file.read_bytes())
    found = load(directory, {})
    assert not found.warnings
    return found
