"""YAML to tree: what is kept, where it was written, and what is too much."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.config.files import (
    DEEPEST,
    LARGEST_FILE,
    MOST_FILES,
    Items,
    Scalar,
    Table,
    config_files,
    parse,
    read_file,
    snake_case,
)
from casproxy.errors import ConfigError


def texts(table: Table) -> dict[str, object]:
    """A tree as plain texts."""
    return {key: _plain(node) for key, node in table.entries.items()}


def _plain(node: Table | Items | Scalar) -> object:
    if isinstance(node, Table):
        return texts(node)
    return [_plain(item) for item in node.items] if isinstance(node, Items) else node.text


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("httpMetrics", "http_metrics"),
        ("http_metrics", "http_metrics"),
        ("VAULT_TOKEN", "VAULT_TOKEN"),
        ("robotAccountPublicKeyPath", "robot_account_public_key_path"),
        ("s3AccessPoint", "s3_access_point"),
        ("addr", "addr"),
    ],
)
def test_keys_become_snake_case(written: str, key: str) -> None:
    assert snake_case(written) == key


def test_scalars_stay_what_was_written() -> None:
    tree = parse("{id: 0123, env: no, when: 2024-01-01, at: '12:30', none: ~, empty: , text: 'null'}", "f")
    assert texts(tree) == {
        "id": "0123",
        "env": "no",
        "when": "2024-01-01",
        "at": "12:30",
        "none": None,
        "empty": None,
        "text": "null",
    }


def test_every_node_knows_its_file_and_the_line_of_its_key() -> None:
    tree = parse("server:\n  httpMetrics:\n    addr: x\n  list:\n    - a\n", "conf.yaml")
    server = tree.entries["server"]
    assert isinstance(server, Table)
    metrics, listed = server.entries["http_metrics"], server.entries["list"]
    assert isinstance(metrics, Table)
    assert isinstance(listed, Items)
    assert metrics.origin == "conf.yaml:2"
    assert metrics.entries["addr"].origin == "conf.yaml:3"
    assert listed.items[0].origin == "conf.yaml:5"
    assert server.spelled["http_metrics"] == "httpMetrics"


def test_json_is_yaml() -> None:
    assert texts(parse('{"server": {"grpc": {"addr": ":1"}}}', "f")) == {"server": {"grpc": {"addr": ":1"}}}


@pytest.mark.parametrize("text", ["", "---\n", "# only a comment\n", "~", "null"])
def test_an_empty_file_is_an_empty_map(text: str) -> None:
    assert texts(parse(text, "f")) == {}


def test_aliases_and_merge_keys_are_expanded() -> None:
    tree = parse("base: &b {a: 1, c: 2}\nmore: &m {c: 3, d: 4}\nx: {<<: [*b, *m], a: 9}\ny: *b\nz: {<<: *m}", "f")
    assert texts(tree)["x"] == {"a": "9", "c": "2", "d": "4"}
    assert texts(tree)["y"] == {"a": "1", "c": "2"}
    assert texts(tree)["z"] == {"c": "3", "d": "4"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a", "f: want a map of settings"),
        ("just text", "f: want a map of settings"),
        ("a: 1\nb: 2\na: 3", "f:3: the key a is there twice"),
        ("httpMetrics: {}\nhttp_metrics: {}", "f:2: the key http_metrics is there twice"),
        ("a: [1, 2", "f:1: is not valid YAML"),
        ("a: b: c", "f:1: is not valid YAML"),
        ("a: 1\n---\nb: 2", "f:2: is not valid YAML: but found another document"),
        ("a: \x00", "f: is not valid YAML: it holds a character"),
        ("[a]: b", "f:1: a key must be a plain word"),
        ("a: !!python/object:os.system x", "f:1: the YAML tag python/object:os.system is not supported"),
        ("a: !secret x", "f:1: the YAML tag !secret is not supported"),
        ("a: !!binary aGk=", "f:1: the YAML tag binary is not supported"),
        ("a: {<<: 5}", "f:1: << wants a map"),
        ("a: &a [*a]", "f:1: nested deeper"),
        ("a: &a {<<: *a}", "f:1: nested deeper"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert str(caught.value).startswith(problem)
    assert "\n" not in str(caught.value)


def test_an_unquoted_secret_that_looks_like_an_alias_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"^f:1: is not valid YAML: found undefined alias$"):
        parse("token: *hunter2", "f")


@pytest.mark.parametrize(
    "bomb",
    [
        "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" if n else "x0: &x0 [a]\n" for n in range(12)),
        "".join(
            f"x{n}: &x{n} {{<<: [{', '.join([f'*x{n - 1}'] * 10)}]}}\n" if n else "x0: &x0 {a: 1}\n" for n in range(12)
        ),
    ],
    ids=["aliases", "merge keys"],
)
def test_an_alias_bomb_is_refused(bomb: str) -> None:
    with pytest.raises(ConfigError, match="more than 10000 entries, aliases expanded"):
        parse(bomb, "f")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "a: " + "{a: " * 50_000, "- " * 20_000, "a: " + "[" * DEEPEST + "]" * DEEPEST]
)
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"nested deeper than {DEEPEST} levels"):
        parse(text, "f")


@given(st.text(alphabet="ab:{}[]&*!<>-|'\"#\n \t,?%@`~$0", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(text, "f"), Table)


def test_a_file_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * (LARGEST_FILE + 1))
    with pytest.raises(ConfigError, match="larger than 256 KiB"):
        read_file(path)
    path.write_bytes(b"#" * LARGEST_FILE)
    assert texts(read_file(path)) == {}


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read_file(path)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert texts(read_file(path)) == {"a": "1"}


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        read_file(tmp_path / "nowhere.yaml")


def test_a_directory_gives_its_yaml_files_in_name_order(tmp_path: Path) -> None:
    hidden = tmp_path / "..data"
    hidden.mkdir()
    (hidden / "server.yaml").write_text("a: 1")
    (tmp_path / "b-server.yaml").symlink_to(Path("..data") / "server.yaml")
    for name in ("a.yml", "C.json", ".hidden.yaml", "notes.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "sub.yaml").mkdir()
    files, warnings = config_files(tmp_path)
    assert [file.name for file in files] == ["C.json", "a.yml", "b-server.yaml"]
    assert warnings == [f"{tmp_path}/notes.txt: is ignored: not a .yaml, .yml or .json file"]


def test_a_directory_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no \.yaml"):
        config_files(tmp_path)


def test_a_directory_with_too_many_files_is_refused(tmp_path: Path) -> None:
    for number in range(MOST_FILES + 1):
        (tmp_path / f"{number}.yaml").touch()
    with pytest.raises(ConfigError, match="at most 64 are merged"):
        config_files(tmp_path)
