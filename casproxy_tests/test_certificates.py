"""A port's certificate: what is accepted, when a new one counts, that a broken one changes nothing, who may connect."""

from __future__ import annotations

import io
import itertools
import json
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from casproxy.certificates import CertificateFiles, ServedCertificate, open_certificate
from casproxy.errors import ConfigError
from casproxy.observe import log
from casproxy.tls import TlsStream
from casproxy_tests.real.certificates import Identity, client_context, new_authority, new_client, new_localhost
from casproxy_tests.real.projected import Projected

FIRST, SECOND = new_localhost(), new_localhost()
EVERY = 0.005


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    log.configure("debug", "json", out)
    yield out
    structlog.reset_defaults()


def told(lines: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in lines.getvalue().splitlines()]


def pair(certificate: Identity, key: Identity | None = None) -> dict[str, bytes]:
    return {"tls.crt": certificate.certificate_pem, "tls.key": (key or certificate).key_pem}


def files(mount: Projected, client_ca: Path | None = None) -> CertificateFiles:
    return CertificateFiles("server.grpc.tls_config", mount / "tls.crt", mount / "tls.key", client_ca)


@pytest.fixture
def mount(tmp_path: Path) -> Projected:
    return Projected(tmp_path / "server-certs", pair(FIRST))


def client(*, shows: tuple[Path, Path] | None = None, alpn: str = "h2") -> ssl.SSLContext:
    context = client_context()
    context.set_alpn_protocols([alpn])
    if shows is not None:
        context.load_cert_chain(*shows)
    return context


@asynccontextmanager
async def connected(served: ServedCertificate, context: ssl.SSLContext) -> AsyncIterator[tuple[TlsStream, TlsStream]]:
    """Both ends of a connection over TLS, the client's first."""
    near, far = trio.testing.memory_stream_pair()
    ours = TlsStream(near, context, server_hostname="localhost")
    theirs = TlsStream(far, served.context(), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.handshake)
        nursery.start_soon(theirs.handshake)
    yield ours, theirs


async def shown(served: ServedCertificate) -> int:
    """The serial number of the certificate that a new client sees."""
    async with connected(served, client()) as (ours, _):
        return serial(ours)


def serial(stream: TlsStream) -> int:
    der = stream._tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


async def until_shown(served: ServedCertificate, identity: Identity) -> None:
    with trio.fail_after(20):
        while await shown(served) != identity.certificate.serial_number:  # noqa: ASYNC110 - a file is looked at
            await trio.sleep(EVERY)


async def until_told(lines: io.StringIO, event: str) -> None:
    with trio.fail_after(20):
        while event not in told(lines):  # noqa: ASYNC110 - a log has no event
            await trio.sleep(EVERY)


async def test_a_new_pair_is_for_new_connections_and_the_old_ones_go_on(mount: Projected) -> None:
    async with open_certificate(files(mount), EVERY) as served, connected(served, client()) as (ours, theirs):
        assert serial(ours) == FIRST.certificate.serial_number
        mount.replace(pair(SECOND))
        await until_shown(served, SECOND)
        assert served.expires == SECOND.certificate.not_valid_after_utc.timestamp()
        await theirs.send_all(b"still here")
        assert await ours.receive_some() == b"still here"
        assert serial(ours) == FIRST.certificate.serial_number


@pytest.mark.parametrize(
    "broken",
    [
        pair(SECOND, FIRST),
        {"tls.crt": b"", "tls.key": b""},
        {"tls.crt": SECOND.certificate_pem[:200], "tls.key": SECOND.key_pem},
        {"tls.crt": SECOND.certificate_pem},
    ],
    ids=["another's key", "empty", "cut off", "no key"],
)
async def test_a_broken_pair_changes_nothing_and_is_said_once(
    broken: dict[str, bytes], mount: Projected, log_lines: io.StringIO
) -> None:
    async with open_certificate(files(mount), EVERY) as served:
        mount.replace(broken)
        await until_told(log_lines, "certificate_not_read")
        before = served.age
        for _ in range(5):
            assert await shown(served) == FIRST.certificate.serial_number
            await trio.sleep(EVERY)
        assert served.age > before
        assert told(log_lines) == ["certificate_not_read"]
        mount.replace(pair(SECOND))
        await until_shown(served, SECOND)
    warning = json.loads(log_lines.getvalue().splitlines()[0])
    assert warning["level"] == "warning"
    assert warning["reason"].startswith("server.grpc.tls_config: ") and "check" in warning["reason"]
    assert warning["still_served_until"].startswith(str(FIRST.certificate.not_valid_after_utc.date()))
    assert told(log_lines) == ["certificate_not_read", "certificate_changed"]


async def test_a_pair_that_comes_back_is_said_too(mount: Projected, log_lines: io.StringIO) -> None:
    old = mount / "tls.key"
    async with open_certificate(files(mount), EVERY) as served:
        aside = old.rename(old.with_name("aside"))
        await until_told(log_lines, "certificate_not_read")
        aside.rename(old)
        await until_told(log_lines, "certificate_read_again")
        assert served.age < 20
        assert await shown(served) == FIRST.certificate.serial_number


async def test_a_pair_that_is_being_written_is_no_fault(
    tmp_path: Path, log_lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files that are written one after the other do not fit for a moment: a second look tells."""
    asked, granted, look = threading.Semaphore(0), threading.Semaphore(1), CertificateFiles.signature

    def wait_and_look(self: CertificateFiles) -> tuple[object, ...]:
        asked.release()
        granted.acquire(timeout=20)
        return look(self)

    async def next_look_waits() -> None:
        assert await trio.to_thread.run_sync(asked.acquire, True, 20)

    monkeypatch.setattr(CertificateFiles, "signature", wait_and_look)
    plain = CertificateFiles("s", tmp_path / "tls.crt", tmp_path / "tls.key")
    plain.certificate.write_bytes(FIRST.certificate_pem)
    plain.private_key.write_bytes(FIRST.key_pem)
    async with open_certificate(plain, EVERY) as served:
        await next_look_waits()  # the one at the start
        for path, data in ((plain.certificate, SECOND.certificate_pem), (plain.private_key, SECOND.key_pem)):
            await next_look_waits()
            assert await shown(served) == FIRST.certificate.serial_number
            path.write_bytes(data)
            granted.release()
        await next_look_waits()  # whether they changed while it read them
        granted.release()
        await next_look_waits()
        assert await shown(served) == SECOND.certificate.serial_number
        granted.release()
    assert told(log_lines) == ["certificate_changed"]


async def test_clients_without_a_certificate_of_the_right_ca_are_refused(mount: Projected, tmp_path: Path) -> None:
    cas = {"ours": new_authority("clients"), "strangers": new_authority("strangers")}
    (tmp_path / "clients.pem").write_bytes(cas["ours"].certificate_pem)

    def shows(ca: str) -> tuple[Path, Path]:
        identity, paths = new_client("uploader", cas[ca]), (tmp_path / f"{ca}.crt", tmp_path / f"{ca}.key")
        paths[0].write_bytes(identity.certificate_pem)
        paths[1].write_bytes(identity.key_pem)
        return paths

    async with open_certificate(files(mount, tmp_path / "clients.pem"), EVERY) as served:
        async with connected(served, client(shows=shows("ours"))) as (ours, theirs):
            await theirs.send_all(b"come in")
            assert await ours.receive_some() == b"come in"
        for refused in (client(), client(shows=shows("strangers"))):
            with pytest.RaisesGroup(trio.BrokenResourceError):
                async with connected(served, refused):
                    pass


@pytest.mark.parametrize(
    ("version", "accepted"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
async def test_versions(mount: Projected, version: ssl.TLSVersion, accepted: bool) -> None:
    context = client()
    if version < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = version
    else:
        context.minimum_version = context.maximum_version = version
    async with open_certificate(files(mount)) as served:
        if accepted:
            async with connected(served, context) as (ours, _):
                assert ours._tls.version() == version.name.replace("_", ".")
                assert ours.alpn == "h2"
                cipher = ours._tls.cipher()
                assert cipher is not None and ("GCM" in cipher[0] or "CHACHA20" in cipher[0])
        else:
            with pytest.raises(ExceptionGroup) as refused:
                async with connected(served, context):
                    pass
            assert refused.group_contains(trio.BrokenResourceError, match="UNSUPPORTED_PROTOCOL")


def encrypted() -> bytes:
    return FIRST.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pair(FIRST, SECOND), "check that they belong together"),
        ({"tls.crt": FIRST.certificate_pem, "tls.key": encrypted()}, "has no passphrase"),
        ({"tls.crt": FIRST.certificate_pem}, "check the paths and their permissions"),
    ],
    ids=["another's key", "encrypted", "missing"],
)
async def test_a_start_without_a_usable_pair_is_refused(content: dict[str, bytes], says: str, tmp_path: Path) -> None:
    mount = Projected(tmp_path / "certs", content)
    with pytest.raises(ConfigError, match=rf"^server\.grpc\.tls_config: .*{says}"):
        async with open_certificate(files(mount)):
            pass


async def test_a_start_without_the_clients_cas_is_refused(mount: Projected, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    for path in (tmp_path / "empty.pem", tmp_path / "none.pem"):
        with pytest.raises(
            ConfigError, match=r"^server\.grpc\.tls_config\.client_ca_file: cannot use .*name a PEM file"
        ):
            async with open_certificate(files(mount, path)):
                pass


async def test_what_nobody_foresaw_ends_no_server(
    mount: Projected, log_lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_files: CertificateFiles) -> ssl.SSLContext:
        raise RuntimeError

    async with open_certificate(files(mount), EVERY) as served:
        monkeypatch.setattr(CertificateFiles, "load", fail)
        mount.replace(pair(SECOND))
        await until_told(log_lines, "certificate_not_read")
        assert await shown(served) == FIRST.certificate.serial_number
    assert "unexpected RuntimeError" in log_lines.getvalue()


async def test_a_pair_that_is_swapped_while_it_is_read_is_one_change(
    mount: Projected, log_lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look that began before the swap must not keep the new pair under the old files' signature."""
    load, loads = CertificateFiles.load, itertools.count()

    def swap_and_load(self: CertificateFiles) -> ssl.SSLContext:
        if next(loads) == 1:
            mount.replace(pair(SECOND))
        return load(self)

    monkeypatch.setattr(CertificateFiles, "load", swap_and_load)
    async with open_certificate(files(mount), EVERY) as served:
        mount.replace(pair(FIRST))  # the same pair in other files: a reason to look
        await until_shown(served, SECOND)
        await until_told(log_lines, "certificate_changed")
        for _ in range(5):
            await shown(served)
            await trio.sleep(EVERY)
    assert told(log_lines) == ["certificate_changed"]
