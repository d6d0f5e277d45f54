"""How a command ends that is not left alone: signals, a closed pipe, a terminal, a server with TLS."""

from __future__ import annotations

import datetime
import ipaddress
import os
import pty
import signal
import ssl
import subprocess
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from casproxy.digest import Digest
from casproxy.rpc.server import Server
from casproxy_tests.cli.command import PROGRAM, casproxy, watched, write_dev_file
from casproxy_tests.fakes.artifact_server import READ_PIECE, ArtifactServer, serve


@pytest.mark.parametrize(
    ("number", "code", "text"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
async def test_a_signal_ends_a_download_without_a_trace(
    tmp_path: Path, number: signal.Signals, code: int, text: str
) -> None:
    server = ArtifactServer(stall=True)
    digest = server.put("n", bytes(3 * READ_PIECE))
    async with serve(server) as address:
        write_dev_file(tmp_path, address)
        process = await trio.lowlevel.open_process(
            [*PROGRAM, "download", digest], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        async with process.stdout, process.stderr:
            await server.reading.wait()
            process.send_signal(number)
            assert await process.wait() == code
            assert b"".join([part async for part in process.stderr]) == f"casproxy: {text}\n".encode()
    assert os.listdir(tmp_path) == [".casproxy"]


async def test_a_reader_that_leaves_is_no_error_worth_a_word(tmp_path: Path) -> None:
    server = ArtifactServer()
    digest = server.put("n", bytes(8 * READ_PIECE))
    async with serve(server) as address:
        write_dev_file(tmp_path, address)
        reader, writer = os.pipe()
        try:
            process = await trio.lowlevel.open_process(
                [*PROGRAM, "download", digest, "-o", "-"], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE
            )
        finally:
            os.close(writer)
            os.close(reader)
        assert process.stderr is not None
        async with process.stderr:
            assert await process.wait() == 141
            assert b"".join([part async for part in process.stderr]) == b""


@pytest.mark.parametrize(
    ("unbuffered", "command"),
    [
        ("", ("--help",)),
        ("1", ("--help",)),
        ("1", ("--version",)),
        ("", ("config", "schema")),
        ("", ("dev", "--grpc-port=0", "--http-port=0", "--metrics-port=0")),
    ],
)
def test_no_command_has_a_word_for_a_reader_that_left(
    tmp_path: Path, unbuffered: str, command: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*PROGRAM, *command],
            cwd=tmp_path,
            stdout=writer,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_nor_for_one_who_does_not_want_to_know_what_failed(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([*PROGRAM, "upload", "missing"], cwd=tmp_path, stderr=writer, check=False)
    finally:
        os.close(writer)
    assert done.returncode == 141


async def test_a_terminal_sees_a_bar_on_stderr_and_stdout_stays_clean(tmp_path: Path) -> None:
    (tmp_path / "[red]big[b]").write_bytes(content := bytes(4 * READ_PIECE))
    out, shown = await upload_at_a_terminal(tmp_path, "[red]big[b]", env=watched(COLUMNS="120"))
    assert out == f"{Digest.of(content)}  [red]big[b]\n"
    assert b"uploading [red]big[b]" in shown
    assert b"4.2/4.2 MB" in shown or b"4.0/4.0 MiB" in shown


async def test_a_terminal_sees_a_bar_for_each_of_many(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    out, shown = await upload_at_a_terminal(tmp_path, "a", "b", "c", env=watched(COLUMNS="120"))
    assert out == "".join(f"{Digest.of(name.encode())}  {name}\n" for name in "abc")
    assert all(b"uploading " + name in shown for name in (b"a", b"b", b"c"))


@pytest.mark.parametrize("quiet", [{"CI": "true"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
async def test_a_terminal_that_nobody_watches_sees_nothing(tmp_path: Path, quiet: dict[str, str]) -> None:
    (tmp_path / "f").write_bytes(b"content")
    out, shown = await upload_at_a_terminal(tmp_path, "f", env=watched() | quiet | {"FORCE_COLOR": "1"})
    assert out == f"{Digest.of(b'content')}  f\n"
    assert shown == b""


async def upload_at_a_terminal(cwd: Path, *files: str, env: dict[str, str]) -> tuple[str, bytes]:
    """Run ``casproxy upload`` with a terminal as stderr; returns stdout, and what the terminal was sent."""
    async with serve(ArtifactServer()) as address:
        write_dev_file(cwd, address)
        terminal, end = pty.openpty()
        try:
            try:
                process = await trio.lowlevel.open_process(
                    [*PROGRAM, "upload", *files], cwd=cwd, stdout=subprocess.PIPE, stderr=end, env=env
                )
            finally:
                os.close(end)
            assert process.stdout is not None
            async with process.stdout, trio.open_nursery() as nursery:
                shown: list[bytes] = []
                nursery.start_soon(_read_terminal, terminal, shown)
                out = b"".join([part async for part in process.stdout])
                assert await process.wait() == 0
        finally:
            os.close(terminal)
    return out.decode(), b"".join(shown)


async def _read_terminal(terminal: int, shown: list[bytes]) -> None:
    while True:
        try:
            shown.append(await trio.to_thread.run_sync(os.read, terminal, 65536))
        except OSError:  # EIO: the last writer has closed its end
            return


def _certificate(directory: Path) -> ssl.SSLContext:
    """A server's context for 127.0.0.1; its certificate, its own CA, is ``ca.pem`` in ``directory``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "ca.pem", directory / "key.pem")
    context.set_alpn_protocols(["h2"])
    return context


async def test_tls_is_checked_and_each_trouble_says_what_to_do(tmp_path: Path) -> None:
    context = _certificate(tmp_path)
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        server = Server(ArtifactServer().methods())
        await nursery.start(server.serve, [trio.SSLListener(listener, context)])
        good = await casproxy("status", "--addr", address, "--ca", tmp_path / "ca.pem")
        untrusted = await casproxy("status", "--addr", address)
        nursery.cancel_scope.cancel()
    assert good.code == 0, good
    assert "is not trusted" in (line := untrusted.error(1))
    assert line.endswith("name its CA with --ca FILE")
    async with serve(ArtifactServer()) as plain:
        line = (await casproxy("status", "--addr", plain)).error(1)
    assert "--insecure" in line
