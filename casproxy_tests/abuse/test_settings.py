"""Every limit can be set, reaches the server, and is counted under a name that exists before anybody runs into it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from casproxy.app import server_settings
from casproxy.config import Config
from casproxy.config.grpc_limits import GrpcLimits, Timeouts, Windows
from casproxy.config.model import GrpcServer, Server
from casproxy.config.settings import settings_of
from casproxy.observe.metrics import Metrics
from casproxy.rpc.limits import LIMITS
from casproxy.rpc.server import ServerSettings
from casproxy_tests.architecture import ROOT


def _with(limits: GrpcLimits) -> ServerSettings:
    return server_settings(Server(grpc=GrpcServer(limits=limits), memory_budget=1 << 20))


def test_the_defaults_are_those_of_the_server() -> None:
    """They are written down twice, because reading a configuration should not import the wire."""
    assert _with(GrpcLimits()) == ServerSettings(memory_budget=1 << 20)
    assert server_settings(Config().server).drain_grace == ServerSettings().drain_grace


def _another(value: Any) -> Any:
    return 12345 if math.isinf(value) else type(value)(value * 2)


OWN = [setting for setting in settings_of(GrpcLimits) if setting.section is None]
CHANGED = (
    [GrpcLimits(**{setting.name: _another(setting.default)}) for setting in OWN]
    + [GrpcLimits(timeouts=Timeouts(**{one.name: _another(one.default)})) for one in settings_of(Timeouts)]
    + [GrpcLimits(windows=Windows(**{one.name: _another(one.default)})) for one in settings_of(Windows)]
)


@pytest.mark.parametrize("limits", CHANGED, ids=str)
def test_each_setting_reaches_the_server(limits: GrpcLimits) -> None:
    assert _with(limits) != _with(GrpcLimits())


def test_every_limit_is_counted_from_nought() -> None:
    metrics = Metrics([])
    text = metrics.exposition("")[0].decode()
    for limit in LIMITS:
        assert f'casproxy_limit_reached_total{{limit="{limit}"}} 0.0' in text
    metrics.limit_reached("resets")
    assert 'casproxy_limit_reached_total{limit="resets"} 1.0' in metrics.exposition("")[0].decode()


def test_every_limit_and_setting_is_explained() -> None:
    page = (ROOT / "docs/explanation/abuse.md").read_text("utf-8")
    names = [*LIMITS, *(setting.name for setting in OWN if setting.name != "max_message_size")]
    names += [f"timeouts.{setting.name}" for setting in settings_of(Timeouts)]
    assert not [name for name in names if f"`{name}`" not in page]
