"""Owns ``/metrics``: the scrape over HTTP. Refuses to know what is counted."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

from casproxy.web.asgi import Page, Request, Response


class Exposed(Protocol):
    """What can be scraped: ``observe.metrics.Metrics``, or those of several processes."""

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The scrape and its content type, as the ``Accept`` header asks for it."""


def metrics_pages(metrics: Exposed) -> Mapping[str, Page]:
    """The page by path: Prometheus text, or OpenMetrics when the ``Accept`` header asks for it."""

    def exposition(request: Request) -> Response:
        body, content_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(HTTPStatus.OK, body, content_type)

    return {"/metrics": exposition}
