"""Owns opening a TCP port, and the sentence that says why it cannot be opened. Refuses to know what is served there.

A port is bound and listens from the moment it is opened: whoever holds the socket holds the port, and no other process
can slip in between a check and the use.
"""

from __future__ import annotations

import errno
import os
import re
import socket

from casproxy.errors import ConfigError

_FORM = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})", re.ASCII)
_BACKLOG = 1024
_NEXT_PORTS = 100
_FAMILIES = {"tcp": socket.AF_UNSPEC, "tcp4": socket.AF_INET, "tcp6": socket.AF_INET6}


def open_port(address: str, *, setting: str, network: str = "tcp", next_free: bool = False) -> socket.socket:
    """A listening socket on ``address``: ``HOST:PORT``, ``[IPv6]:PORT``, or ``:PORT`` for every interface.

    Port 0 takes any free one. ``next_free``: when the port is taken, the first free one of the hundred after it.
    ``setting`` names what the user may change; ``ConfigError`` says how. Blocks while a host name is resolved.
    """
    host, port = _split(address, setting)
    last = min(port + _NEXT_PORTS, 65535) if next_free and port else port
    while True:
        try:
            return _listen(host, port, network)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port >= last:
                raise ConfigError(_sentence(error, address, setting)) from error
        port += 1


def address_of(listener: socket.socket) -> str:
    """Where a listening socket is reached: ``HOST:PORT`` or ``[IPv6]:PORT``."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reached_at(address: str, *, setting: str, network: str = "tcp") -> tuple[str, int]:
    """Host and port by which this machine's programs reach what listens on ``address``; ``ConfigError`` for port 0."""
    host, port = _split(address, setting)
    if not port:
        raise ConfigError(f"{setting}: {address} is any free port, so nobody can know which; set a port")
    every = {"": "::1" if network == "tcp6" else "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    return every.get(host, host), port


def _split(address: str, setting: str) -> tuple[str, int]:
    match = _FORM.fullmatch(address)
    if match is None or int(match["port"]) > 65535:
        raise ConfigError(f"{setting}: {address[:80]!r} is not an address; write HOST:PORT, for example 0.0.0.0:9001")
    return match["v6"] or match["host"] or "", int(match["port"])


def _listen(host: str, port: int, network: str) -> socket.socket:
    found = socket.getaddrinfo(
        host or None, port, _FAMILIES[network], socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    if host:  # of a name's addresses the IPv4 one, as other servers of this kind do
        family, _, _, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    else:  # every interface: one socket for both families where the system can
        family, _, _, _, where = max(found, key=lambda entry: entry[0] == socket.AF_INET6)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(host) or network == "tcp6"))
        listener.bind(where)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _sentence(error: OSError, address: str, setting: str) -> str:
    if isinstance(error, socket.gaierror):
        return (
            f"{setting}: the host of {address} cannot be resolved ({error.strerror}); use an IP address of this machine"
        )
    if error.errno == errno.EADDRINUSE:
        return f"{setting}: {address} is in use by another process; stop it or set another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{setting}: {address} is not an address of this machine; use 0.0.0.0 for every interface"
    if error.errno == errno.EACCES:
        return f"{setting}: this user may not listen on {address}; use a port from 1024 on"
    return f"{setting}: cannot listen on {address}: {os.strerror(error.errno or 0)}"
