"""What is damaged or not ours is as good as absent, and a new upload puts a good copy in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from casproxy.errors import ArtifactNotFound
from casproxy.storage.local.root import LocalRoot
from casproxy.storage.stored_form import parse_index
from casproxy_tests.conformance.backends import layout_path, tree
from casproxy_tests.conformance.traffic import content, get, put

DATA = content(1000)


def _empty_directory(layout: Path) -> None:
    shutil.rmtree(layout)
    layout.mkdir()


def _file(layout: Path) -> None:
    shutil.rmtree(layout)
    layout.write_bytes(b"in the way")


def _no_index(layout: Path) -> None:
    (layout / "index.json").unlink()


def _index_is_a_directory(layout: Path) -> None:
    (layout / "index.json").unlink()
    (layout / "index.json").mkdir()


def _index_is_a_fifo(layout: Path) -> None:
    (layout / "index.json").unlink()
    os.mkfifo(layout / "index.json")


def _index_is_huge(layout: Path) -> None:
    os.truncate(layout / "index.json", 5 * 1024 * 1024)


def _no_blobs(layout: Path) -> None:
    shutil.rmtree(layout / "blobs")


def _blob(layout: Path) -> Path:
    return layout / "blobs/sha256" / layout.name


def _blob_too_short(layout: Path) -> None:
    os.truncate(_blob(layout), 999)


def _blob_too_long(layout: Path) -> None:
    os.truncate(_blob(layout), 1001)


def _blob_missing(layout: Path) -> None:
    _blob(layout).unlink()


def _blob_is_a_fifo(layout: Path) -> None:
    _blob(layout).unlink()
    os.mkfifo(_blob(layout))


def _manifest(layout: Path) -> Path:
    manifest, _ = parse_index((layout / "index.json").read_bytes())
    return layout / "blobs/sha256" / manifest.hex


def _manifest_changed(layout: Path) -> None:
    manifest = _manifest(layout)
    manifest.write_bytes(manifest.read_bytes().replace(b"a.bin", b"b.bin"))


def _manifest_missing(layout: Path) -> None:
    _manifest(layout).unlink()


DAMAGES = [
    _empty_directory,
    _file,
    _no_index,
    _index_is_a_directory,
    _index_is_a_fifo,
    _index_is_huge,
    _no_blobs,
    _blob_too_short,
    _blob_too_long,
    _blob_missing,
    _blob_is_a_fifo,
    _manifest_changed,
    _manifest_missing,
]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_absence_until_the_next_upload(
    root: LocalRoot, place: Path, damage: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    backend = root.backend("tenant")
    stored = await put(backend, DATA)
    good = tree(place)
    damage(layout_path(place / "tenant", stored.digest))
    with pytest.raises(ArtifactNotFound):
        await backend.describe(stored.digest)
    with pytest.raises(ArtifactNotFound):
        await get(backend, stored.digest)
    assert "stored_artifact_not_ours" in capfd.readouterr().out
    assert await put(backend, DATA) == stored
    assert await get(backend, stored.digest) == DATA
    assert tree(place) == good


async def test_many_writers_mend_it_at_once(root: LocalRoot, place: Path) -> None:
    backend = root.backend("tenant")
    stored = await put(backend, DATA)
    good = tree(place)
    for damage in (_blob_too_short, _file, _empty_directory):
        damage(layout_path(place / "tenant", stored.digest))
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(put, backend, DATA)
        assert tree(place) == good
