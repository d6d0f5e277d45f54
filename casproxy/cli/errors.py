"""Owns the translation of an exception to one line on stderr and an exit code. Refuses to know which command failed.

The tables below are the whole rule. With ``CASPROXY_DEBUG=1`` the traceback is printed as well.
"""

from __future__ import annotations

import os
import signal
import ssl
import sys
import traceback
from typing import TextIO

from casproxy import errors
from casproxy.cli.parser import UsageError
from casproxy.cli.text import printable

FAILED, USAGE, NOT_FOUND, UNAUTHENTICATED, INTEGRITY, INTERRUPTED, PIPE_CLOSED = 1, 2, 3, 4, 5, 130, 141
_MAX_LINE = 2000  # characters; a server's text may be longer, a terminal's patience is not

_BY_CLASS: tuple[tuple[type[BaseException], int], ...] = (  # the first that fits
    (UsageError, USAGE),
    (errors.DigestMismatch, INTEGRITY),
    (errors.ArtifactCorrupt, INTEGRITY),
    (errors.InvalidRequest, USAGE),
    (errors.ArtifactNotFound, NOT_FOUND),
    (errors.BackendNotFound, NOT_FOUND),
    (errors.AuthError, UNAUTHENTICATED),
)
_BY_STATUS = {
    "NOT_FOUND": (NOT_FOUND, ""),
    "UNAUTHENTICATED": (UNAUTHENTICATED, "; give a valid token with --token, --token-file or CASPROXY_TOKEN"),
    "PERMISSION_DENIED": (UNAUTHENTICATED, "; give a token that allows this"),
    "DATA_LOSS": (INTEGRITY, "; nothing was kept: the stored artifact is damaged, upload it again"),
    "DEADLINE_EXCEEDED": (FAILED, "; give more time with --timeout"),
    "UNAVAILABLE": (FAILED, "; check --addr and that the server is up, then try again"),
    "UNIMPLEMENTED": (FAILED, "; is this the gRPC port of a casproxy server?"),
}
_BY_ALERT = {
    "CERTIFICATE_REQUIRED": "the server asks for a client certificate; give one with --cert FILE and --key FILE",
    "HANDSHAKE_FAILURE": "the server ended the TLS handshake: it may ask for a client certificate; give one with "
    "--cert FILE and --key FILE",
    "UNKNOWN_CA": "the server does not trust the CA of this client's certificate; give another with --cert and --key",
    "CERTIFICATE_EXPIRED": "this client's certificate is not valid any more; give another one with --cert and --key",
}
"""TLS alerts about a client's certificate: RFC 8446, 6.2; TLS 1.2 has only the second for none (RFC 5246, 7.4.6)."""


class Terminated(Exception):
    """A signal ended the command; everything it had begun was undone. ``signal_number`` as in ``signal``."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted" if signal_number == signal.SIGINT else "terminated")
        self.signal_number = signal_number


def report(error: BaseException) -> int:
    """Print ``error``, and the notes that were added to it, on one line of stderr and return the exit code."""
    cause = primary(error)
    try:
        if os.environ.get("CASPROXY_DEBUG") == "1":
            traceback.print_exception(error)
        if isinstance(cause, BrokenPipeError):
            _silence(sys.stdout)
            return PIPE_CLOSED
        code, text = explain(cause)
        print_error("; ".join([text, *getattr(error, "__notes__", ())]))
    except BrokenPipeError:
        _silence(sys.stderr)
        return PIPE_CLOSED
    return code


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the sentence for one exception (not a group)."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, Terminated):
        return 128 + error.signal_number, str(error)
    for kind, code in _BY_CLASS:
        if isinstance(error, kind):
            return code, str(error)
    if _is(error, "casproxy.client.errors", "SourceChanged"):
        return INTEGRITY, str(error)
    if isinstance(error, errors.CasproxyError):
        return FAILED, str(error)
    if _is(error, "casproxy.rpc.errors", "RpcError"):
        return _explain_rpc(error)
    if isinstance(error, OSError):
        return FAILED, _explain_os_error(error)
    return FAILED, f"unexpected {type(error).__name__}: {error}; set CASPROXY_DEBUG=1 and please report the traceback"


def primary(error: BaseException) -> BaseException:
    """The exception to report of a group: an interrupt before an error, else the first one raised."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [primary(child) for child in error.exceptions]
    return next((leaf for leaf in leaves if not isinstance(leaf, Exception)), leaves[0])


def _is(error: BaseException, module: str, name: str) -> bool:
    """``isinstance`` without importing: when the class's module was never loaded, ``error`` is none of it."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(error, getattr(loaded, name))


def _explain_rpc(error: BaseException) -> tuple[int, str]:
    from casproxy.rpc.errors import RpcError

    assert isinstance(error, RpcError)  # noqa: S101  # narrowed by the caller
    if isinstance(reason := _root(error), ssl.SSLError):
        return FAILED, _explain_os_error(reason)
    code, advice = _BY_STATUS.get(error.code.name, (FAILED, ""))
    return code, f"{error.message or 'the server gave no reason'} ({error.code.name}){advice}"


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _explain_os_error(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = getattr(error, "verify_message", "") or error  # only OpenSSL's own errors have the attribute
        return f"the server's certificate is not trusted ({reason}); name its CA with --ca FILE"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", "") or error
        if (text := _BY_ALERT.get(str(reason).rpartition("ALERT_")[2])) is not None:
            return text
        return f"no TLS with this server ({reason}); for a server without TLS give --insecure"
    reason = error.strerror or str(error) or type(error).__name__
    names = " -> ".join(
        os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)
    )
    return f"{names}: {reason}" if names else reason


def print_error(text: str) -> None:
    """One line on stderr, harmless and not too long."""
    line = printable(f"casproxy: {text}")[:_MAX_LINE]
    encoding = sys.stderr.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)


def _silence(stream: TextIO) -> None:
    """Point ``stream`` at nothing, so that the interpreter's last flush cannot fail again (Python docs, SIGPIPE)."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, stream.fileno())
    finally:
        os.close(null)
