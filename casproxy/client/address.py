"""Owns the written form of a server's address, ``HOST:PORT``. Refuses to resolve or to connect."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from casproxy.errors import InvalidRequest

_FORM = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """A host (name or IP literal, no brackets) and a TCP port, 1 to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``HOST:PORT`` or ``[IPv6]:PORT``; anything else raises ``InvalidRequest``."""
        match = _FORM.fullmatch(text)
        if match is None or not 1 <= int(match["port"]) <= 65535:
            raise InvalidRequest(f"invalid address {text[:80]!r}: want HOST:PORT, for example 127.0.0.1:9001")
        return cls(match["v6"] or match["host"], int(match["port"]))

    def is_loopback(self) -> bool:
        """True for an IP literal of this machine's loopback; a name is never trusted to be one."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
