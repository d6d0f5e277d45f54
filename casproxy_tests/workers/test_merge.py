"""Adding up metrics, with the real metrics of real servers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from casproxy.observe.metrics import Metrics
from casproxy.wire.status import StatusCode
from casproxy.workers.merge import Family, exposition, lasting, merged, process_families, snapshot
from casproxy_tests.fakes.call import WRITE

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def values(families: list[Family], name: str) -> dict[tuple[str, ...], float]:
    """Samples of this name by the values of their labels."""
    return {
        tuple(labels.values()): value
        for family in families
        for sample, labels, value in family.samples
        if sample == name
    }


def families(count: int, *, up: float = 1.0, age: float = 0.0) -> list[Family]:
    registry = CollectorRegistry()
    Counter("calls", "x", ["code"], registry=registry).labels("OK").inc(count)
    Histogram("seconds", "x", registry=registry, buckets=(1.0, 10.0)).observe(count)
    Gauge("casproxy_held_bytes", "x", registry=registry).set(count)
    Gauge("casproxy_secret_source_up", "x", registry=registry).set(up)
    Gauge("casproxy_secret_age_seconds", "x", registry=registry).set(age)
    return snapshot(registry)


def test_counts_histograms_and_gauges_are_added() -> None:
    total = merged([("1", families(2)), ("2", families(5))])
    assert values(total, "calls_total") == {("OK",): 7.0}
    assert values(total, "seconds_bucket") == {("1.0",): 0.0, ("10.0",): 2.0, ("+Inf",): 2.0}
    assert values(total, "seconds_sum") == {(): 7.0}
    assert values(total, "casproxy_held_bytes") == {(): 7.0}


def test_what_is_up_is_up_for_all_and_what_is_old_is_as_old_as_the_oldest() -> None:
    total = merged([("1", families(1, up=1.0, age=3.0)), ("2", families(1, up=0.0, age=90.0))])
    assert values(total, "casproxy_secret_source_up") == {(): 0.0}
    assert values(total, "casproxy_secret_age_seconds") == {(): 90.0}


def test_a_series_that_only_one_has_is_kept() -> None:
    other = [Family("calls", "counter", "x", [("calls_total", {"code": "NotFound"}, 1.0)])]
    assert values(merged([("1", families(2)), ("2", other)]), "calls_total") == {("OK",): 2.0, ("NotFound",): 1.0}


def test_the_dead_keep_what_they_did_and_nothing_of_what_they_were() -> None:
    kept = lasting([*families(2), *process_families()])
    assert values(kept, "calls_total") == {("OK",): 2.0}
    assert values(kept, "seconds_count") == {(): 1.0}
    assert not values(kept, "casproxy_held_bytes")
    assert not values(kept, "process_cpu_seconds_total")


def test_processes_are_told_apart() -> None:
    total = merged([("1", process_families()), ("supervisor", process_families())])
    assert set(values(total, "process_cpu_seconds_total")) == {("1",), ("supervisor",)}


def test_all_series_of_a_server_survive_and_both_text_formats_can_be_read() -> None:
    servers = [Metrics([WRITE]), Metrics([WRITE])]
    for metrics in servers:
        metrics.call_started(WRITE)
        metrics.call_ended(WRITE, StatusCode.OK, 0.3)
    snapshots = [(str(number), snapshot(metrics.registry)) for number, metrics in enumerate(servers)]
    body, content_type = exposition(merged(snapshots), OPEN_METRICS)
    assert content_type.startswith("application/openmetrics-text")
    read = {family.name: family for family in text_string_to_metric_families(body.decode())}  # type: ignore[no-untyped-call]
    assert set(read) == {family.name for family in snapshots[0][1]}
    alone = [sample for family in snapshots[0][1] for sample in family.samples]
    together = [sample for family in read.values() for sample in family.samples]
    of_each = [sample for sample in together if "worker" in sample.labels]
    assert len(together) - len(of_each) // 2 == len(alone)
    assert {sample.value for sample in read["casproxy_build"].samples} == {1.0}
    plain, plain_type = exposition(merged(snapshots), "")
    assert plain_type.startswith("text/plain")
    assert b'grpc_code="OK",grpc_method="Write"' in plain
