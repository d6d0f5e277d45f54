"""A tenant's Path never leads out of the root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.errors import ArtifactNotFound, BackendRefused
from casproxy.storage.local.paths import check_writable, directory, parse_path
from casproxy.storage.local.root import open_local_root
from casproxy_tests.conformance.backends import layout_path, tree
from casproxy_tests.conformance.traffic import get, put


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ("a",)),
        ("a/b/", ("a", "b")),
        ("./a//b/.", ("a", "b")),
        (".", ()),
        ("日本/ñ", ("日本", "ñ")),
        ("a/.staging", ("a", ".staging")),
    ],
)
def test_accepted(text: str, names: tuple[str, ...]) -> None:
    assert parse_path(text) == names


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/etc",
        "//a",
        "..",
        "../a",
        "a/../b",
        "a/..",
        "a\0b",
        ".staging",
        ".staging/x",
        "./.STAGING",
        "x" * 256,
        "x/" * 600,
        "\ud800",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(BackendRefused):
        parse_path(text)


@given(st.text(st.sampled_from("./a\\~\0 é"), max_size=12))
def test_whatever_is_accepted_stays_below(text: str) -> None:
    try:
        names = parse_path(text)
    except BackendRefused:
        return
    below = os.path.normpath(os.path.join("/root", *names))
    assert below == "/root" or below.startswith("/root/")
    assert not set(names) & {"", ".", ".."}


def test_a_directory_is_made_once(root_fd: int, tmp_path: Path) -> None:
    for _ in range(2):
        with directory(root_fd, ["a", "b"], create=True) as fd:
            assert os.path.samestat(os.fstat(fd), (tmp_path / "a/b").stat())


def test_a_missing_directory_is_missing(root_fd: int, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), directory(root_fd, ["a", "b"]):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["/", "..", "real", "nowhere", "link"])
def test_no_link_is_followed(root_fd: int, tmp_path: Path, target: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(target)
    for create in (False, True):
        with pytest.raises(NotADirectoryError), directory(root_fd, ["link", "x"], create=create):
            pass
    with pytest.raises(NotADirectoryError):
        check_writable(root_fd, ["link", "x"])


async def test_a_link_in_the_path_is_refused_by_every_operation(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    async with open_local_root(tmp_path / "root") as root:
        digest = (await put(root.backend("real"), b"x")).digest
        (tmp_path / "root/link").symlink_to(tmp_path / "root/real")
        outside.mkdir()
        (tmp_path / "root/out").symlink_to(outside)
        for name in ("link", "out/x"):
            backend = root.backend(name)
            with pytest.raises(BackendRefused):
                await backend.describe(digest)
            with pytest.raises(BackendRefused):
                await get(backend, digest)
            with pytest.raises(BackendRefused):
                await put(backend, b"x")
            with pytest.raises(BackendRefused):
                await backend.check_writable()
        assert tree(outside) == {}


@pytest.mark.parametrize("what", ["artifact", "blobs", "blob", "index.json"])
async def test_a_link_inside_an_artifact_makes_it_not_ours(tmp_path: Path, what: str) -> None:
    async with open_local_root(tmp_path / "root") as root:
        backend = root.backend("tenant")
        digest = (await put(backend, b"secret of another")).digest
        place = layout_path(tmp_path / "root/tenant", digest)
        victim = {"artifact": place, "blobs": place / "blobs", "blob": place / "blobs/sha256" / digest.hex}
        path = victim.get(what, place / what)
        path.rename(tmp_path / "moved")
        path.symlink_to(tmp_path / "moved")
        with pytest.raises(ArtifactNotFound):
            await backend.describe(digest)
        moved = tree(tmp_path / "moved") if (tmp_path / "moved").is_dir() else (tmp_path / "moved").read_bytes()
        await put(backend, b"secret of another")
        assert await get(backend, digest) == b"secret of another"
        assert not path.is_symlink()
        assert moved == (tree(tmp_path / "moved") if isinstance(moved, dict) else (tmp_path / "moved").read_bytes())


def test_rights_are_looked_at_where_the_path_ends(
    root_fd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    check_writable(root_fd, ["a", "not", "yet"])
    monkeypatch.setattr(os, "access", lambda *args, **options: False)  # root may write everywhere
    with pytest.raises(PermissionError):
        check_writable(root_fd, ["a", "not", "yet"])
