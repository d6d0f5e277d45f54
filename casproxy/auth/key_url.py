"""Owns keys that a server publishes: fetching its JWK Set over HTTP. Refuses to know when to fetch.

The operator names the address, so it may be in any network; keys from there are believed, and nothing more: no redirect
is followed, nothing is decompressed, and a body may have ``MAX_DOCUMENT`` bytes. The query of an address may hold a
password, so no text of ours repeats it.
"""

from __future__ import annotations

import ssl
from typing import Final

import structlog

from casproxy import __version__
from casproxy.auth.jwks import parse_jwks
from casproxy.auth.key_parts import Reading
from casproxy.auth.keys import MAX_DOCUMENT, VerificationKey
from casproxy.errors import ConfigError
from casproxy.outbound.address import InvalidUrl, Url
from casproxy.outbound.connection import Connection, Response
from casproxy.outbound.dial import guarded_dial
from casproxy.outbound.errors import OutboundError
from casproxy.outbound.guard import Guard
from casproxy.outbound.message import Request, Timeouts

_HEADERS: Final = (
    ("Accept", "application/jwk-set+json, application/json"),
    ("User-Agent", f"casproxy/{__version__}"),
    ("Connection", "close"),  # minutes pass until the next fetch
)
_EVERYWHERE: Final = ("0.0.0.0/0", "::/0")
_TIMEOUTS: Final = Timeouts(connect=10.0, write=10.0, answer=10.0, read=10.0)

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
        self._url = _parse(url, setting)
        self._shown = str(self._url).partition("?")[0]
        self._dial = guarded_dial(Guard(_EVERYWHERE), tls or ssl.create_default_context(), timeout=_TIMEOUTS.connect)
        self._document: bytes | None = None
        self._keys: tuple[VerificationKey, ...] = ()

    async def read(self) -> Reading:
        """See ``KeyPart.read``. Each phase of the exchange has its time; the caller bounds them together."""
        try:
            document = await self._fetch()
            if document != self._document:
                self._keys = parse_jwks(document, origin=self._shown)
                self._document = document
        except OutboundError as error:
            return Reading(self._keys, f"cannot fetch {self._shown}: {error}")
        except ConfigError as error:
            return Reading(self._keys, str(error))
        return Reading(self._keys)

    async def _fetch(self) -> bytes:
        connection = Connection(await self._dial(self._url.origin), self._url.origin, _TIMEOUTS)
        try:
            response = await connection.exchange(Request("GET", self._url, _HEADERS))
            self._require_success(response)
            return await response.read(MAX_DOCUMENT)
        finally:
            connection.close()

    def _require_success(self, response: Response) -> None:
        if 300 <= response.status < 400:
            raise ConfigError(
                f"cannot fetch {self._shown}: it redirects, which is not followed; name the final address"
            )
        if response.status != 200:
            raise ConfigError(f"cannot fetch {self._shown}: the server answered {response.status}")


def _parse(text: str, setting: str) -> Url:
    try:
        url = Url.parse(text)
    except InvalidUrl as error:
        raise ConfigError(f"{setting} is no address of a document ({error}): want https://HOST[:PORT]/PATH") from error
    if not url.origin.secure:
        log.warning("keys_over_cleartext", setting=setting, advice="who is between can replace the keys: use https")
    return url
