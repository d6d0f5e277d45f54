"""Owns which addresses this process may connect to for a tenant. Refuses to connect anywhere itself.

A tenant chooses host names, and so does whoever answers: realms, redirects, upload locations. So the rule is about
addresses, applied to each one a name resolves to, at the moment of the connection (``dial``)::

    always refused      unspecified, link-local, multicast, reserved, cloud metadata, our own listening ports
    refused unless in   everything else that is not public: loopback, RFC 1918, unique local, shared address space,
    ``outbound.allow``  the NAT64 prefix that a network chooses for itself
    allowed             public addresses

An IPv4 address inside an IPv6 one (mapped, 6to4, NAT64, Teredo) counts as that IPv4 address.

Source: the IANA special-purpose address registries, as ``ipaddress`` knows them; what it does not know yet in every
Python that this runs on is listed here.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final, TypeAlias

from casproxy.outbound.errors import AddressRefused

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

RFC1918: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
LOOPBACK: Final = ("127.0.0.0/8", "::1/128")

_NEVER: Final[tuple[IpNetwork, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # "this network": Linux connects 0.0.0.0 to loopback
        "::/128",
        "169.254.0.0/16",  # link-local, and most clouds' metadata: 169.254.169.254, 169.254.170.2
        "fe80::/10",
        "fec0::/10",  # site-local: deprecated (RFC 3879), still routed in places
        "224.0.0.0/4",
        "ff00::/8",
        "240.0.0.0/4",
        "fd00:ec2::/32",  # AWS: metadata, DNS and time
        "fd20:ce::254/128",  # Google Cloud's metadata over IPv6
        "100.100.100.200/32",  # Alibaba Cloud's metadata
        "192.0.0.192/32",  # Oracle Cloud's metadata, classic
        "168.63.129.16/32",  # Azure's host agent, at a public address
    )
)
_NOT_PUBLIC: Final[tuple[IpNetwork, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # IETF protocol assignments
        "64:ff9b:1::/48",  # NAT64 for local use (RFC 8215): where in it the IPv4 address is only its network knows
        "3fff::/20",  # documentation (RFC 9637)
        "5f00::/16",  # segment routing (RFC 9602)
    )
)
_NAT64: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


class Guard:
    """The rule above. ``allow``: networks beyond the public ones. ``own_ports``: where this process listens."""

    def __init__(self, allow: Iterable[str] = RFC1918, own_ports: Iterable[int] = ()) -> None:
        self._allow = tuple(ipaddress.ip_network(text) for text in allow)
        self._own_ports = frozenset(own_ports)

    def check(self, address: str, port: int) -> None:
        """Raise ``AddressRefused`` unless a connection to ``address`` (numeric) and ``port`` is allowed."""
        outside = ipaddress.ip_address(address.partition("%")[0])
        ip = _unwrapped(outside)
        if _within(ip, _NEVER):
            raise AddressRefused("an address that is never connected to (link-local, metadata, reserved)")
        for one, is_public in ((outside, not _within(outside, _NOT_PUBLIC)), (ip, ip.is_global)):
            if not is_public and not _within(one, self._allow):
                raise AddressRefused("a private address that outbound.allow does not name")
        if port in self._own_ports and _is_ours(ip):
            raise AddressRefused("a port of this process itself")


def _within(ip: IpAddress, networks: Iterable[IpNetwork]) -> bool:
    return any(ip.version == network.version and ip in network for network in networks)


def _unwrapped(ip: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv6 address leads to, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if any(ip in network for network in _NAT64):
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    teredo = ip.teredo[1] if ip.teredo else None
    compatible = ipaddress.IPv4Address(int(ip)) if 1 < int(ip) <= 0xFFFF_FFFF else None  # ::a.b.c.d, RFC 4291 2.5.5.1
    return ip.ipv4_mapped or ip.sixtofour or teredo or compatible or ip


def _is_ours(ip: IpAddress) -> bool:
    """Whether this machine has the address. The kernel answers from its routes; connecting UDP sends nothing."""
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(ip), 9))
        except OSError:
            return False
        return ip.is_loopback or ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]) == ip
