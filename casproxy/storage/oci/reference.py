"""Owns what a tenant's ``Repo`` means: which registry, which repository. Does no I/O.

``host[:port]/path`` without a scheme. A first segment without ``.`` or ``:`` is no host: the registry is Docker Hub, as
it is for every Docker tool, ``localhost/x`` included.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from casproxy.digest import Digest
from casproxy.errors import SecretMalformed
from casproxy.outbound.address import InvalidUrl, Origin, Url

_HUB: Final = "registry-1.docker.io"
_HUB_NAMES: Final = ("docker.io", "index.docker.io")
_PATH: Final = re.compile(r"[a-z0-9_.-]+(?:/[a-z0-9_.-]+)*", re.ASCII)
_MAX_REPOSITORY: Final = 255
_SUFFIX_LENGTH: Final = len("/chainloop-") + 64


@dataclass(frozen=True, slots=True)
class Repo:
    """Where one tenant's artifacts are, at the registry's top if ``path`` is empty.

    ``plain_allowed``: http is tried when https does not answer.
    """

    host: str
    port: int | None
    path: str
    plain_allowed: bool

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where the registry may answer, in the order to try."""
        secure = Origin("https", self.host, self.port or 443)
        return (secure, Origin("http", self.host, self.port or 80)) if self.plain_allowed else (secure,)

    @property
    def registry(self) -> str:
        """The registry as an operator would write it; fit for texts."""
        return self.origins[0].authority

    def of(self, digest: Digest) -> str:
        """The repository of one artifact."""
        return f"{self.path}/chainloop-{digest.hex}".lstrip("/")


def parse_repo(text: str, insecure_registries: Collection[str] = ()) -> Repo:
    """Read ``Repo``. Raises ``SecretMalformed``, whose text shows nothing of it."""
    first, slash, rest = text.partition("/")
    if not any(mark in first for mark in ".:"):
        return Repo(_HUB, None, _checked_path(text), plain_allowed=False)
    path = _checked_path(rest) if slash else ""
    if first.lower() in _HUB_NAMES:
        return Repo(_HUB, None, path, plain_allowed=False)
    try:
        url = Url.parse(f"https://{first}/")
    except InvalidUrl as error:
        raise SecretMalformed("the secret's Repo names no registry: want host[:port]/path without a scheme") from error
    port = None if url.origin.port == 443 and not first.endswith(":443") else url.origin.port
    plain = first.lower() in insecure_registries or may_be_plain(url.origin.host, port)
    return Repo(url.origin.host, port, path, plain)


def may_be_plain(host: str, port: int | None) -> bool:
    """Hosts where http is expected: this machine and literal RFC 1918 addresses, as go-containerregistry has it."""
    if host.endswith(".localhost") or (host == "localhost" and port is not None):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address == ipaddress.IPv6Address("::1")
    return str(address) == "127.0.0.1" or any(address in network for network in _RFC1918)


_RFC1918: Final = tuple(ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


def _checked_path(path: str) -> str:
    if not _PATH.fullmatch(path) or any(segment in (".", "..") for segment in path.split("/")):
        raise SecretMalformed("the secret's Repo has a malformed path: want segments of a-z, 0-9, '_', '.', '-'")
    if len(path) + _SUFFIX_LENGTH > _MAX_REPOSITORY:
        raise SecretMalformed(f"the secret's Repo is too long: at most {_MAX_REPOSITORY - _SUFFIX_LENGTH} characters")
    return path
