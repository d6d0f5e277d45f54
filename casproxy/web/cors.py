"""Owns which pages of other origins may read our answers. Source: the Fetch standard, section 3.2 (CORS protocol).

Refuses to know what is answered. Credentials in the sense of the standard (cookies) do not exist here: a token comes in
the URL or in a header that the calling page sets itself, so ``*`` is safe wherever an operator wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from casproxy.web.asgi import Response

Headers = list[tuple[str, str]]

_EXPOSED = "Content-Disposition, ETag, Repr-Digest"
_METHODS = "GET, HEAD, OPTIONS"
_ALLOWED_HEADERS = "Authorization, Content-Type"
_MAX_AGE_SECONDS = "86400"


class Cors:
    """The policy of one server. ``allow_origins``: exact origins, or ``*``; empty: no page of another origin."""

    def __init__(self, allow_origins: Sequence[str]) -> None:
        self._everyone = "*" in allow_origins
        self._origins = frozenset(allow_origins)

    def headers(self, origin: str) -> Headers:
        """What every answer to ``origin`` carries; ``""`` when the request named none."""
        if not self._origins:
            return []
        varies = [("vary", "Origin")]
        if not self._permits(origin):
            return varies
        return [
            *varies,
            ("access-control-allow-origin", "*" if self._everyone else origin),
            ("access-control-expose-headers", _EXPOSED),
        ]

    def preflight(self, origin: str) -> Response:
        """The answer to OPTIONS, beside ``headers``. An origin that may not call is told nothing and does not call."""
        told = []
        if self._permits(origin):
            told = [
                ("access-control-allow-methods", _METHODS),
                ("access-control-allow-headers", _ALLOWED_HEADERS),
                ("access-control-max-age", _MAX_AGE_SECONDS),
            ]
        return Response(HTTPStatus.NO_CONTENT, headers=[("allow", _METHODS), *told])

    def _permits(self, origin: str) -> bool:
        return bool(origin) and (self._everyone or origin in self._origins)
