"""The scrape after an hour of mixed traffic, as Prometheus, its linter, the dashboard and the alerts see it."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import msgspec
import pytest
import trio
import yaml
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from casproxy.client import Client, open_client, tls_context
from casproxy.config.model import NatsServer, TlsConfig
from casproxy.config.observability import Observability, Tracing
from casproxy.dev.place import Place
from casproxy.digest import Digest
from casproxy.observe.facts import Caller
from casproxy.observe.metrics import Metrics
from casproxy.rpc.api import Traffic
from casproxy.rpc.errors import RpcError
from casproxy.wire.status import StatusCode
from casproxy_tests.app.serving import Serving, config_of, place_at, serving
from casproxy_tests.architecture import ROOT
from casproxy_tests.cas import PLAIN
from casproxy_tests.fakes.call import WRITE
from casproxy_tests.fakes.otlp import otlp_receiver
from casproxy_tests.real.certificates import authority, write_server_files
from casproxy_tests.real.nats import running_nats
from casproxy_tests.real.prometheus import Prometheus, promtool, running_prometheus

DASHBOARD = ROOT / "contrib/grafana/casproxy.json"
ALERTS = ROOT / "contrib/alerts/casproxy.yaml"
OPEN_METRICS = {"accept": "application/openmetrics-text; version=1.0.0"}
MINUTES = 60
METHOD = ("grpc_type", "grpc_service", "grpc_method")


@dataclass(frozen=True, slots=True)
class Hour:
    """Scrapes by time: the first from before any call, then one a minute."""

    scrapes: dict[float, str]
    plain: str

    @property
    def end(self) -> float:
        return max(self.scrapes)

    @property
    def first(self) -> str:
        return self.scrapes[min(self.scrapes)]


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Hour:
    """An hour of uploads, repetitions, downloads and failures, fast-forwarded: a minute's traffic, then a scrape."""
    directory = tmp_path_factory.mktemp("hour")
    with place_at(directory) as place, running_nats(directory / "nats", "debian") as nats, otlp_receiver() as receiver:
        nats.create_stream()
        certificate, key = write_server_files(directory)
        ca = directory / "ca.pem"
        ca.write_bytes(authority().certificate_pem)
        plain = config_of(place)
        grpc = msgspec.structs.replace(
            plain.server.grpc, tls_config=TlsConfig(certificate=certificate, private_key=key)
        )
        config = msgspec.structs.replace(
            plain,
            server=msgspec.structs.replace(plain.server, grpc=grpc),
            nats_server=NatsServer(uri=nats.uri),
            observability=Observability(tracing=Tracing(enabled=True, endpoint=receiver.address, insecure=True)),
        )

        async def live() -> Hour:
            async with serving(config) as server:
                return await _live_an_hour(server, place, tls_context(ca))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("casproxy.observation.watch_lag", _report_the_lag_of_a_good_day)
            return trio.run(live)


async def _report_the_lag_of_a_good_day(report: Callable[[float], None]) -> None:
    """Instead of this machine's, which is busy with tests: the hour tells of the service, not of the machine."""
    while True:
        report(0.002)
        await trio.sleep(0.01)


async def _live_an_hour(server: Serving, place: Place, tls: ssl.SSLContext) -> Hour:
    began = time.time() - (MINUTES + 1) * 60
    async with (
        httpx.AsyncClient(verify=PLAIN, trust_env=False) as http,
        open_client(server.grpc, place.uploader_token, tls=tls) as uploader,
        open_client(server.grpc, place.downloader_token, tls=tls) as downloader,
    ):
        scrapes = {began: (await http.get(f"http://{server.metrics}/metrics", headers=OPEN_METRICS)).text}
        for minute in range(1, MINUTES + 1):
            await _live_a_minute(minute, uploader, downloader)
            url = f"http://{server.http}/download/{Digest.of(b'%d' % minute)}"
            assert (await http.get(url, params={"t": place.downloader_token})).status_code == 200
            assert (await http.get(url)).status_code == 401
            scrape = await http.get(f"http://{server.metrics}/metrics", headers=OPEN_METRICS)
            scrapes[began + minute * 60] = scrape.text
        plain = (await http.get(f"http://{server.metrics}/metrics")).text
    return Hour(scrapes, plain)


async def _live_a_minute(minute: int, uploader: Client, downloader: Client) -> None:
    async def discard(_piece: memoryview) -> None:
        """Take a piece."""

    content = b"%d" % minute
    await uploader.upload(content, name="x")
    await uploader.upload(content, name="x")
    await downloader.download(Digest.of(content), discard)
    await downloader.statusz(readiness=True)
    with pytest.raises(RpcError):
        await downloader.describe(Digest.of(b"nothing"))
    with pytest.raises(RpcError):
        await downloader.upload(b"with the wrong role")


@pytest.fixture(scope="module")
def prometheus(hour: Hour, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), hour.scrapes) as server:
        yield server


def families_of(scrape: str) -> list[Metric]:
    return list(text_string_to_metric_families(scrape))  # type: ignore[no-untyped-call]


# -- the scrape -------------------------------------------------------------------------------------


def test_the_linter_has_nothing_to_complain_of(hour: Hour) -> None:
    promtool("check", "metrics", given=hour.plain.encode())


def test_the_known_names_are_there_from_the_first_scrape(hour: Hour) -> None:
    families = {family.name: family for family in families_of(hour.first)}
    for name in ("started", "handled", "msg_received", "msg_sent"):
        family = families[f"grpc_server_{name}"]
        labels = {*METHOD, "grpc_code"} if name == "handled" else {*METHOD}
        assert family.type == "counter"
        assert all(sample.value == 0 and set(sample.labels) == labels for sample in family.samples)
    assert families["grpc_server_handling_seconds"].type == "histogram"
    handled = families["grpc_server_handled"].samples
    assert len(handled) == len(families["grpc_server_started"].samples) * len(StatusCode)
    ours = {name for name in families if name.startswith("casproxy_")}
    assert ours >= {
        *("casproxy_message_bytes", "casproxy_streams_in_flight", "casproxy_bytes_in_flight"),
        *("casproxy_event_loop_lag_seconds", "casproxy_credit_held_bytes", "casproxy_secret_cache"),
        *("casproxy_backend_request_seconds", "casproxy_secret_age_seconds", "casproxy_auth_key_age_seconds"),
        *("casproxy_deduplicated", "casproxy_deduplicated_bytes", "casproxy_worker_restarts"),
        *("casproxy_secret_source_up", "casproxy_audit_events", "casproxy_spans"),
    }


def test_no_series_appears_with_the_traffic_but_those_of_http_codes(hour: Hour) -> None:
    def series(text: str) -> set[str]:
        return {line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")}

    new = series(hour.scrapes[hour.end]) - series(hour.first)
    assert {name.partition("{")[0] for name in new} <= {
        "casproxy_http_requests_total",
        "casproxy_http_body_bytes_total",
    }


def test_every_call_of_the_hour_was_counted(hour: Hour, prometheus: Prometheus) -> None:
    def total(expression: str) -> float:
        [sample] = prometheus.query(expression, hour.end)
        return float(sample["value"][1])

    assert total('grpc_server_handled_total{grpc_method="Write",grpc_code="OK"}') == 2 * MINUTES
    assert total('grpc_server_handled_total{grpc_method="Write",grpc_code="Unauthenticated"}') == MINUTES
    assert total('grpc_server_handled_total{grpc_method="Describe",grpc_code="NotFound"}') == MINUTES
    assert total("sum(casproxy_deduplicated_total)") == MINUTES
    assert total('sum(casproxy_backend_request_seconds_count{operation="commit",result="ok"})') == MINUTES
    assert total('casproxy_http_requests_total{route="/download/{digest}",code="401"}') == MINUTES
    assert total("sum(casproxy_streams_in_flight)") == 0
    assert total("casproxy_bytes_in_flight") == 0
    assert total("sum(casproxy_audit_events_total) + casproxy_audit_queue") == 4 * MINUTES


@pytest.mark.parametrize(("per_org", "growth"), [(False, 0), (True, 2 * 10_000)])
def test_ten_thousand_tenants_cost_a_series_only_when_that_is_switched_on(per_org: bool, growth: int) -> None:
    metrics = Metrics([WRITE], per_org=per_org)
    metrics.create_series([], ["OCI"])

    def count() -> int:
        families = list(metrics.registry.collect())
        return sum(len(family.samples) for family in families if not family.name.startswith(("process_", "python_")))

    caller = Caller("org", "uploader", "OCI")
    metrics.call_carried(WRITE, Traffic(), caller)
    before = count()
    for number in range(10_000):
        metrics.call_carried(WRITE, Traffic(), Caller(f"org-{number}", "uploader", f"made up {number}"))
    assert count() - before == growth + 2, "and the two of backends nobody serves"


# -- the dashboard and the alerts -------------------------------------------------------------------


def queries() -> list[str]:
    """Every query of the dashboard, with Grafana's variables filled in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [text.replace("$__rate_interval", "5m").replace("$instance", ".*") for text in expressions]


@pytest.mark.parametrize("query", queries())
def test_each_query_of_the_dashboard_returns_data(prometheus: Prometheus, hour: Hour, query: str) -> None:
    assert prometheus.query(query, hour.end), query


def test_the_dashboard_shows_every_family_of_ours(hour: Hour) -> None:
    """A number nobody looks at is not worth its scrape."""
    shown = set(re.findall(r"\b(?:casproxy|grpc_server)_\w+", DASHBOARD.read_text() + ALERTS.read_text()))
    families = {family.name: family.type for family in families_of(hour.first)}
    ours = {name for name in families if name.startswith(("casproxy_", "grpc_server_"))}
    assert not {name for name in ours if not any(text.startswith(name) for text in shown)}


def test_the_alerts_are_valid_and_fire_as_they_should() -> None:
    assert "7 rules" in promtool("check", "rules", ALERTS)
    promtool("test", "rules", ALERTS.with_name("casproxy_test.yaml"))


def test_each_alert_says_what_to_do_on_its_page() -> None:
    page = (ROOT / "docs/how-to/alert.md").read_text()
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in group["rules"]:
        assert f"## {rule['alert']}\n" in page
        assert rule["annotations"]["runbook"].endswith(f"alert.md#{rule['alert'].lower()}")


def test_no_alert_fires_on_a_good_day(prometheus: Prometheus, hour: Hour) -> None:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in group["rules"]:
        assert not prometheus.query(rule["expr"], hour.end), rule["alert"]
