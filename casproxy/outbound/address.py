"""Owns origins and URLs as far as this program needs them. Refuses what it would have to interpret generously.

A URL comes from a tenant's secret or out of a registry's answer, so it is hostile: printable ASCII only, ``http`` or
``https``, no user information, a host that is a plain name or an address. The target (path and query) is kept as it
was written, for registries sign theirs.

Source: RFC 3986; host names RFC 1123, underscores tolerated.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
_HOST: Final = re.compile(r"(?=.{1,253}\.?\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?", re.ASCII)
_PORTS: Final = {"https": 443, "http": 80}


class InvalidUrl(ValueError):
    """Not a URL that this program would follow; the text says why and shows nothing of it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: who gets credentials, and what connections are kept by (RFC 6454).

    ``host`` is lower case; an IPv6 address stands without brackets.
    """

    scheme: str
    host: str
    port: int

    @property
    def secure(self) -> bool:
        """True for https."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The value of the header ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Url:
    """A place at an origin. ``target`` is path and query as sent on the request line; it begins with ``/``."""

    origin: Origin
    target: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Read an absolute URL; its fragment is dropped. Raises ``InvalidUrl``."""
        if not _PRINTABLE.fullmatch(text):
            raise InvalidUrl("not printable ASCII")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise InvalidUrl("malformed host or port") from error
        if parts.scheme not in _PORTS or parts.username is not None or parts.password is not None:
            raise InvalidUrl("not a plain http or https URL")
        origin = Origin(parts.scheme, _checked_host(parts.hostname or ""), port or _PORTS[parts.scheme])
        return cls(origin, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))

    def join(self, location: str) -> Url:
        """Where a ``Location`` found at this URL leads, relative or absolute (RFC 3986, 5). Raises ``InvalidUrl``."""
        if not _PRINTABLE.fullmatch(location):
            raise InvalidUrl("not printable ASCII")
        try:
            return Url.parse(urljoin(str(self), location))
        except ValueError as error:
            raise error if isinstance(error, InvalidUrl) else InvalidUrl("malformed location") from error

    def with_query(self, **fields: str) -> Url:
        """This URL with more fields behind the query it has, which stays as it is."""
        added = "&".join(f"{name}={quote(value, safe=':')}" for name, value in fields.items())
        return Url(self.origin, f"{self.target}{'&' if '?' in self.target else '?'}{added}")

    def __str__(self) -> str:
        return f"{self.origin}{self.target}"


def _checked_host(host: str) -> str:
    if "%" in host:
        raise InvalidUrl("an IPv6 address with a zone")
    if ":" in host:
        try:
            return ipaddress.IPv6Address(host).compressed
        except ValueError as error:
            raise InvalidUrl("malformed IPv6 address") from error
    if not _HOST.fullmatch(host):
        raise InvalidUrl("malformed host name")
    return host
