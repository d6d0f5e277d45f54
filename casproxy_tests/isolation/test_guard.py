"""The outbound guard refuses an address however it is spelled or resolved, before a socket is connected."""

from __future__ import annotations

import ipaddress
import itertools
import ssl

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from casproxy.outbound.address import InvalidUrl, Url
from casproxy.outbound.dial import guarded_dial
from casproxy.outbound.errors import AddressRefused, ConnectFailed
from casproxy.outbound.guard import LOOPBACK, RFC1918, Guard
from casproxy_tests.isolation.sockets import watched_sockets

METADATA = "169.254.169.254"
PUBLIC = "93.184.215.14"
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def spellings(address: str) -> list[str]:
    """Ways to write an IPv4 address that some resolver understands, as a URL's host."""
    number = int(ipaddress.IPv4Address(address))
    octets = [int(part) for part in address.split(".")]
    mapped = ipaddress.IPv6Address(0xFFFF << 32 | number)
    return [
        address,
        str(number),
        hex(number),
        f"0{number:o}",
        ".".join(f"0{octet:o}" for octet in octets),
        ".".join(hex(octet) for octet in octets),
        f"{octets[0]}.{number & 0xFFFFFF}",
        f"{octets[0]}.{octets[1]}.{number & 0xFFFF}",
        f"[::ffff:{address}]",
        f"[{mapped.compressed}]",
        f"[{mapped.exploded}]",
        f"[::{address}]",
        f"[64:ff9b::{address}]",
        f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::1]",
        f"{address}.",
    ]


FORBIDDEN = [
    *spellings(METADATA),
    *spellings("127.0.0.1"),
    *spellings("0.0.0.0"),
    *spellings("169.254.170.2"),
    *spellings("100.100.100.200"),
    *spellings("168.63.129.16"),
    *spellings("10.1.2.3"),
    *spellings("224.0.0.1"),
    *spellings("255.255.255.255"),
    *("[::1]", "[::]", "[fe80::1]", "[fd00:ec2::254]", "[fd20:ce::254]", "[fc00::1]", "[ff02::1]", "[fec0::1]"),
    *("127.1", "127.0.1", "0", "0x0", "localhost"),
]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", FORBIDDEN)
async def test_forbidden_however_it_is_spelled(host: str, scheme: str) -> None:
    dial = guarded_dial(Guard(allow=()), TLS)
    with watched_sockets() as sockets, pytest.raises((AddressRefused, InvalidUrl, ConnectFailed)) as caught:
        await dial(Url.parse(f"{scheme}://{host}:5000/v2/").origin)
    assert not sockets.addresses
    if isinstance(caught.value, ConnectFailed):
        assert "does not resolve" in str(caught.value)


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:a9fe:a9fe]", "2852039166", "[fd00:ec2::254]", "0.0.0.0"])
async def test_no_setting_allows_metadata(host: str) -> None:
    dial = guarded_dial(Guard(allow=("0.0.0.0/0", "::/0")), TLS)
    with watched_sockets() as sockets, pytest.raises(AddressRefused):
        await dial(Url.parse(f"http://{host}/latest/meta-data/").origin)
    assert not sockets.addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "[::ffff:127.0.0.1]", "[::1]", "127.0.0.53", "127.1"])
async def test_own_listeners_are_refused_even_where_loopback_is_allowed(host: str) -> None:
    guard = Guard(allow=(*RFC1918, *LOOPBACK), own_ports=(9001, 8001))
    dial = guarded_dial(guard, TLS)
    with watched_sockets() as sockets:
        for port in (9001, 8001):
            with pytest.raises(AddressRefused):
                await dial(Url.parse(f"http://{host}:{port}/").origin)
        assert not sockets.addresses
        with pytest.raises(ConnectFailed):
            await dial(Url.parse(f"http://{host}:5000/").origin)
        assert len(sockets.addresses) == 1


async def test_a_name_that_changes_its_mind_gains_nothing() -> None:
    """DNS rebinding: the address that was checked is the one that is connected to, and nobody asks again."""
    answers = itertools.chain([[PUBLIC]], itertools.repeat([METADATA]))
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        await trio.lowlevel.checkpoint()
        return next(answers)

    dial = guarded_dial(Guard(), TLS, resolve=resolve)
    origin = Url.parse("https://registry.example/").origin
    with watched_sockets() as sockets:
        with pytest.raises(ConnectFailed):
            await dial(origin)
        assert (asked, sockets.addresses) == (["registry.example"], [(PUBLIC, 443)])
        with pytest.raises(AddressRefused):
            await dial(origin)
        assert sockets.addresses == [(PUBLIC, 443)]


@pytest.mark.parametrize("answer", [[METADATA], ["::ffff:169.254.169.254"], ["fe80::1%eth0"], ["127.0.0.1", METADATA]])
async def test_a_name_that_leads_inside(answer: list[str]) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await trio.lowlevel.checkpoint()
        return answer

    dial = guarded_dial(Guard(), TLS, resolve=resolve)
    with watched_sockets() as sockets, pytest.raises(AddressRefused):
        await dial(Url.parse("http://metadata.google.internal/").origin)
    assert not sockets.addresses


async def test_of_many_addresses_only_the_allowed_are_tried() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await trio.lowlevel.checkpoint()
        return [METADATA, PUBLIC, "::1", "10.0.0.7", "::ffff:127.0.0.1"]

    dial = guarded_dial(Guard(), TLS, resolve=resolve)
    with watched_sockets() as sockets, pytest.raises(ConnectFailed):
        await dial(Url.parse("http://registry.example/").origin)
    assert sockets.addresses == [(PUBLIC, 80), ("10.0.0.7", 80)]


@pytest.mark.parametrize("address", ["64:ff9b:1:a00:1:100:808:808", "192.0.0.8", "3fff::1", "5f00::1"])
def test_what_not_every_python_knows_to_be_private(address: str) -> None:
    """The first leads to 10.0.0.1 where the network embeds addresses behind 48 bits (RFC 6052), and ends in 8.8.8.8."""
    with pytest.raises(AddressRefused):
        Guard(allow=RFC1918).check(address, 443)
    Guard(allow=(address,)).check(address, 443)


def test_a_nat64_of_ones_own_does_not_lead_to_metadata() -> None:
    own = Guard(allow=("64:ff9b:1::/48",))
    own.check(f"64:ff9b:1::{PUBLIC}", 443)
    with pytest.raises(AddressRefused):
        own.check(f"64:ff9b:1::{METADATA}", 443)


@given(st.ip_addresses())
def test_nothing_but_public_addresses_without_leave(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        Guard(allow=()).check(str(address), 443)
    except AddressRefused:
        return
    leads_to = address
    if isinstance(address, ipaddress.IPv6Address):  # whether its own kind is public depends on the Python
        teredo = address.teredo[1] if address.teredo else None
        leads_to = address.ipv4_mapped or address.sixtofour or teredo or address
    assert leads_to.is_global and not leads_to.is_multicast and not leads_to.is_link_local
