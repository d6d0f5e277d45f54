"""A volume of Kubernetes, as the kubelet keeps it."""

from __future__ import annotations

from pathlib import Path


class Mount:
    """A volume as the kubelet keeps it: names -> ``..data/name``, ``..data`` -> a directory per version."""

    def __init__(self, root: Path, **content: bytes) -> None:
        self.root = root
        self._version = 0
        self.swap(**content)

    def swap(self, **content: bytes) -> None:
        old = [path for path in self.root.iterdir() if path.name.startswith("..20")]
        self._version += 1
        version = self.root / f"..2024_{self._version}"
        version.mkdir()
        for name, data in content.items():
            (version / f"{name}.pem").write_bytes(data)
        (self.root / "..data_tmp").symlink_to(version.name)
        (self.root / "..data_tmp").rename(self.root / "..data")
        for path in self.root.glob("*.pem"):
            path.unlink()
        for name in content:
            (self.root / f"{name}.pem").symlink_to(f"..data/{name}.pem")
        for directory in old:
            for path in directory.iterdir():
                path.unlink()
            directory.rmdir()
