"""Layers over each other: files, then variables."""

from __future__ import annotations

from casproxy.config.files import Scalar, Table, parse
from casproxy.config.merge import dotted_variables, merge
from casproxy_tests.config.test_files import texts


def test_maps_merge_and_lists_replace() -> None:
    first = parse("server: {http: {addr: a, cors: {allow_origins: [x, y]}}, grpc: {addr: b}}", "1")
    second = parse("server: {http: {cors: {allow_origins: [z]}}, grpc: {timeout: 5s}}", "2")
    assert texts(merge([first, second])) == {
        "server": {"http": {"addr": "a", "cors": {"allow_origins": ["z"]}}, "grpc": {"addr": "b", "timeout": "5s"}}
    }


def test_both_spellings_are_one_key() -> None:
    merged = merge(
        [parse("server: {httpMetrics: {addr: a}}", "1"), parse("server: {http_metrics: {timeout: 1s}}", "2")]
    )
    assert texts(merged) == {"server": {"http_metrics": {"addr": "a", "timeout": "1s"}}}


def test_a_map_and_a_single_value_replace_each_other() -> None:
    assert texts(merge([parse("a: 1", "1"), parse("a: {b: 2}", "2")])) == {"a": {"b": "2"}}
    assert texts(merge([parse("a: {b: 2}", "1"), parse("a: 1", "2")])) == {"a": "1"}


def test_layers_stay_as_they_are() -> None:
    first, second = parse("a: {b: 1}", "1"), parse("a: {c: 2}", "2")
    merge([first, second])
    assert texts(first) == {"a": {"b": "1"}}
    assert texts(second) == {"a": {"c": "2"}}


def test_the_origin_of_a_value_is_the_file_that_won() -> None:
    merged = merge([parse("a: {b: 1, c: 1}", "1.yaml"), parse("a: {b: 2}", "2.yaml")])
    table = merged.entries["a"]
    assert isinstance(table, Table)
    assert [node.origin for node in table.entries.values()] == ["2.yaml:1", "1.yaml:1"]


def test_only_dotted_cas_variables_are_layers() -> None:
    environ = {"CAS_server.grpc.addr": ":1", "CAS_VAULT_TOKEN": "x", "PATH": "a.b", "CAS_a..b": "x", "CAS_": "x"}
    layers = list(dotted_variables(environ))
    assert [texts(layer) for layer in layers] == [{"server": {"grpc": {"addr": ":1"}}}]


def test_a_variable_may_be_written_in_camel_case_and_is_literal() -> None:
    (layer,) = dotted_variables({"CAS_server.httpMetrics.addr": "${x}"})
    server = layer.entries["server"]
    assert isinstance(server, Table)
    metrics = server.entries["http_metrics"]
    assert isinstance(metrics, Table)
    assert metrics.entries["addr"] == Scalar("${x}", "variable CAS_server.httpMetrics.addr", literal=True)
