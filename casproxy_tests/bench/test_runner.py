"""Every scenario against the real server, with each client: it moves what it says, and tells of what goes wrong."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import trio

from casproxy.bench import control
from casproxy.bench.campaign import Campaign
from casproxy.bench.driver import CallFailed
from casproxy.bench.load import ClientKind, Load, NameForm, Scenario
from casproxy.bench.local import LocalServer
from casproxy.bench.report import whole
from casproxy.bench.runner import ERRORS_BEFORE_GIVING_UP, measure

SIZE = 3 << 20


@pytest.mark.parametrize("client", ClientKind)
async def test_every_scenario_moves_what_it_says(server: LocalServer, client: ClientKind) -> None:
    for scenario in Scenario:
        load = Load(scenario, size=SIZE, concurrency=2, connections=2, count=4, client=client, stalled=3)
        sample = await measure(server.target("MEMORY"), load)
        moved = 0 if scenario in (Scenario.DESCRIBE, Scenario.CANCEL) else 4 * SIZE
        assert (sample.operations, sample.payload, sample.errors) == (4, moved, {}), scenario
        assert sample.latency.count == 4
        assert sample.cpu > 0 and sample.server is not None and sample.server[1].peak > 0


@pytest.mark.parametrize("names", NameForm)
async def test_every_form_of_names_and_every_size(server: LocalServer, names: NameForm) -> None:
    """On the FS backend, where what is uploaded can be read whatever its name is."""
    for scenario, size in itertools.product((Scenario.UPLOAD, Scenario.DOWNLOAD), (0, 1, 16, 17, SIZE)):
        load = Load(scenario, size=size, concurrency=1, count=1, names=names)
        sample = await measure(server.target("FS"), load)
        assert (sample.operations, sample.errors) == (1, {})


async def test_cancelled_uploads_are_seen_to_be_released(server: LocalServer) -> None:
    load = Load(Scenario.CANCEL, size=SIZE, concurrency=4, count=20)
    await measure(server.target("MEMORY"), load)
    assert server.target("MEMORY").control is not None
    with trio.fail_after(30):  # the resets are on their way, and the question goes another
        while (await control.ask(server.control, "report"))["open_ingests"]:
            await trio.lowlevel.checkpoint()


async def test_a_failing_call_is_counted_under_its_code_and_ends_a_hopeless_run(server: LocalServer) -> None:
    target = server.target("MEMORY")
    wrong = replace(target, uploader_token=target.downloader_token)
    few = await measure(wrong, Load(Scenario.UPLOAD, size=SIZE, concurrency=1, count=3))
    assert (few.operations, few.errors) == (0, {"UNAUTHENTICATED": 3})
    assert math.isnan(few.cpu_per_gb)
    with pytest.raises(ExceptionGroup) as group:
        await measure(wrong, Load(Scenario.UPLOAD, size=SIZE, concurrency=1, count=2 * ERRORS_BEFORE_GIVING_UP))
    assert group.group_contains(CallFailed)


async def test_targets_take_turns_and_become_ratios(server: LocalServer) -> None:
    targets = [server.target("MEMORY", name) for name in ("first", "second")]
    campaign = Campaign(Load(Scenario.DESCRIBE, size=10, concurrency=1, count=5), targets, rounds=2)
    seen: list[str] = []
    await campaign.run(lambda name, sample, done: seen.append(name))
    found = whole(campaign.load, campaign.samples)
    assert {name: len(samples) for name, samples in campaign.samples.items()} == {"first": 2, "second": 2}
    assert list(found["ratios"]) == ["second"]  # type: ignore[call-overload]
