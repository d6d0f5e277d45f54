"""Every exception is one harmless line on stderr and the exit code of its table."""

from __future__ import annotations

import errno
import signal
import ssl
from pathlib import Path

import pytest

from casproxy import errors
from casproxy.cli.errors import Terminated, explain, primary, report
from casproxy.cli.parser import UsageError
from casproxy.client.errors import SourceChanged, TargetExists
from casproxy.digest import EMPTY_DIGEST
from casproxy.rpc.errors import RpcError
from casproxy.wire.status import StatusCode

HEX = EMPTY_DIGEST.hex


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (errors.InvalidDigest("x"), 2),
        (errors.ConfigError("x"), 1),
        (errors.ArtifactNotFound(HEX), 3),
        (errors.BackendNotFound("x"), 3),
        (errors.AuthError("x"), 4),
        (errors.ArtifactCorrupt(got="a", want="b"), 5),
        (errors.DigestMismatch(got="a", want="b"), 5),
        (errors.StorageFull("x"), 1),
        (SourceChanged("x"), 5),
        (TargetExists(Path("x")), 1),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), 1),
        (KeyboardInterrupt(), 130),
        (Terminated(signal.SIGINT), 130),
        (Terminated(signal.SIGTERM), 143),
        (RuntimeError("x"), 1),
    ],
)
def test_the_exit_code_of_each_error(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(error) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("casproxy: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("status", [code for code in StatusCode if code is not StatusCode.OK])
def test_the_exit_code_of_each_status(status: StatusCode) -> None:
    wanted = {
        StatusCode.NOT_FOUND: 3,
        StatusCode.UNAUTHENTICATED: 4,
        StatusCode.PERMISSION_DENIED: 4,
        StatusCode.DATA_LOSS: 5,
    }
    code, text = explain(RpcError(status, "the reason"))
    assert code == wanted.get(status, 1)
    assert text.startswith(f"the reason ({status.name})")


def test_a_status_without_a_text() -> None:
    assert explain(RpcError(StatusCode.INTERNAL))[1] == "the server gave no reason (INTERNAL)"


def test_a_server_s_text_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report(RpcError(StatusCode.INTERNAL, "x\x1b[2J\ncasproxy: all is well" + "y" * 10_000))
    captured = capsys.readouterr().err
    assert captured.startswith("casproxy: x\\x1b[2J\\ncasproxy: all is well")
    assert captured.count("\n") == 1
    assert len(captured) < 2100


def test_tls_trouble_says_what_to_do() -> None:
    refused = RpcError(StatusCode.UNAVAILABLE, "cannot connect")
    refused.__cause__ = OSError("broken")
    refused.__cause__.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    assert "--ca" in explain(refused)[1]
    assert "--insecure" in explain(ssl.SSLError(1, "wrong version number"))[1]
    asked = ssl.SSLError(1, "alert")
    asked.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert explain(asked)[1].startswith("the server asks for a client certificate; give one with --cert")
    asked.reason = "SSLV3_ALERT_HANDSHAKE_FAILURE"
    assert explain(asked)[1].startswith("the server ended the TLS handshake: it may ask for a client certificate")


def test_of_a_group_the_interrupt_counts_else_the_first() -> None:
    first, interrupt = ValueError("first"), KeyboardInterrupt()
    assert primary(ExceptionGroup("", [ExceptionGroup("", [first]), OSError()])) is first
    assert primary(BaseExceptionGroup("", [first, BaseExceptionGroup("", [interrupt])])) is interrupt


def test_the_traceback_is_for_those_who_ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CASPROXY_DEBUG", raising=False)
    report(RuntimeError("x"))
    assert "Traceback" not in (text := capsys.readouterr().err)
    assert "CASPROXY_DEBUG=1" in text
    monkeypatch.setenv("CASPROXY_DEBUG", "1")
    try:
        raise RuntimeError("x")
    except RuntimeError as error:
        report(error)
    assert "Traceback" in capsys.readouterr().err
