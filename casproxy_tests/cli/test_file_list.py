"""Which files the arguments of an upload mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from casproxy.cli.file_list import File, list_files
from casproxy_tests.real import require_root

TREE = ("b.txt", "a.txt", "sub/c.txt", "sub/deep/d.gz", "sub/.hidden", ".git/config", "[x].txt", "z/e.gz")


@pytest.fixture(autouse=True)
def _tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TREE:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path / "tree")


def paths(*arguments: str, hidden: bool = False) -> list[str]:
    return [file.path for file in list_files(arguments, hidden=hidden)]


def test_files_come_in_the_order_they_were_given() -> None:
    assert list_files(["b.txt", "-", "a.txt", "b.txt"]) == [File("b.txt"), File("-"), File("a.txt"), File("b.txt")]
    assert [file.label for file in list_files(["-", "a.txt"])] == ["stdin", "a.txt"]


def test_a_directory_is_all_that_is_below_it_in_the_order_of_names() -> None:
    assert list_files(["sub"]) == [File("sub/c.txt", found=True), File("sub/deep/d.gz", found=True)]
    assert paths(".") == ["[x].txt", "a.txt", "b.txt", "sub/c.txt", "sub/deep/d.gz", "z/e.gz"]
    assert paths("sub/", "z") == ["sub/c.txt", "sub/deep/d.gz", "z/e.gz"]


def test_what_is_hidden_is_taken_when_it_is_asked_for_or_named() -> None:
    assert paths("sub", hidden=True) == ["sub/.hidden", "sub/c.txt", "sub/deep/d.gz"]
    assert paths(".git") == [".git/config"]
    assert set(paths(".", hidden=True)) == set(TREE)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.txt", ["[x].txt", "a.txt", "b.txt"]),
        ("[ab].txt", ["a.txt", "b.txt"]),
        ("**/*.gz", ["sub/deep/d.gz", "z/e.gz"]),
        ("sub/**", ["sub/c.txt", "sub/deep/d.gz"]),
        ("s*", ["sub/c.txt", "sub/deep/d.gz"]),
        ("[x].txt", ["[x].txt"]),  # there is such a file: it is no pattern
    ],
)
def test_a_pattern_the_shell_left_alone(pattern: str, found: list[str]) -> None:
    assert paths(pattern) == found


def test_what_a_pattern_found_nobody_named() -> None:
    os.symlink("nowhere", "dangling.txt")
    assert list_files(["[d]*.txt", "a.txt"]) == [File("dangling.txt", found=True), File("a.txt")]


def test_links_are_files_but_no_directories() -> None:
    os.symlink("../a.txt", "z/link.txt")
    os.symlink("..", "z/loop")
    os.symlink("nowhere", "z/dangling")
    assert paths("z") == ["z/dangling", "z/e.gz", "z/link.txt"]
    assert paths("z/loop/z/e.gz") == ["z/loop/z/e.gz"]


@pytest.mark.parametrize(
    ("argument", "text"),
    [("missing", "No such file"), ("*.none", "no file matches"), ("empty", "no file in this directory that is not")],
)
def test_what_is_not_there_is_told_by_name(argument: str, text: str) -> None:
    os.mkdir("empty")
    with pytest.raises(FileNotFoundError, match=text) as caught:
        list_files(["a.txt", argument])
    assert caught.value.filename == argument


def test_a_directory_that_cannot_be_searched_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    require_root("becoming another user")
    os.chmod("sub/deep", 0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            list_files(["sub"])
    finally:
        os.seteuid(0)
