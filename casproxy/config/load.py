"""Owns the last step: a merged tree becomes a ``Config``, or a list of problems. Refuses to know what settings do.

Every problem is one line that names the place (file and line, or variable), the key, what was found and what is wanted;
all problems are collected before the first is raised. A value that is empty, or becomes empty when its placeholders are
filled in, counts as not set, as it did for the protobuf-typed original.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casproxy.config.files import Items, Node, Scalar, Table, config_files, read_file
from casproxy.config.interpolate import Interpolator
from casproxy.config.kinds import Kind
from casproxy.config.merge import dotted_variables, merge
from casproxy.config.model import Config
from casproxy.config.section import Section
from casproxy.config.settings import Setting, settings_of, walk
from casproxy.errors import ConfigError

_LONGEST_SHOWN = 60
_UNSET = Scalar(None, "")


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration and what its author should know. ``unknown_keys``: the warnings that a strict check refuses."""

    config: Config
    warnings: list[str]
    unknown_keys: list[str]


class InvalidConfig(ConfigError):
    """The configuration has problems, one line each; the text is the first of them.

    ``warnings`` are what would have been said of it otherwise: an unknown key often explains a missing one.
    """

    def __init__(self, problems: list[str], warnings: list[str]) -> None:
        more = f" (and {len(problems) - 1} more: casproxy config check lists all)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = problems
        self.warnings = warnings


def load(path: Path | None, environ: Mapping[str, str]) -> LoadedConfig:
    """Read a file, or a directory of files, with ``environ`` laid over it. Blocking; meant for start-up.

    Without a path there is only ``environ``.
    Raises ``ConfigError`` when something cannot be read and ``InvalidConfig`` when something does not fit.
    """
    files, ignored = config_files(path) if path is not None else ([], [])
    loaded = interpret(merge([*map(read_file, files), *dotted_variables(environ)]), environ)
    return LoadedConfig(loaded.config, ignored + loaded.warnings, loaded.unknown_keys)


def interpret(tree: Table, environ: Mapping[str, str]) -> LoadedConfig:
    """A merged tree as a ``Config``; ``environ`` is only what placeholders may name."""
    reader = _Reader(Interpolator(tree, environ))
    config = reader.section(Config, tree, ())
    unknown = list(reader.unknown_keys())
    if reader.problems:
        raise InvalidConfig(reader.problems, reader.warnings + unknown)
    return LoadedConfig(config, reader.warnings + unknown, unknown)


class _Reader:
    """One pass over a tree. Collects; raises nothing."""

    def __init__(self, interpolator: Interpolator) -> None:
        self._interpolator = interpolator
        self._planned: set[tuple[str, ...]] = set()
        self._unknown: list[tuple[tuple[str, ...], str, Table]] = []
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def section(self, section: type[Section], table: Table, path: tuple[str, ...]) -> Any:
        """The section's struct; None after a problem."""
        settings = {setting.name: setting for setting in settings_of(section)}
        self._unknown += [(path, key, table) for key in table.entries if key not in settings]
        problems_before = len(self.problems)
        values: dict[str, Any] = {}
        for name, setting in settings.items():
            node = table.entries.get(name, _UNSET)
            self._advise(setting, node, (*path, name))
            problems_before_value = len(self.problems)
            value = self._value(setting, node, (*path, name))
            if value is not None:
                values.setdefault(setting.alias_of or name, value)
            elif setting.required and len(self.problems) == problems_before_value:
                self._problem(table.origin, (*path, name), f"is missing, want {_wanted(setting)}")
        if len(self.problems) > problems_before:
            return None
        try:
            return section(**values)
        except ConfigError as error:
            self.problems.append(f"{table.origin}: {error}")
            return None

    def _advise(self, setting: Setting, node: Node, path: tuple[str, ...]) -> None:
        """Warn of a key that is deprecated, or planned (once for everything in a planned section)."""
        if isinstance(node, Scalar) and not node.text:
            return
        if setting.alias_of:
            self.warnings.append(f"{node.origin}: {'.'.join(path)} is deprecated; call it {setting.alias_of}")
        if setting.planned and not any(path[:length] in self._planned for length in range(len(path))):
            self._planned.add(path)
            self.warnings.append(f"{node.origin}: {'.'.join(path)} has no effect in this version")

    def _value(self, setting: Setting, node: Node, path: tuple[str, ...]) -> Any:
        """The value; None when it is not set or after a problem."""
        if isinstance(node, Scalar):
            text = self._text(node, path)
            if not text:
                return None
            if setting.kind is not None and not setting.kind.many:
                return self._parse(setting.kind, text, node.origin, path)
            if setting.kind is not None and (node.literal or node.text != text):
                return self._list(setting.kind, map(str.strip, text.split(",")), node.origin, path)
        elif setting.section is not None and isinstance(node, Table):
            return self.section(setting.section, node, path)
        elif setting.kind is not None and setting.kind.many and isinstance(node, Items):
            return self._items(setting.kind, node, path)
        self._problem(node.origin, path, f"found {_shape(node)}, want {_wanted(setting)}")
        return None

    def _items(self, kind: Kind, node: Items, path: tuple[str, ...]) -> tuple[Any, ...] | None:
        texts: list[str] = []
        for item in node.items:
            if not isinstance(item, Scalar):
                self._problem(item.origin, path, f"found {_shape(item)} in the list, want {kind.wanted}")
                return None
            texts.append(self._text(item, path) or "")
        return self._list(kind, texts, node.origin, path)

    def _list(self, kind: Kind, texts: Iterable[str], origin: str, path: tuple[str, ...]) -> tuple[Any, ...] | None:
        values = tuple(self._parse(kind, text, origin, path) for text in texts if text)
        return None if None in values else values

    def _text(self, node: Scalar, path: tuple[str, ...]) -> str | None:
        try:
            return self._interpolator.resolve(node)
        except ConfigError as error:
            self.problems.append(f"{error} (at {'.'.join(path)})")
            return None

    def _parse(self, kind: Kind, text: str, origin: str, path: tuple[str, ...]) -> Any:
        try:
            return kind.parse(text)
        except ValueError:
            found = "a text" if kind.secret else _shown(text)
            self._problem(origin, path, f"found {found}, want {kind.wanted}")
            return None

    def _problem(self, origin: str, path: tuple[str, ...], what: str) -> None:
        self.problems.append(f"{origin}: {'.'.join(path)}: {what}")

    def unknown_keys(self) -> Iterator[str]:
        """A line per key that no setting has and no placeholder names."""
        for parent, key, table in self._unknown:
            dotted = ".".join((*parent, key))
            if not any(f"{used}.".startswith(f"{dotted}.") for used in self._interpolator.used):
                written = ".".join((*parent, table.spelled[key]))
                nearest = _nearest(parent, key)
                origin = table.entries[key].origin
                yield f"{origin}: unknown key {written}; the nearest known key is {nearest}"


def _wanted(setting: Setting) -> str:
    if setting.section is not None:
        return f"a map, such as {{{settings_of(setting.section)[0].name}: …}}"
    assert setting.kind is not None  # noqa: S101 - a setting is a section or has a kind
    return f"a list, each {setting.kind.wanted}" if setting.kind.many else setting.kind.wanted


def _shape(node: Node) -> str:
    if isinstance(node, Table):
        return "a map"
    return "a list" if isinstance(node, Items) else "a single value"


def _shown(text: str) -> str:
    shown = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
    return '"' + "".join(char if char.isprintable() else repr(char)[1:-1] for char in shown) + '"'


def _nearest(parent: tuple[str, ...], key: str) -> str:
    """A similar key beside it, else the same word elsewhere, else the most similar path."""
    known = {dotted: setting for dotted, setting in walk() if not setting.alias_of}
    beside = {dotted.rpartition(".")[2]: dotted for dotted in known if dotted.rpartition(".")[0] == ".".join(parent)}
    close = difflib.get_close_matches(key.lower(), beside, 1, 0.6)
    if close:
        return beside[close[0]]
    path = ".".join((*parent, key.lower()))
    elsewhere = [dotted for dotted in known if dotted.rpartition(".")[2] == key.lower()]
    return difflib.get_close_matches(path, elsewhere or list(known), 1, 0.0)[0]
