"""The store: what each place adds, what replaces what, what is left out, and the file that is none."""

from __future__ import annotations

import io
import os
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from casproxy.errors import ConfigError
from casproxy.observe import log
from casproxy.trust import Places, TrustStore, open_trust
from casproxy_tests.cas import machines_environment
from casproxy_tests.real.certificates import new_authority
from casproxy_tests.trust.places import PLACES, Machine, machine

OURS, STRANGER, THIRD = (new_authority(name) for name in ("ours", "a stranger", "a third"))


@pytest.fixture
def strangers(tmp_path: Path) -> Machine:
    return machine(tmp_path, STRANGER.certificate_pem)


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    log.configure("debug", "json", out)
    yield out
    structlog.reset_defaults()


def believed(trust: TrustStore) -> set[str]:
    """Names of the CAs."""
    return {_name(ca["subject"]) for ca in trust.context().get_ca_certs()}


def _name(subject: Any) -> str:
    """The most particular part: the common name, where there is one."""
    return str(subject[-1][0][1])


@pytest.mark.parametrize(
    ("place", "names"),
    [
        (place, {"ours"} if place == "SSL_CERT_FILE" else {"a stranger", "ours"})  # which replaces the system's file
        for place in PLACES
    ],
)
def test_each_place_adds_but_the_variables_replace(
    place: str, names: set[str], strangers: Machine, tmp_path: Path
) -> None:
    with PLACES[place](strangers, tmp_path, OURS.certificate_pem).open() as trust:
        assert believed(trust) == names
        context = trust.context("http/1.1")
        assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_directory_variable_replaces_the_systems_directory(strangers: Machine, tmp_path: Path) -> None:
    with_directory = PLACES["the system's directory"](strangers, tmp_path, THIRD.certificate_pem)
    replaced = PLACES["SSL_CERT_DIR"](with_directory, tmp_path, OURS.certificate_pem)
    with replaced.open() as trust:
        assert believed(trust) == {"a stranger", "ours"}


def test_the_mount_and_the_setting_count_whatever_the_variables_say(strangers: Machine, tmp_path: Path) -> None:
    both = PLACES["the chart's mount"](strangers, tmp_path, OURS.certificate_pem)
    both = PLACES["outbound.ca_file"](both, tmp_path, THIRD.certificate_pem)
    with replace(both, environ={"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": "/nowhere"}).open() as trust:
        assert believed(trust) == {"ours", "a third"}


def test_a_machine_without_cas_gets_the_public_ones(tmp_path: Path, log_lines: io.StringIO) -> None:
    nothing = Machine(Places((tmp_path / "none",), tmp_path / "none", tmp_path / "none"), {})
    with nothing.open() as trust:
        assert len(believed(trust)) > 100
    assert "no_system_cas" in log_lines.getvalue()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_whoever_asks_for_no_ca_gets_none(variable: str, tmp_path: Path, log_lines: io.StringIO) -> None:
    """A variable that leads nowhere is said in the log: nobody sets it in order to believe nobody."""
    nothing = Machine(Places((), tmp_path / "none", tmp_path / "none"), {variable: str(tmp_path / "typo")})
    with nothing.open() as trust:
        assert believed(trust) == set()
        assert trust.pem == b""
    assert "cas_not_found" in log_lines.getvalue() and variable in log_lines.getvalue()


def test_what_is_no_certificate_is_left_out(strangers: Machine, tmp_path: Path) -> None:
    broken = OURS.certificate_pem.replace(b"MII", b"AAA", 1)
    mixed = b"# ours\n" + broken + OURS.key_pem + OURS.certificate_pem * 2 + b"-----BEGIN CERTIFICATE-----\n"
    with PLACES["the chart's mount"](strangers, tmp_path, mixed).open() as trust:
        assert believed(trust) == {"a stranger", "ours"}
        assert trust.pem.count(b"BEGIN CERTIFICATE") == 2
        assert b"PRIVATE KEY" not in trust.pem


@pytest.mark.parametrize("content", [b"", b"not PEM", OURS.key_pem, None], ids=["empty", "text", "a key", "missing"])
def test_a_setting_without_a_ca_stops_the_start(content: bytes | None, strangers: Machine, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    refused = pytest.raises(ConfigError, match=r"^outbound\.ca_file: no certificate in .*ca\.pem.*; name a PEM file")
    with refused, replace(strangers, ca_file=path).open():
        pass


def test_the_bundle_is_a_file_that_nobody_can_find_later(strangers: Machine) -> None:
    with strangers.open() as trust:
        path = trust.bundle()
        assert trust.bundle() == path
        assert Path(path).read_bytes() == Path(path).read_bytes() == trust.pem
        assert ".pem" not in os.readlink(path) and "memfd" in os.readlink(path)
    assert not os.path.lexists(path)
    trust.close()


def test_this_machine_has_a_store() -> None:
    with open_trust(environ=machines_environment()) as trust:
        assert len(believed(trust)) > 50
