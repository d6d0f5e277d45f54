"""Real secret files that a test can change, take away, forbid and slow down."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest

from casproxy import files
from casproxy.files import write_private
from casproxy.secrets import file as file_module
from casproxy.secrets.file import FileSource


class MapRig:
    """One JSON map."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "secrets.yaml"
        self._made: list[FileSource] = []
        self._entries: dict[str, object] = {}
        self._write()

    def source(self) -> FileSource:
        made = FileSource(self.path)
        self._made.append(made)
        return made

    def open(self) -> AbstractAsyncContextManager[FileSource]:
        return nullcontext(self.source())

    def id(self, text: str) -> str:
        return text

    async def idle(self) -> None:
        for source in self._made:
            borrowers = [object() for _ in range(int(source._limiter.total_tokens))]
            for borrower in borrowers:  # the last token is free when the last thread has ended
                await source._limiter.acquire_on_behalf_of(borrower)
            for borrower in borrowers:
                source._limiter.release_on_behalf_of(borrower)

    def put(self, secret_id: str, value: object) -> None:
        self._entries[secret_id] = value
        self._write()

    def put_text(self, secret_id: str, text: str) -> None:
        self.put(secret_id, text)

    def remove(self, secret_id: str) -> None:
        del self._entries[secret_id]
        self._write()

    def _write(self) -> None:
        write_private(self.path, json.dumps(self._entries).encode())

    def go_down(self) -> None:
        self.path.rename(self.path.with_suffix(".away"))

    def come_back(self) -> None:
        self.path.with_suffix(".away").rename(self.path)

    def deny(self, patch: pytest.MonkeyPatch) -> None:
        _deny_below(self.path.parent, patch)

    @contextmanager
    def hang(self, patch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
        """Reads begun in the block do not end before it does; the event tells that one has begun."""
        with hanging(patch) as begun:
            yield begun


class DirectoryRig(MapRig):
    """One JSON file per secret."""

    def __init__(self, directory: Path) -> None:
        self._made = []
        self.path = directory / "secrets"
        self.path.mkdir(mode=0o700)

    def put(self, secret_id: str, value: object) -> None:
        file = self._file(secret_id)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_private(file, json.dumps(value).encode())

    def put_text(self, secret_id: str, text: str) -> None:
        write_private(self._file(secret_id), text.encode("utf-8", "surrogateescape"))

    def remove(self, secret_id: str) -> None:
        self._file(secret_id).unlink()

    def _file(self, secret_id: str) -> Path:
        return self.path / f"{secret_id}.json"


def _deny_below(directory: Path, patch: pytest.MonkeyPatch) -> None:
    """What the kernel says to a process that is not root; tests often are."""
    real_open = os.open

    def refusing(path: str | Path, *args: int) -> int:
        if str(path).startswith(str(directory)):
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *args)

    patch.setattr("casproxy.files.os.open", refusing)


@contextmanager
def hanging(patch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    begun, release = threading.Event(), threading.Event()
    real = files.read_private

    def slow(path: Path, *, max_size: int) -> bytes:
        begun.set()
        assert release.wait(30)
        return real(path, max_size=max_size)

    with patch.context() as inner:
        inner.setattr(file_module, "read_private", slow)
        try:
            yield begun
        finally:
            release.set()
