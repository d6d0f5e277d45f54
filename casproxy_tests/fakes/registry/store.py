"""What the fake registry keeps: repositories with blobs, manifests, tags and upload sessions. Refuses to know HTTP."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field


def sha256(data: bytes | bytearray) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(slots=True)
class Session:
    """An upload in progress. ``state`` changes with each step: only the newest Location is good."""

    repository: str
    data: bytearray = field(default_factory=bytearray)
    state: int = 0
    first_range: str = ""

    @property
    def signature(self) -> str:
        """What its newest Location is known by."""
        return f"{self.state}.{len(self.data)}"


@dataclass(frozen=True, slots=True)
class Manifest:
    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        return sha256(self.data)

    def references(self) -> list[str]:
        """Digests of the config and the layers."""
        parsed = json.loads(self.data)
        return [part["digest"] for part in (parsed["config"], *parsed["layers"])]


@dataclass(slots=True)
class Repository:
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    """By tag and by digest."""


@dataclass(slots=True)
class Store:
    repositories: dict[str, Repository] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    _names: itertools.count[int] = field(default_factory=itertools.count)

    def begin(self, repository: str) -> str:
        """A new upload session; returns its id."""
        name = f"{next(self._names):08d}-0000-4000-8000-000000000000"
        self.sessions[name] = Session(repository)
        return name

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def blob(self, repository: str, digest: str) -> bytes | None:
        return self.repositories[repository].blobs.get(digest) if repository in self.repositories else None

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        return self.repositories[repository].manifests.get(reference) if repository in self.repositories else None

    def visible(self) -> Mapping[str, str]:
        """Name -> fingerprint of all that a tag leads to, and of sessions in progress.

        A blob that no manifest names is nothing anybody can find; a registry's own garbage collection takes it.
        """
        found = {f"{session.repository}/uploads/{name}": "session" for name, session in self.sessions.items()}
        for name, repository in self.repositories.items():
            for reference, manifest in repository.manifests.items():
                found[f"{name}/manifests/{reference}"] = manifest.digest
                for digest in manifest.references():
                    found[f"{name}/blobs/{digest}"] = sha256(repository.blobs[digest])
        return found
