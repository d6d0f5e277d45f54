"""The verdict cache: how often a signature is checked, when a verdict is believed again, who may cancel what."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from casproxy.auth import verifier as verifier_module
from casproxy.auth.keys import StaticKeys, VerificationKey
from casproxy.auth.resolve import open_keys
from casproxy.auth.verifier import Verifier, VerifierSettings, bearer_token
from casproxy.auth.verify import verify
from casproxy.config.model import Auth, Jwks
from casproxy.errors import AuthError
from casproxy_tests.auth import forge
from casproxy_tests.auth.endpoint import named, open_endpoint
from casproxy_tests.auth.forge import GOOD, NOW
from casproxy_tests.cancellation import Run, cancel_everywhere


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Keys:
    current: Sequence[VerificationKey] = field(default_factory=forge.keys)

    def keys(self) -> Sequence[VerificationKey]:
        return self.current

    async def seek(self) -> None:
        """The test changes the keys itself."""


@dataclass
class Seekable(Keys):
    """Finds ``found`` when it is asked to look again."""

    found: Sequence[VerificationKey] = ()
    seeks: int = 0

    async def seek(self) -> None:
        self.seeks += 1
        await trio.lowlevel.checkpoint()
        self.current = self.found or self.current


def make(clock: Clock | None = None, **settings: int) -> Verifier:
    return Verifier(StaticKeys(forge.keys()), VerifierSettings(**settings), now=clock or Clock())  # type: ignore[arg-type]


async def test_ten_thousand_calls_check_one_signature() -> None:
    verifier, token = make(), forge.token()
    for _ in range(10_000):
        assert (await verifier.verify(token)).backend == "OCI"
    assert verifier.signature_checks == 1


async def test_concurrent_calls_share_one_check() -> None:
    verifier, token = make(), forge.token()
    async with trio.open_nursery() as nursery:
        for _ in range(1_000):
            nursery.start_soon(verifier.verify, token)
    assert verifier.signature_checks == 1
    assert verifier._flights == {}


async def test_a_hit_obeys_exp_and_nbf() -> None:
    clock = Clock()
    verifier, token = make(clock), forge.token({**GOOD, "nbf": NOW, "exp": NOW + 10})
    await verifier.verify(token)
    for clock.now in (NOW + 10, NOW - 1):
        with pytest.raises(AuthError, match=r"^JWT token has expired$"):
            await verifier.verify(token)
    clock.now = NOW + 9.5
    await verifier.verify(token)
    assert verifier.signature_checks == 1


async def test_bad_verdicts_are_not_kept() -> None:
    verifier, forged = make(), forge.token(kind="other P-521")
    for checks in (1, 2):
        with pytest.raises(AuthError, match=r"^unknown signing key$"):
            await verifier.verify(forged)
        assert verifier.signature_checks == checks
    assert not verifier._verdicts and not verifier._flights


async def test_nothing_and_too_much_never_reach_a_thread() -> None:
    verifier = make()
    with pytest.raises(AuthError, match=r"^JWT token is missing$"):
        await verifier.verify("")
    with pytest.raises(AuthError, match=r"^Token is invalid$"):
        await verifier.verify("a" * 8193)
    assert verifier.signature_checks == 0


async def test_verdicts_go_with_the_keys() -> None:
    keys, token = Keys(), forge.token()
    verifier = Verifier(keys, now=Clock())
    await verifier.verify(token)
    keys.current = forge.keys("other P-521")
    with pytest.raises(AuthError, match=r"^unknown signing key$"):
        await verifier.verify(token)
    keys.current = forge.keys("other P-521", "P-521")
    await verifier.verify(token)
    assert verifier.signature_checks == 3


async def test_a_verdict_of_keys_that_changed_meanwhile_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, token = Keys(), forge.token()
    verifier = Verifier(keys, now=Clock())
    with held_checks(monkeypatch) as release:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(verifier.verify, token)
            await checks_begun(verifier, 1)
            keys.current = forge.keys("other P-521")
            nursery.start_soon(verifier.verify, forge.token(kind="other P-521"))  # notices the change
            await checks_begun(verifier, 2)
            release.set()
    with pytest.raises(AuthError, match=r"^unknown signing key$"):
        await verifier.verify(token)


async def test_an_unknown_kid_is_sought_and_found() -> None:
    keys = Seekable((named("old"),), (named("old"), named("new", "other P-521")))
    verifier = Verifier(keys, now=Clock())
    await verifier.verify(forge.token(kid="old"))
    token = forge.token(kind="other P-521", kid="new")
    for _ in range(3):
        assert (await verifier.verify(token)).backend == "OCI"
    assert keys.seeks == 1


async def test_an_unknown_kid_that_is_not_found_is_an_unknown_key() -> None:
    keys = Seekable((named("old"),))
    verifier = Verifier(keys, now=Clock())
    with pytest.raises(AuthError, match=r"^unknown signing key$"):
        await verifier.verify(forge.token(kid="new"))
    assert keys.seeks == 1


@pytest.mark.parametrize(
    "token",
    [
        forge.token(kind="other P-521", kid="old"),  # the name is known, the signature another's
        forge.token(kind="other P-521"),  # no name to look for
        forge.token({**GOOD, "exp": 1}, kid="old"),
        forge.token(kid="old") + "A",
    ],
)
async def test_nothing_else_is_sought(token: str) -> None:
    keys = Seekable((named("old"),))
    with pytest.raises(AuthError):
        await Verifier(keys, now=Clock()).verify(token)
    assert keys.seeks == 0


async def test_a_key_without_name_serves_every_kid_unsought() -> None:
    keys = Seekable(forge.keys())
    await Verifier(keys, now=Clock()).verify(forge.token(kid="whatever"))
    assert keys.seeks == 0


async def test_a_flood_of_unknown_kids_fetches_once_per_interval() -> None:
    """A thousand names at once, over the real ring and a real socket; a good token in their midst."""
    async with open_endpoint(named("good")) as endpoint, open_keys(Auth(jwks=Jwks(url=endpoint.url))) as ring:
        verifier, refused = Verifier(ring, now=Clock()), 0

        async def knock(number: int) -> None:
            nonlocal refused
            with pytest.raises(AuthError, match=r"^unknown signing key$"):
                await verifier.verify(forge.token(kind="Ed25519", algorithm="EdDSA", kid=f"bad-{number}"))
            refused += 1

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(1_000):
                nursery.start_soon(knock, number)
            assert (await verifier.verify(forge.token(kid="good"))).backend == "OCI"
        allowed = 1 + (trio.current_time() - start) // 10.0
        assert refused == 1_000 and 2 <= len(endpoint.requests) <= 1 + allowed


async def test_the_least_recently_used_verdict_goes_first() -> None:
    verifier = make(max_verdicts=2)
    first, second, third = (forge.token({**GOOD, "org-id": name}) for name in "abc")
    for token in (first, second, first, third, first):
        await verifier.verify(token)
    assert verifier.signature_checks == 3
    await verifier.verify(second)
    assert verifier.signature_checks == 4


async def test_tokens_are_kept_as_hashes_only() -> None:
    verifier, token = make(), forge.token()
    await verifier.verify(token)
    assert all(len(name) == 32 for name in verifier._verdicts)
    assert token not in repr(vars(verifier))


async def test_a_cancelled_call_leaves_at_once_and_the_next_one_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, token = make(), forge.token()
    with held_checks(monkeypatch) as release:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as leader:
                nursery.start_soon(_cancel_when_begun, verifier, leader)
                await verifier.verify(token)
            assert leader.cancelled_caught  # while its thread still works
            nursery.start_soon(verifier.verify, token)
            await checks_begun(verifier, 2)
            release.set()
    assert verifier.signature_checks == 2 and not verifier._flights


async def test_cancelled_anywhere_nothing_is_left() -> None:
    token = forge.token()

    async def scenario() -> Verifier:
        verifier = make()
        seen.append(verifier)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(verifier.verify, token)
        return verifier

    seen: list[Verifier] = []

    async def check(run: Run[Verifier]) -> None:
        assert not seen[-1]._flights
        assert (await seen[-1].verify(token)).backend == "OCI"

    assert await cancel_everywhere(scenario, check) >= 3


async def _cancel_when_begun(verifier: Verifier, scope: trio.CancelScope) -> None:
    await checks_begun(verifier, 1)
    scope.cancel()


async def checks_begun(verifier: Verifier, count: int) -> None:
    await trio.testing.wait_all_tasks_blocked()
    assert verifier.signature_checks == count


@contextmanager
def held_checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Checks wait in their threads until the event is set; it is set on leaving in any case."""
    release = threading.Event()

    def held(*args: object, **options: object) -> object:
        assert release.wait(30)
        return verify(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(verifier_module, "verify", held)
    try:
        yield release
    finally:
        release.set()


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER  abc ", "abc"),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Basic abc", ""),
        ("abc", ""),
        ("", ""),
        ("Bearerabc", ""),
        ("Bearer a b", "a b"),
    ],
)
def test_bearer_scheme(value: str, token: str) -> None:
    assert bearer_token(value) == token
