"""When a token is renewed, replaced, and when nothing is asked at all. Time is virtual: no test waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import structlog.testing
import trio
import trio.testing

from casproxy.background import background
from casproxy.config.kinds import SecretStr
from casproxy.errors import SecretDenied, SecretUnavailable
from casproxy.secrets.remote import LoginRefused
from casproxy.secrets.vault_token import GivenToken, Lease, LoginToken
from casproxy_tests.cancellation import Run, cancel_everywhere


@dataclass
class Server:
    """Hands out ``token-1``, ``token-2`` …, each good for ``seconds`` (a renewal: ``renewed_seconds``)."""

    seconds: float = 60.0
    renewed_seconds: float = 60.0
    renewable: bool = True
    failure: Exception | None = None
    renewal_failure: Exception | None = None
    asked: list[str] = field(default_factory=list)

    async def login(self) -> Lease:
        self.asked.append("login")
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        token = SecretStr(f"token-{self.asked.count('login')}")
        return Lease(token, self.seconds, self.renewable, trio.current_time())

    async def renew(self, token: SecretStr) -> Lease:
        self.asked.append(f"renew {token.reveal()}")
        await trio.lowlevel.checkpoint()
        for failure in (self.failure, self.renewal_failure):
            if failure is not None:
                raise failure
        return Lease(token, self.renewed_seconds, True, trio.current_time())


@asynccontextmanager
async def kept(server: Server) -> AsyncIterator[LoginToken]:
    tokens = LoginToken(server.login, server.renew)
    async with background(tokens.keep_fresh):
        yield tokens


async def after(clock: trio.testing.MockClock, seconds: float) -> None:
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(seconds)
    await trio.testing.wait_all_tasks_blocked()


async def test_nothing_is_asked_before_a_token_is_needed(mock_clock: trio.testing.MockClock) -> None:
    server = Server()
    async with kept(server) as tokens:
        await after(mock_clock, 1000)
        assert server.asked == []
        assert (await tokens.get()).reveal() == "token-1"


async def test_many_readers_share_one_login(mock_clock: trio.testing.MockClock) -> None:
    server = Server()
    async with kept(server) as tokens, trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(tokens.get)
    assert server.asked == ["login"]


async def test_it_is_renewed_when_two_thirds_are_spent(mock_clock: trio.testing.MockClock) -> None:
    server = Server()
    async with kept(server) as tokens:
        await tokens.get()
        await after(mock_clock, 39.9)
        assert server.asked == ["login"]
        for _ in range(3):
            await after(mock_clock, 40.1)
        assert (await tokens.get()).reveal() == "token-1"
    assert server.asked == ["login", *["renew token-1"] * 3]


async def test_a_lease_that_ends_for_good_is_followed_by_a_login(mock_clock: trio.testing.MockClock) -> None:
    server = Server(renewed_seconds=10)
    async with kept(server) as tokens:
        await tokens.get()
        await after(mock_clock, 40.1)
        assert (await tokens.get()).reveal() == "token-2"
    assert server.asked == ["login", "renew token-1", "login"]


async def test_a_refused_renewal_is_followed_by_a_login(mock_clock: trio.testing.MockClock) -> None:
    server = Server(renewal_failure=LoginRefused("no"))
    async with kept(server) as tokens:
        await tokens.get()
        await after(mock_clock, 40.1)
        assert (await tokens.get()).reveal() == "token-2"


async def test_what_cannot_be_renewed_is_replaced_in_time(mock_clock: trio.testing.MockClock) -> None:
    server = Server(renewable=False)
    async with kept(server) as tokens:
        await tokens.get()
        await after(mock_clock, 40.1)
        assert (await tokens.get()).reveal() == "token-2"
    assert server.asked == ["login", "login"]


async def test_a_token_for_ever_is_left_alone(mock_clock: trio.testing.MockClock) -> None:
    server = Server(seconds=0)
    async with kept(server) as tokens:
        await tokens.get()
        await after(mock_clock, 1e6)
        assert (await tokens.get()).reveal() == "token-1"
    assert server.asked == ["login"]


async def test_an_outage_is_logged_and_tried_again_ever_more_slowly(mock_clock: trio.testing.MockClock) -> None:
    server = Server()
    async with kept(server) as tokens:
        await tokens.get()
        server.failure = SecretUnavailable("down")
        with structlog.testing.capture_logs() as lines:
            await after(mock_clock, 40)
            for pause in (1, 2, 4):
                await after(mock_clock, pause)
        assert server.asked == ["login", *["renew token-1"] * 4]
        assert [line["event"] for line in lines] == ["vault_token_not_renewed"] * 4
        assert (await tokens.get()).reveal() == "token-1"  # good for some seconds more
        server.failure = None
        await after(mock_clock, 8)
        assert server.asked[-1] == "renew token-1"


async def test_an_expired_token_is_never_shown(mock_clock: trio.testing.MockClock) -> None:
    server = Server()
    tokens = LoginToken(server.login, server.renew)
    await tokens.get()
    await after(mock_clock, 60)
    assert (await tokens.get()).reveal() == "token-2"


async def test_a_refused_old_token_is_replaced_once_for_all(mock_clock: trio.testing.MockClock) -> None:
    server = Server(seconds=0)
    tokens = LoginToken(server.login, server.renew)
    old = await tokens.get()
    await after(mock_clock, 31)
    assert [await tokens.replace(old), await tokens.replace(old)] == [True, True]
    assert server.asked == ["login", "login"]


async def test_a_young_token_is_not_to_blame(mock_clock: trio.testing.MockClock) -> None:
    server = Server()
    tokens = LoginToken(server.login, server.renew)
    assert not await tokens.replace(await tokens.get())
    assert server.asked == ["login"]


async def test_a_refused_login_reaches_the_reader() -> None:
    server = Server(failure=LoginRefused("no"))
    with pytest.raises(SecretDenied, match=r"^no$"):
        await LoginToken(server.login, server.renew).get()


async def test_a_given_token_stays() -> None:
    tokens = GivenToken(SecretStr("given"))
    assert (await tokens.get()).reveal() == "given" and not await tokens.replace(SecretStr("given"))


def test_a_token_is_not_in_a_repr() -> None:
    assert "canary" not in repr(Lease(SecretStr("canary-token"), 1, True, 0))


async def test_cancelled_anywhere(autojump_clock: trio.testing.MockClock) -> None:
    async def scenario() -> list[str]:
        server = Server(seconds=10, renewed_seconds=10)
        async with kept(server) as tokens:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(tokens.get)
            await trio.sleep(35)
            await tokens.replace(await tokens.get())
        return server.asked

    async def check(run: Run[list[str]]) -> None:
        await trio.lowlevel.checkpoint()
        assert run.cancelled or (run.value is not None and run.value[:2] == ["login", "renew token-1"])

    assert await cancel_everywhere(scenario, check) > 5
