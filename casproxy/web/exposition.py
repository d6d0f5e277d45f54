"""Owns ``/metrics``: the scrape over HTTP. Refuses to know what is counted."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from casproxy.observe.metrics import Metrics
from casproxy.web.asgi import Page, Request, Response


def metrics_pages(metrics: Metrics) -> Mapping[str, Page]:
    """The page by path: Prometheus text, or OpenMetrics when the ``Accept`` header asks for it."""

    def exposition(request: Request) -> Response:
        body, content_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(HTTPStatus.OK, body, content_type)

    return {"/metrics": exposition}
