"""Owns the page for people: its files, as they are in ``static/``, and the numbers of its status strip.

Everything is served from this origin and nothing runs inline, so the policy below can be strict. The page holds a token
in memory only and sends it in a header; it is not for other origins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib.resources import files

from casproxy.web.asgi import Page, Request, Response, json_response

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ("cache-control", "no-cache"),
]
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/ui/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/ui/format.js": ("format.js", "text/javascript; charset=utf-8"),
    "/ui/transfer.js": ("transfer.js", "text/javascript; charset=utf-8"),
    "/ui/hash-worker.js": ("hash-worker.js", "text/javascript; charset=utf-8"),
    "/ui/sha256.js": ("sha256.js", "text/javascript; charset=utf-8"),
    "/ui/style.css": ("style.css", "text/css; charset=utf-8"),
    "/ui/icon.svg": ("icon.svg", "image/svg+xml"),
}


def ui_pages(activity: Callable[[], Mapping[str, object]]) -> Mapping[str, Page]:
    """The pages by path. ``activity``: what the status strip shows, asked for about once a second."""
    pages = {path: _file(name, content_type) for path, (name, content_type) in _FILES.items()}

    def numbers(_request: Request) -> Response:
        return json_response(HTTPStatus.OK, activity())

    return {**pages, "/ui/activity.json": numbers}


def _file(name: str, content_type: str) -> Page:
    body = files("casproxy.web").joinpath("static", name).read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = [*_HEADERS, ("etag", tag)]

    def page(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(HTTPStatus.OK, body, content_type, headers)

    return page
