"""Owns secrets that lie in files: one YAML or JSON map of id -> credentials, or a directory with a file per id.

The embedded default: nothing to install. Files must be private (mode 0600, ours). The map is read again when it
changes; a file of a directory is read each time. Kubernetes may swap either under our feet. Refuses to know
caching (``secrets.cache`` stands in front) and what the credentials are for.

In a directory the file of id ``team/a`` is ``team/a``, ``team/a.yaml``, ``team/a.yml`` or ``team/a.json``, the first
that is there.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
import yaml

from casproxy.errors import ConfigError, SecretDenied, SecretMalformed, SecretNotFound, SecretUnavailable
from casproxy.files import check_private, read_private
from casproxy.in_thread import run_in_thread
from casproxy.secrets.api import Secret

MAX_FILE_SIZE = 4 * 1024 * 1024
"""Bytes, of one file."""

_SUFFIXES = ("", ".yaml", ".yml", ".json")
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_MAX_THREADS = 4


@dataclass(frozen=True, slots=True)
class _Map:
    """A map file as it was read; ``signature`` tells when it has changed. None stands for a value that is no object."""

    signature: tuple[int, ...]
    secrets: Mapping[str, Secret | None] = field(repr=False)


class FileSource:
    """A ``SecretSource`` over ``path``, a map file or a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: _Map | None = None
        self._limiter = trio.CapacityLimiter(_MAX_THREADS)

    async def read(self, secret_id: str) -> Secret:
        """See ``SecretSource.read``. A file that is broken or not private as a whole is ``SecretUnavailable``."""
        secret, loaded = await run_in_thread(partial(self._read, secret_id, self._map), limiter=self._limiter)
        self._map = loaded  # set here and not in the thread: an abandoned one must not turn back time
        return secret

    async def check(self) -> None:
        """See ``SecretSource.check``: every file is there, private, and the map can be parsed."""
        try:
            await run_in_thread(self._check, limiter=self._limiter)
        except (ConfigError, OSError) as error:
            raise ConfigError(f"credentials_service.file.path: {error}") from error

    def _read(self, secret_id: str, known: _Map | None) -> tuple[Secret, _Map | None]:
        try:
            if self._path.is_dir():
                return _read_from_directory(self._path, secret_id), None
            loaded = _load_map(self._path, known)
        except (ConfigError, OSError) as error:
            if isinstance(error, PermissionError) or isinstance(error.__cause__, PermissionError):
                raise SecretDenied("the secret file may not be read by this process") from error
            raise SecretUnavailable("the secret file cannot be used now") from error
        if secret_id not in loaded.secrets:
            raise _not_found(secret_id)
        return loaded.secrets[secret_id] or _not_an_object(secret_id), loaded

    def _check(self) -> None:
        if not self._path.is_dir():
            _load_map(self._path, None)
            return
        for path in sorted(self._path.rglob("*")):
            if path.is_file():
                check_private(path)


def _read_from_directory(directory: Path, secret_id: str) -> Secret:
    for suffix in _SUFFIXES:
        path = directory / f"{secret_id}{suffix}"
        if _is_there(path):
            return _to_secret(_parse(read_private(path, max_size=MAX_FILE_SIZE))) or _not_an_object(secret_id)
    raise _not_found(secret_id)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise


def _load_map(path: Path, known: _Map | None) -> _Map:
    status = path.stat()
    signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if known is not None and known.signature == signature:
        return known
    content = _parse(read_private(path, max_size=MAX_FILE_SIZE))
    if not isinstance(content, dict):
        where = f" ({content})" if isinstance(content, _Fault) else ""
        raise ConfigError(f"{path} is not a YAML or JSON map of secret id to credentials{where}")
    return _Map(signature, {str(secret_id): _to_secret(fields) for secret_id, fields in content.items()})


def _to_secret(fields: object) -> Secret | None:
    if not isinstance(fields, dict):
        return None
    return Secret({str(key): value for key, value in fields.items() if value is not None})


def _not_found(secret_id: str) -> SecretNotFound:
    return SecretNotFound(f"secret {secret_id} not found")


def _not_an_object(secret_id: str) -> Secret:
    raise SecretMalformed(f"secret {secret_id} is not a JSON or YAML object")


class _Fault(str):
    """Where a text cannot be parsed, without a word of it: a parser's own message quotes what it stumbled over."""

    __slots__ = ()


class _Loader(yaml.BaseLoader):
    """YAML whose scalars are texts as written, so that a password of digits stays one; no key occurs twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        mapping: dict[object, object] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key occurs twice", node.start_mark)
        return mapping


def _parse(data: bytes) -> object:
    """The parsed text, or a ``_Fault``: returned, not raised, so that no traceback holds the parser's error."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _Fault("it is not UTF-8")
    try:
        return _parse_json(text) if text.lstrip().startswith("{") else yaml.load(text, _Loader)  # noqa: S506 (BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        return _Fault(f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "")
    except (yaml.YAMLError, ValueError, RecursionError):
        return _Fault("it cannot be parsed")


def _parse_json(text: str) -> object:
    """JSON is not quite a subset of what PyYAML reads: tabs, surrogate pairs. A YAML flow map falls through to YAML."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=str, parse_float=str)
    except json.JSONDecodeError:
        return yaml.load(text, _Loader)  # noqa: S506 (BaseLoader makes texts, lists and maps only)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key occurs twice")
    return fields
