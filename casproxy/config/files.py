"""Owns the road from YAML text to a bounded tree of texts that remember where they were written.

Refuses to know settings, types and the environment. PyYAML only scans and composes: nothing is ever constructed from a
tag, and scalars stay the text that was written (``kinds.py`` says why). Bounded, because a configuration may be written
by a template somebody else controls: bytes per file, files, depth, and entries after every alias has been expanded, so
that an alias bomb is refused before it takes memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

from casproxy.errors import ConfigError

LARGEST_FILE = 256 << 10
MOST_FILES = 64
MOST_ENTRIES = 10_000
DEEPEST = 32

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_CORE = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset(f"{_CORE}{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "value"))
_CAMEL_HUMP = re.compile(r"(?<=[a-z0-9])[A-Z]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as text; None is YAML's null. ``literal``: it came from a variable and holds no placeholders."""

    text: str | None
    origin: str
    literal: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class Table:
    """A map. Keys are snake_case whatever was written; ``spelled`` remembers what was."""

    origin: str
    entries: dict[str, Node] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)


Node: TypeAlias = Scalar | Items | Table


def snake_case(key: str) -> str:
    """``httpMetrics`` as ``http_metrics``; a name already in snake_case, or in CAPITALS, stays."""
    return _CAMEL_HUMP.sub(lambda hump: f"_{hump[0].lower()}", key)


def config_files(path: Path) -> tuple[list[Path], list[str]]:
    """The files to merge, in order, and warnings about those left out.

    A directory gives its YAML and JSON files in name order, without hidden entries (Kubernetes' ``..data``) and
    sub-directories. ``ConfigError`` when there is nothing to read or too much.
    """
    try:
        if not path.is_dir():
            return [path], []
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_file())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    files = [entry for entry in entries if entry.suffix.lower() in _SUFFIXES]
    if not files:
        raise ConfigError(
            f"{path}: holds no .yaml, .yml or .json file; name a configuration file or fill the directory"
        )
    if len(files) > MOST_FILES:
        raise ConfigError(f"{path}: holds {len(files)} configuration files; at most {MOST_FILES} are merged")
    return files, [f"{entry}: is ignored: not a .yaml, .yml or .json file" for entry in entries if entry not in files]


def read_file(path: Path) -> Table:
    """One file as a tree; an empty file is an empty map. ``ConfigError`` names the file and the line."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{path}: is larger than {LARGEST_FILE >> 10} KiB, too large for a configuration file")
    try:
        return parse(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error


def parse(text: str, file: str) -> Table:
    """YAML (or JSON, which is YAML) as a tree. ``file`` is what errors call it."""
    try:
        root = _Composer(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{file}{line}: is not valid YAML: {_without_names(error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not valid YAML: it holds a character YAML does not allow") from error
    tree = _Walk(file).node(root) if root is not None else Scalar(None, file)
    if isinstance(tree, Scalar) and tree.text is None:
        return Table(file)
    if not isinstance(tree, Table):
        raise ConfigError(f"{file}: want a map of settings at the top, such as server: {{…}}")
    return tree


def _without_names(error: yaml.MarkedYAMLError) -> str:
    """The problem, without the name of an anchor: an unquoted secret that begins with ``*`` looks like one."""
    problem = error.problem or "unreadable"
    if isinstance(error, yaml.composer.ComposerError):
        return re.split(r"['\"]", problem, maxsplit=1)[0].strip()
    return problem


class _Composer(yaml.SafeLoader):
    """Composes nodes, and stops at ``DEEPEST`` because PyYAML recurses."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self._depth >= DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {DEEPEST} levels", mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Walk:
    """Expands composed nodes (which share what aliases repeat) into a tree, counting every entry."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._entries = 0
        self._depth = 0

    def node(self, node: yaml.Node, origin: str = "") -> Node:
        """The tree of one node. ``origin`` is where its key is, if it has one."""
        origin = origin or self._origin(node)
        self._entries += 1
        if self._entries > MOST_ENTRIES:
            raise ConfigError(f"{origin}: the file has more than {MOST_ENTRIES} entries, aliases expanded")
        if self._depth >= DEEPEST:
            raise ConfigError(f"{origin}: nested deeper than {DEEPEST} levels, aliases expanded")
        self._depth += 1
        try:
            return self._expand(node, origin)
        finally:
            self._depth -= 1

    def _origin(self, node: yaml.Node) -> str:
        return f"{self._file}:{node.start_mark.line + 1}"

    def _expand(self, node: yaml.Node, origin: str) -> Node:
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_CORE}map":
            return self._table(node, origin)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_CORE}seq":
            return Items(tuple(self.node(item) for item in node.value), origin)
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALAR_TAGS:
            return Scalar(None if node.tag == f"{_CORE}null" else node.value, origin)
        raise ConfigError(f"{origin}: the YAML tag {node.tag.removeprefix(_CORE)} is not supported; write plain values")

    def _table(self, node: yaml.MappingNode, origin: str) -> Table:
        table = Table(origin)
        for inherited in self._inherited(node):
            for key, value in inherited.entries.items():
                if key not in table.entries:
                    table.entries[key], table.spelled[key] = value, inherited.spelled[key]
        own: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag == f"{_CORE}merge":
                continue
            where = self._origin(key_node)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _SCALAR_TAGS:
                raise ConfigError(f"{where}: a key must be a plain word")
            key = snake_case(key_node.value)
            if key in own:
                raise ConfigError(f"{where}: the key {key_node.value} is there twice; keep one")
            own.add(key)
            table.entries[key], table.spelled[key] = self.node(value_node, where), key_node.value
        return table

    def _inherited(self, node: yaml.MappingNode) -> Iterator[Table]:
        """The maps that ``<<`` brings in, the one that wins first (https://yaml.org/type/merge.html)."""
        for key_node, value_node in node.value:
            if key_node.tag == f"{_CORE}merge":
                for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else (value_node,):
                    table = self.node(source)
                    if not isinstance(table, Table):
                        raise ConfigError(f"{table.origin}: << wants a map, or a list of maps")
                    yield table
