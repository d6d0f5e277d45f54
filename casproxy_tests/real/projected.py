"""Owns a directory as Kubernetes projects one: names lead through ``..data``, and one rename changes all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


class Projected:
    """Files at ``path``, replaced together."""

    def __init__(self, path: Path, files: Mapping[str, bytes]) -> None:
        self.path = path
        self._version = 0
        path.mkdir()
        self.replace(files)

    def replace(self, files: Mapping[str, bytes]) -> None:
        """As kubelet does it: a new directory, ``..data`` renamed over the old link, the old directory removed."""
        self._version += 1
        before = self.path / f"..2026_{self._version - 1}"
        new = self.path / f"..2026_{self._version}"
        new.mkdir()
        for name, data in files.items():
            (new / name).write_bytes(data)
        (self.path / "..data_tmp").symlink_to(new.name)
        os.rename(self.path / "..data_tmp", self.path / "..data")
        for name in files:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        shutil.rmtree(before, ignore_errors=True)

    def __truediv__(self, name: str) -> Path:
        return self.path / name
