"""Owns ``/infoz`` and ``/statusz``, HTTP twins of ``cas.v1.StatusService``. Refuses to know what readiness means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

from casproxy.web.asgi import Page, Request, Response, error_response, json_response

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False", ""})


def status_pages(
    *, version: str, chart_version: str, backends: Sequence[str], not_ready: Callable[[], str]
) -> Mapping[str, Page]:
    """The pages by path.

    ``not_ready`` says in a few words why this process should get no traffic, ``""`` when it should.
    """
    info = {"version": version, "backends": sorted(backends), "chartVersion": chart_version}

    def infoz(_request: Request) -> Response:
        return json_response(HTTPStatus.OK, info)

    def statusz(request: Request) -> Response:
        wanted = request.query.get("readiness", "")
        if wanted not in _TRUE | _FALSE:
            return error_response(HTTPStatus.BAD_REQUEST, "CODEC", "readiness must be true or false")
        reason = not_ready() if wanted in _TRUE else ""
        if reason:
            return error_response(HTTPStatus.SERVICE_UNAVAILABLE, "NOT_READY", f"not ready: {reason}")
        return json_response(HTTPStatus.OK, {})

    return {"/infoz": infoz, "/statusz": statusz}
