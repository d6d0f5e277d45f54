"""Opening ports: what works, and what a user reads when it does not."""

from __future__ import annotations

import socket

import pytest

from casproxy.errors import ConfigError
from casproxy.listen import address_of, open_port


def test_port_zero_takes_a_free_port_that_listens() -> None:
    with (
        open_port("127.0.0.1:0", setting="x") as listener,
        socket.create_connection(listener.getsockname(), timeout=5) as client,
    ):
        assert address_of(listener) == f"127.0.0.1:{client.getpeername()[1]}"


def test_a_port_in_use_is_one_line_that_says_what_to_do() -> None:
    with open_port("127.0.0.1:0", setting="x") as taken:
        with pytest.raises(ConfigError) as error:
            open_port(address_of(taken), setting="server.grpc.addr")
        assert str(error.value) == (
            f"server.grpc.addr: {address_of(taken)} is in use by another process; stop it or set another port"
        )


def test_next_free_holds_the_port_it_found() -> None:
    with (
        open_port("127.0.0.1:0", setting="x") as taken,
        open_port(address_of(taken), setting="x", next_free=True) as second,
    ):
        assert second.getsockname()[1] > taken.getsockname()[1]
        with pytest.raises(ConfigError, match="in use"):
            open_port(address_of(second), setting="x")


def test_an_empty_host_is_every_interface() -> None:
    with open_port(":0", setting="x") as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            assert client.getpeername()[1] == port


def test_ipv6_addresses_are_written_in_brackets() -> None:
    try:
        listener = open_port("[::1]:0", setting="x")
    except ConfigError:
        pytest.skip("this machine has no IPv6 loopback")
    with listener:
        assert address_of(listener) == f"[::1]:{listener.getsockname()[1]}"


@pytest.mark.parametrize("address", ["9001", "localhost", "1.2.3.4:", "1.2.3.4:99999", "::1:9001", "a b:1x"])
def test_nonsense_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.http\.addr.*write HOST:PORT"):
        open_port(address, setting="server.http.addr")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="not an address of this machine"):
        open_port("192.0.2.1:0", setting="x")  # TEST-NET-1, RFC 5737
