"""Owns keys that a server publishes: fetching its JWK Set over HTTP. Refuses to know when to fetch.

The operator names the address, so keys from there are believed, and nothing more: no redirect is followed, nothing is
decompressed, a body may have ``MAX_DOCUMENT`` bytes, and certificates are checked against the system's store (the
variable ``SSL_CERT_FILE`` names another). Proxy variables and netrc are not read. The address may hold a password or a
query, which no text of ours repeats.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, cast
from urllib.parse import SplitResult, urlsplit

import httpx
import structlog

from casproxy import __version__
from casproxy.auth.jwks import parse_jwks
from casproxy.auth.key_parts import Reading
from casproxy.auth.keys import MAX_DOCUMENT, VerificationKey
from casproxy.errors import ConfigError

_HEADERS: Final = {
    "accept": "application/jwk-set+json, application/json",
    "accept-encoding": "identity",
    "user-agent": f"casproxy/{__version__}",
}


log = structlog.get_logger(__name__)


class KeyUrl:
    """A ``KeyPart`` over a JWK Set at ``url``. Its server may be down at start, when there are other keys."""

    needed_at_start = False

    def __init__(
        self, url: str, *, setting: str, every: float, max_stale: float, tls: ssl.SSLContext | None = None
    ) -> None:
        self.setting = setting
        self.every = every
        self.max_stale = max_stale
        self._url = url
        self._shown = _shown(url, setting)
        if url.startswith("http:"):
            log.warning("keys_over_cleartext", setting=setting, advice="who is between can replace the keys: use https")
        self._tls = tls or ssl.create_default_context()
        self._document: bytes | None = None
        self._keys: tuple[VerificationKey, ...] = ()

    async def read(self) -> Reading:
        """See ``KeyPart.read``. The caller sets the deadline."""
        try:
            document = await fetch(self._url, shown=self._shown, tls=self._tls)
            if document != self._document:
                self._keys = parse_jwks(document, origin=self._shown)
                self._document = document
        except ConfigError as error:
            return Reading(self._keys, str(error))
        return Reading(self._keys)


async def fetch(url: str, *, shown: str, tls: ssl.SSLContext) -> bytes:
    """The body of a 200 answer; ``ConfigError`` for everything else, which names the document as ``shown``."""
    try:
        async with (
            httpx.AsyncClient(verify=tls, trust_env=False, follow_redirects=False, timeout=None) as client,  # noqa: S113 (the caller's deadline)
            client.stream("GET", url, headers=_HEADERS) as response,
        ):
            _require_plain_success(response, shown)
            return await _body(response, shown)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigError(f"cannot fetch {shown}: {_reason(error)}") from error


def _require_plain_success(response: httpx.Response, shown: str) -> None:
    if response.is_redirect:
        raise ConfigError(f"cannot fetch {shown}: it redirects, which is not followed; name the final address")
    if response.status_code != httpx.codes.OK:
        raise ConfigError(f"cannot fetch {shown}: the server answered {response.status_code}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise ConfigError(f"cannot fetch {shown}: the answer is compressed although that was not asked for")


async def _body(response: httpx.Response, shown: str) -> bytes:
    body = bytearray()
    pieces = cast("AsyncGenerator[bytes]", response.aiter_raw())  # what it is, though its type promises less
    async with aclosing(pieces):
        async for piece in pieces:
            body += piece
            if len(body) > MAX_DOCUMENT:
                raise ConfigError(f"cannot fetch {shown}: the answer is larger than {MAX_DOCUMENT} bytes")
    return bytes(body)


def _reason(error: Exception) -> str:
    """The library's own text, unless it may quote the address."""
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return "the address is not one of http or https"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message})"
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def _shown(url: str, setting: str) -> str:
    """The address without user, password and query; ``ConfigError`` when it is none."""
    parts = _split(url, setting)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _split(url: str, setting: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise ConfigError(f"{setting} is no address of a document: want https://HOST[:PORT]/PATH")
