"""``casproxy bench`` as its users run it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from casproxy_tests.e2e.processes import casproxy, error_line

SHORT = ("--count", "2", "--rounds", "1", "--concurrency", "1", "--size", "64KiB")


def test_a_run_of_its_own_prints_a_table_and_draws(tmp_path: Path) -> None:
    done = casproxy(tmp_path, "bench", "upload", "describe", *SHORT, "--plot", "figures.svg")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "upload: 64.0 KiB each, 1 at once over 1 connection, native client" in text
    assert "MB/s" in text and "p99.9" in text and "CPU" in text and "loop lag" in text
    head, *rows = text.rstrip().splitlines()[-3:]
    assert head.split() == ["speed", "p50", "ms", "p99", "ms", "CPU", "memory", "at", "most"]
    assert [row.split()[:2] for row in rows] == [["upload", "casproxy"], ["describe", "casproxy"]]
    drawn = ElementTree.fromstring((tmp_path / "figures.svg").read_text())  # noqa: S314  # we have just written it
    assert any("describe: throughput" in (element.text or "") for element in drawn.iter())


def test_json_has_every_figure(tmp_path: Path) -> None:
    done = casproxy(tmp_path, "bench", "dedup", *SHORT, "--backend", "memory", "--output", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    target = found["campaigns"][0]["targets"]["casproxy"]
    assert target["operations"] == 2 and target["errors"] == {}
    assert {"latency_ms", "rss_bytes", "loop_lag_ms", "server_cpu_seconds_per_gb"} <= set(target)


def test_a_png_is_one(tmp_path: Path) -> None:
    assert casproxy(tmp_path, "bench", "describe", *SHORT, "--plot", "figures.png").returncode == 0
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    for arguments, text in (
        (("uplaod",), "unknown scenario 'uplaod'"),
        (("--plot", "figures.gif"), "ends in .svg or .png"),
        (("--plot", "nowhere/figures.svg"), "not a directory"),
        (("--backend", "oci"), "--oci-repo"),
        (("--addr", "nonsense"), "invalid address"),
        (("--addr", "127.0.0.1:9", "--insecure", "--peer", "x"), "NAME=HOST:PORT"),
        (("--count", "0"), "1 to 1000000"),
    ):
        done = casproxy(tmp_path, "bench", *arguments)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert text in error_line(done)


def test_a_server_that_is_not_there_fails_the_run(tmp_path: Path) -> None:
    done = casproxy(tmp_path, "bench", "upload", *SHORT, "--addr", "127.0.0.1:9", "--insecure")
    assert done.returncode == 1
    assert "UNAVAILABLE 2; the last: UNAVAILABLE: cannot connect to 127.0.0.1:9" in done.stdout.decode()
