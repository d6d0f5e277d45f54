"""Owns placeholders: ``${a.b}`` and ``${a.b:default}`` inside a value. Refuses to know types and settings.

The name is looked up as a key of the merged configuration, then as the variable ``CAS_a.b``, then its default counts,
else it is empty. A key's own placeholders are resolved first; variables and defaults are taken as they are. The default
ends at the first ``}`` and may hold colons (``${VAULT_ADDRESS:http://vault:8200}``). Placeholders do not nest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from casproxy.config.files import Node, Scalar, Table, snake_case
from casproxy.config.merge import PREFIX
from casproxy.errors import ConfigError

LONGEST_VALUE = 64 << 10
LONGEST_CHAIN = 32

_PLACEHOLDER = re.compile(r"\$\{(.*?)\}", re.DOTALL)


class Interpolator:
    """Resolves placeholders against one merged tree and one environment."""

    def __init__(self, root: Table, environ: Mapping[str, str]) -> None:
        self._root = root
        self._environ = environ
        self._resolved: dict[str, str] = {}
        self.used: set[str] = set()
        """The keys that placeholders named, as snake_case dotted paths."""

    def resolve(self, value: Scalar) -> str | None:
        """The value's text with every placeholder filled in; None stays None. ``ConfigError`` says what is wrong."""
        return self._resolve(value, ())

    def _resolve(self, value: Scalar, chain: tuple[str, ...]) -> str | None:
        if value.text is None or value.literal:
            return value.text
        text, at, length = [], 0, 0
        for match in _PLACEHOLDER.finditer(value.text):
            filled = self._fill(match[1].strip(), value.origin, chain)
            text += [value.text[at : match.start()], filled]
            at, length = match.end(), length + len(filled)
            if length > LONGEST_VALUE:
                raise ConfigError(f"{value.origin}: placeholders make a value longer than {LONGEST_VALUE >> 10} KiB")
        return "".join(text) + value.text[at:]

    def _fill(self, placeholder: str, origin: str, chain: tuple[str, ...]) -> str:
        name, _, default = placeholder.partition(":")
        if "${" in placeholder:
            raise ConfigError(f"{origin}: placeholders do not nest; write one ${{key:default}} with a plain default")
        key = ".".join(snake_case(part) for part in name.split("."))
        self.used.add(key)
        if key in chain:
            raise ConfigError(f"{origin}: placeholders go in a circle: {' -> '.join((*chain, key))}; break it")
        if len(chain) >= LONGEST_CHAIN:
            raise ConfigError(f"{origin}: more than {LONGEST_CHAIN} placeholders lead from one to the next")
        filled = self._from_key(key, origin, (*chain, key))
        return filled if filled is not None else self._environ.get(PREFIX + name, default)

    def _from_key(self, key: str, origin: str, chain: tuple[str, ...]) -> str | None:
        if key in self._resolved:
            return self._resolved[key]
        node: Node | None = self._root
        for part in key.split("."):
            node = node.entries.get(part) if isinstance(node, Table) else None
        if node is None:
            return None
        if not isinstance(node, Scalar):
            raise ConfigError(f"{origin}: ${{{key}}} names a map or a list; want a single value")
        text = self._resolve(node, chain)
        if text is not None:
            self._resolved[key] = text
        return text
