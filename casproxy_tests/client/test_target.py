"""Where a download ends up: whole or not at all, and never outside its directory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.client.errors import TargetExists, TargetUnusable
from casproxy.client.target import Target, open_target, safe_file_name
from casproxy.digest import EMPTY_DIGEST
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.client.settle import abandoned_threads_end


@pytest.mark.parametrize(
    ("stored", "safe"),
    [
        ("report.pdf", "report.pdf"),
        ("a/b/c.txt", "c.txt"),
        ("../../.profile", ".profile"),
        ("/etc/passwd", "passwd"),
        ("C:\\Windows\\evil.dll", "evil.dll"),
        ("señal-日本語-🚀.tar.gz", "señal-日本語-🚀.tar.gz"),
        ('a "b";c.bin', 'a "b";c.bin'),
        *((name, EMPTY_DIGEST.hex) for name in ("", ".", "..", "a/", "a/..", "x/.", "a\0b", "..\\..")),
    ],
)
def test_a_stored_name_counts_only_by_its_last_segment(stored: str, safe: str) -> None:
    assert safe_file_name(stored, EMPTY_DIGEST) == safe


@given(st.text(max_size=60))
def test_no_stored_name_leaves_the_directory(stored: str) -> None:
    name = safe_file_name(stored, EMPTY_DIGEST)
    assert Path("/here") / name == Path(f"/here/{name}")
    assert (Path("/here") / name).parent == Path("/here")
    assert name not in ("", ".", "..")
    assert "\0" not in name


async def write(target: Target, content: bytes) -> None:
    await target.write(memoryview(content))


async def test_the_file_appears_whole_with_the_user_s_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out"
    mask = os.umask(0o027)
    try:
        async with open_target(path, force=False) as target:
            await write(target, b"ab")
            await write(target, b"c")
            assert not path.exists()
            await target.commit()
    finally:
        os.umask(mask)
    assert path.read_bytes() == b"abc"
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_nlink == 1
    assert os.listdir(tmp_path) == ["out"]


async def test_without_commit_nothing_remains(tmp_path: Path) -> None:
    async with open_target(tmp_path / "out", force=False) as target:
        await write(target, b"ab")
    assert os.listdir(tmp_path) == []


async def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(TargetExists, match="--force"):
        async with open_target(path, force=False):
            pytest.fail("opened")
    async with open_target(path, force=True) as target:
        await write(target, b"new")
        assert path.read_bytes() == b"old"
        await target.commit()
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("links", [True, False])
async def test_a_file_that_comes_up_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    path = tmp_path / "out"
    async with open_target(path, force=False) as target:
        await write(target, b"ours")
        path.write_bytes(b"theirs")
        with pytest.raises(TargetExists):
            await target.commit()
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["out"]


async def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    async with open_target(tmp_path / "out", force=False) as target:
        await write(target, b"abc")
        await target.commit()
    assert (tmp_path / "out").read_bytes() == b"abc"
    assert os.listdir(tmp_path) == ["out"]


def _no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


async def test_a_directory_or_device_is_never_replaced(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(TargetUnusable, match="not a regular file"):
            async with open_target(path, force=True):
                pytest.fail("opened")


async def test_a_directory_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with open_target(tmp_path / "missing" / "out", force=False):
            pytest.fail("opened")


async def test_cancelled_anywhere_the_file_is_whole_or_absent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_target(tmp_path / "out", force=False) as target:
            await write(target, b"abc")
            await target.commit()

    async def check(run: Run[None]) -> None:
        assert os.listdir(tmp_path) in ([], ["out"])
        assert run.cancelled or os.listdir(tmp_path) == ["out"]
        if os.listdir(tmp_path):
            assert (tmp_path / "out").read_bytes() == b"abc"
            (tmp_path / "out").unlink()

    assert await cancel_everywhere(scenario, check, settle=abandoned_threads_end) > 3
