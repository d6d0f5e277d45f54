"""Owns the settings under ``observability``: logs, metrics, reports, traces. Refuses to know who writes them.

What each is for is on the page docs/how-to/observe.md.
"""

from __future__ import annotations

from typing import Annotated

from casproxy.config.kinds import Address, Flag, Ratio, SecretText, Text, choice, of_kind
from casproxy.config.section import Section, doc


class Log(Section, frozen=True, kw_only=True):
    """What is logged and how."""

    level: Annotated[
        str, of_kind(choice("debug", "info", "warning", "error")), doc("The least severity that is logged.")
    ] = "info"
    format: Annotated[
        str,
        of_kind(choice("auto", "json", "console")),
        doc("`auto`: colour on a terminal, JSON elsewhere."),
    ] = "auto"


class Sentry(Section, frozen=True, kw_only=True):
    """Reports of unexpected failures."""

    dsn: Annotated[SecretText | None, doc("Where to report.", when_unset="no reports")] = None
    environment: Annotated[Text, doc("Name of the deployment in reports.")] = ""


class Tracing(Section, frozen=True, kw_only=True):
    """OpenTelemetry traces."""

    enabled: Annotated[Flag, doc("Export traces.")] = False
    endpoint: Annotated[Address, doc("OTLP/gRPC collector.")] = "localhost:4317"
    insecure: Annotated[Flag, doc("Reach the collector without TLS.")] = False
    sampling_ratio: Annotated[Ratio, doc("Share of calls traced, unless the caller decided.", unit="1 is all")] = 1.0
    propagate: Annotated[Flag, doc("Send the trace context to tenants' registries, too.")] = False


class MetricsSettings(Section, frozen=True, kw_only=True):
    """What is counted beyond the usual."""

    per_org: Annotated[Flag, doc("Count bytes by organisation: two more series for each.")] = False


class Observability(Section, frozen=True, kw_only=True):
    """Logs, traces, reports."""

    log: Annotated[Log, doc("What is logged and how.")] = Log()
    metrics: Annotated[MetricsSettings, doc("What is counted beyond the usual.")] = MetricsSettings()
    sentry: Annotated[Sentry, doc("Reports of unexpected failures.")] = Sentry()
    tracing: Annotated[Tracing, doc("OpenTelemetry traces.")] = Tracing()
