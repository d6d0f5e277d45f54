"""The file an unfinished download waits in: nobody else's, and nobody else's at the same time."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.client.errors import TargetUnusable
from casproxy.client.part import open_part, part_path
from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy_tests.real import require_root


def test_the_name_says_whose_part_it_is() -> None:
    assert part_path(Path("downloads/a.pdf"), EMPTY_DIGEST) == Path("downloads/a.pdf.e3b0c44298fc.part")
    assert part_path(Path("a.pdf"), Digest.of(b"a")) != part_path(Path("a.pdf"), EMPTY_DIGEST)


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_no_name_is_too_long_for_its_part(name: str) -> None:
    if name in (".", ".."):
        return
    part = part_path(Path("/here") / name, EMPTY_DIGEST)
    assert part.parent == Path("/here")
    assert len(os.fsencode(part.name)) <= 255
    assert part.name.endswith(".e3b0c44298fc.part")
    assert len(os.fsencode(name)) > 237 or part.name.startswith(name)


def test_what_was_written_is_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    with open_part(path) as file:
        file.write(b"abc")
    with open_part(path) as file:
        assert file.read() == b"abc"
        file.write(b"def")
    assert path.read_bytes() == b"abcdef"


def test_only_one_has_it(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    with open_part(path), pytest.raises(TargetUnusable, match="is being written by another download"):
        open_part(path)
    open_part(path).close()


def test_where_nothing_can_be_locked_it_is_opened_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    open_part(tmp_path / "x.part").close()


def test_one_that_is_taken_away_while_we_wait_for_the_lock_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other download finishes between our open and our lock: what we hold is its finished file."""
    path, finished = tmp_path / "x.part", tmp_path / "x"
    path.write_bytes(b"whole")
    flock = fcntl.flock

    def finish_first(file: object, operation: int) -> None:
        if not finished.exists():
            os.rename(path, finished)
        flock(file, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", finish_first)
    with open_part(path) as file:
        file.write(b"new")
    assert finished.read_bytes() == b"whole"
    assert path.read_bytes() == b"new"


def test_one_with_another_name_is_left_to_that_name(tmp_path: Path) -> None:
    """Killed between link and unlink: the part is the finished file."""
    path, finished = tmp_path / "x.part", tmp_path / "x"
    path.write_bytes(b"whole")
    os.link(path, finished)
    with open_part(path) as file:
        assert file.read() == b""
        file.write(b"new")
    assert finished.read_bytes() == b"whole"


def test_a_link_a_pipe_and_a_directory_are_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    path = tmp_path / "x.part"
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        open_part(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(TargetUnusable, match="not a file of yours"):
        open_part(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        open_part(path)
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_a_part_that_belongs_to_another_user_is_not_trusted(tmp_path: Path) -> None:
    require_root("giving a file to another user")
    path = tmp_path / "x.part"
    path.write_bytes(b"theirs")
    shutil.chown(path, 65534)
    with pytest.raises(TargetUnusable, match="remove it"):
        open_part(path)


def test_a_missing_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_part(tmp_path / "missing" / "x.part")
