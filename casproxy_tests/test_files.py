"""Private files and directories: what is accepted, what is refused, and what is left behind when writing fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from casproxy.errors import ConfigError
from casproxy.files import check_private, make_private_dir, read_private, write_private


def test_write_then_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    before = os.umask(0)
    try:
        write_private(path, b"one")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_private(path, b"two")
    check_private(path)
    assert read_private(path, max_size=3) == b"two" and os.listdir(tmp_path) == ["key"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    write_private(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("casproxy.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601])
def test_permission_for_others_is_refused_with_the_command_to_run(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a key"
    write_private(path, b"x")
    path.chmod(mode)
    for call in (check_private, lambda file: read_private(file, max_size=9)):
        with pytest.raises(ConfigError, match=r"run chmod 600 '.*/a key'$"):
            call(path)


def test_somebody_elses_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    write_private(path, b"x")
    stranger = os.geteuid() + 1
    monkeypatch.setattr("casproxy.files.os.geteuid", lambda: stranger)
    for call in (check_private, lambda file: read_private(file, max_size=9)):
        with pytest.raises(ConfigError, match="belongs to another user"):
            call(path)
    with pytest.raises(ConfigError, match="belongs to another user: work in another directory"):
        make_private_dir(tmp_path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for path in (tmp_path, fifo):
        for call in (check_private, lambda file: read_private(file, max_size=9)):
            with pytest.raises(ConfigError, match="is not a regular file"):
                call(path)
    for call in (check_private, lambda file: read_private(file, max_size=9)):
        with pytest.raises(ConfigError, match=r"^cannot read .*/absent: No such file or directory$"):
            call(tmp_path / "absent")


def test_size_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private(path, b"1234")
    with pytest.raises(ConfigError, match="is larger than 3 bytes"):
        read_private(path, max_size=3)


def test_make_private_dir(tmp_path: Path) -> None:
    path = tmp_path / ".casproxy"
    for _ in range(2):
        make_private_dir(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    path.chmod(0o750)
    with pytest.raises(ConfigError, match=rf"^{path} is open to other users: run chmod 700 {path}$"):
        make_private_dir(path)


def test_places_that_cannot_be_a_private_dir(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    for name, text in (
        ("file", "is not a directory"),
        ("link", "is a symbolic link"),
        ("absent/child", "cannot create the directory .*: No such file or directory"),
    ):
        with pytest.raises(ConfigError, match=text):
            make_private_dir(tmp_path / name)
