"""Owns the table of what the HTTP port serves, and puts its parts together: one place to look, to add a route.

=========================================  ==========================================================
``GET|HEAD /download/{digest}``            an artifact (``download``); pages of other origins may ask
``PUT /upload``, ``PUT /upload/{digest}``  a new artifact (``upload``), where switched on
``GET|HEAD /infoz``, ``/statusz``          what runs, whether it is ready (``status``)
``GET|HEAD /``, ``/ui/…``                  the page for people (``ui``), where switched on
=========================================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from casproxy.auth.verifier import Verifier
from casproxy.pipeline.api import Limits
from casproxy.pipeline.holding import Accounts
from casproxy.storage.api import BackendResolver
from casproxy.web.access import Access
from casproxy.web.activity import Activity
from casproxy.web.asgi import AsgiApp
from casproxy.web.cors import Cors
from casproxy.web.door import Route, door, page_route
from casproxy.web.download import Downloads
from casproxy.web.gate import Gate
from casproxy.web.observe import HttpMetrics, RequestLog, Watcher
from casproxy.web.status import status_pages
from casproxy.web.ui import ui_pages
from casproxy.web.upload import StagingArea, Uploads


@dataclass(frozen=True, slots=True)
class PortSettings:
    """What an operator decides; ``timeout`` in seconds, sizes in bytes."""

    timeout: float = 300.0
    allow_origins: Sequence[str] = ()
    uploads: bool = False
    ui: bool = False
    verify_resume: bool = True
    max_transfers: int = 1000
    max_header_bytes: int = 32 * 1024


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the port is built from. ``not_ready`` says why there should be no traffic, ``""`` when there should."""

    verifier: Verifier
    backends: BackendResolver
    limits: Limits
    accounts: Accounts
    staging: StagingArea
    registry: CollectorRegistry
    version: str
    chart_version: str
    not_ready: Callable[[], str]
    draining: Callable[[], bool]
    on_limit: Callable[[str], None]
    watchers: Sequence[Watcher] = ()


def http_app(deps: Dependencies, settings: PortSettings) -> AsgiApp:
    """The application of the HTTP port."""
    gate = Gate(settings.max_transfers, deps.draining, deps.on_limit)
    routes = [*_transfer_routes(deps, settings, gate), *_status_routes(deps)]
    if settings.ui:
        routes += _ui_routes(deps, settings, gate)
    metrics = HttpMetrics(deps.registry, {route.label or route.template for route in routes})
    request_log = RequestLog(metrics, deps.watchers)
    return door(routes, Cors(settings.allow_origins), request_log, max_header_bytes=settings.max_header_bytes)


def _transfer_routes(deps: Dependencies, settings: PortSettings, gate: Gate) -> list[Route]:
    access = Access(deps.verifier, deps.backends)
    downloads = Downloads(
        access, gate, deps.limits, deps.accounts, timeout=settings.timeout, verify_resume=settings.verify_resume
    )
    get = {"GET": downloads.answer, "HEAD": downloads.answer}
    routes = [Route("/download/{digest}", get, cors=True)]
    if settings.uploads:
        put = {"PUT": Uploads(access, gate, deps.limits, deps.accounts, deps.staging).answer}
        routes += [Route("/upload", put), Route("/upload/{digest}", put)]
    return routes


def _status_routes(deps: Dependencies) -> list[Route]:
    pages = status_pages(
        version=deps.version,
        chart_version=deps.chart_version,
        backends=deps.backends.backend_types(),
        not_ready=deps.not_ready,
    )
    return [page_route(path, page, cors=True) for path, page in pages.items()]


def _ui_routes(deps: Dependencies, settings: PortSettings, gate: Gate) -> list[Route]:
    activity = Activity(
        deps.registry,
        version=deps.version,
        backends=deps.backends.backend_types(),
        not_ready=deps.not_ready,
        transfers=lambda: gate.inside,
        uploads=settings.uploads and deps.staging.available,  # the page sends what it has not hashed yet
    )
    return [page_route(path, page, label="/ui") for path, page in ui_pages(activity).items()]
