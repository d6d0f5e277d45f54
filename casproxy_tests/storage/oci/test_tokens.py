"""How a credential proves itself: learned once, renewed before it expires, never sent where it must not go."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from casproxy.errors import BackendBroken, BackendRefused
from casproxy.outbound.message import Request
from casproxy.storage.oci.tokens import Authorizer, Credentials, TokenAnswer

ALICE = Credentials("alice", "pässword", "f" * 64)
BASIC = "Basic YWxpY2U6cMOkc3N3b3Jk"
REALM = "https://auth.example/token?x=y"
CHALLENGE = f'Bearer realm="{REALM}",service="registry.example"'
PULL = "repository:a/b:pull"


class Realm:
    """A token server: numbers its tokens."""

    def __init__(self, **fields: object) -> None:
        self.fields = {"expires_in": 100, **fields}
        self.asked: list[Request] = []
        self.answer: TokenAnswer | None = None

    async def __call__(self, request: Request) -> TokenAnswer:
        self.asked.append(request)
        body = {"token": f"t{len(self.asked)}", **self.fields}
        await trio.sleep(1)
        return self.answer or TokenAnswer(200, json.dumps(body).encode())


def authorizer(realm: Realm) -> Authorizer:
    return Authorizer(ALICE, realm, "registry.example")


async def test_nothing_is_sent_unasked() -> None:
    assert await authorizer(Realm()).header(PULL) is None


async def test_basic() -> None:
    found = authorizer(Realm())
    assert found.learn('Basic realm="x"', secure=True)
    assert await found.header(PULL) == BASIC
    assert await found.renewed('Basic realm="x"', PULL, BASIC, secure=True) is None


async def test_an_unknown_scheme_offers_no_way() -> None:
    assert not authorizer(Realm()).learn("Negotiate", secure=True)


async def test_a_token_is_asked_for_once_per_scope(autojump_clock: MockClock) -> None:
    realm = Realm()
    found = authorizer(realm)
    found.learn(CHALLENGE, secure=True)
    headers = []

    async def ask(scope: str) -> None:
        headers.append(await found.header(scope))

    async with trio.open_nursery() as nursery:
        for scope in [PULL] * 5 + ["repository:c/d:pull"] * 5:
            nursery.start_soon(ask, scope)
    assert Counter(headers) == {"Bearer t1": 5, "Bearer t2": 5}
    target = realm.asked[0].url.target
    assert target.startswith("/token?x=y&service=registry.example&scope=repository:")
    assert realm.asked[0].headers == (("Authorization", BASIC),)


async def test_a_token_is_renewed_before_it_expires(autojump_clock: MockClock) -> None:
    realm = Realm(expires_in=5)
    found = authorizer(realm)
    found.learn(CHALLENGE, secure=True)
    assert await found.header(PULL) == "Bearer t1"
    await trio.sleep_until(3.7)
    assert await found.header(PULL) == "Bearer t1"
    await trio.sleep_until(3.8)
    assert await found.header(PULL) == "Bearer t2"


async def test_a_refused_token_is_replaced_once_for_all(autojump_clock: MockClock) -> None:
    realm = Realm()
    found = authorizer(realm)
    found.learn(CHALLENGE, secure=True)
    old = await found.header(PULL)
    assert await found.renewed(CHALLENGE, PULL, old, secure=True) == "Bearer t2"
    assert await found.renewed(CHALLENGE, PULL, old, secure=True) == "Bearer t2", "who comes late gets the new one"
    assert len(realm.asked) == 2


async def test_a_waiter_goes_on_when_the_one_who_asked_is_cancelled(autojump_clock: MockClock) -> None:
    realm = Realm()
    found = authorizer(realm)
    found.learn(CHALLENGE, secure=True)

    async def impatient() -> None:
        with trio.move_on_after(0.5):
            await found.header(PULL)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
        await trio.testing.wait_all_tasks_blocked()
        assert await found.header(PULL) == "Bearer t2"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (TokenAnswer(401, b""), BackendRefused),
        (TokenAnswer(403, b"{}"), BackendRefused),
        (TokenAnswer(200, b"<html>"), BackendBroken),
        (TokenAnswer(200, b"{}"), BackendBroken),
        (TokenAnswer(200, b'{"token": 5}'), BackendBroken),
        (TokenAnswer(200, b'{"token": "a\\r\\nHost: x"}'), BackendBroken),
    ],
)
async def test_answers_without_a_token(answer: TokenAnswer, error: type[Exception], autojump_clock: MockClock) -> None:
    realm = Realm()
    realm.answer = answer
    found = authorizer(realm)
    found.learn(CHALLENGE, secure=True)
    with pytest.raises(error):
        await found.header(PULL)


@pytest.mark.parametrize(
    ("fields", "asked_again_after"),
    [
        ({"expires_in": None}, 45.0),
        ({"expires_in": 0}, 0.0),
        ({"expires_in": -5}, 0.0),
        ({"expires_in": 1e9}, 86_370.0),
    ],
)
async def test_odd_lifetimes(fields: dict[str, object], asked_again_after: float, autojump_clock: MockClock) -> None:
    realm = Realm(**fields)
    found = authorizer(realm)
    found.learn(CHALLENGE, secure=True)
    await found.header(PULL)
    if asked_again_after > 1:
        await trio.sleep_until(asked_again_after - 0.1)
        assert await found.header(PULL) == "Bearer t1"
        await trio.sleep_until(asked_again_after)
    assert await found.header(PULL) == "Bearer t2"


@pytest.mark.parametrize(
    ("realm", "secure", "error"),
    [
        ("", True, BackendBroken),
        ("/relative", True, BackendBroken),
        ("https://user:password@auth.example/", True, BackendBroken),
        ("http://auth.example/token", True, BackendRefused),
        ("http://auth.example/token", False, None),
        ("http://127.0.0.1:5001/token", True, None),
    ],
)
async def test_where_credentials_go(realm: str, secure: bool, error: type[Exception] | None) -> None:
    found = authorizer(Realm())
    if error is None:
        assert found.learn(f'Bearer realm="{realm}"', secure=secure)
        return
    with pytest.raises(error):
        found.learn(f'Bearer realm="{realm}"', secure=secure)


def test_credentials_show_nothing() -> None:
    assert "alice" not in repr(ALICE) and "word" not in f"{ALICE}"
