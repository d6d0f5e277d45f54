"""The door of a call: nobody gets in without the right token, and nothing is read before that is known."""

from __future__ import annotations

import pytest
import trio

from casproxy.auth.claims import Claims, Role
from casproxy.auth.interceptor import auth_interceptor
from casproxy.auth.keys import StaticKeys
from casproxy.auth.verifier import Verifier
from casproxy.errors import AuthError
from casproxy.rpc.api import MethodInfo, MethodKind, ServerCall
from casproxy.wire.metadata import Metadata
from casproxy_tests.auth import forge
from casproxy_tests.auth.forge import GOOD, NOW
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.fakes.call import WRITE, FakeCall

HEALTH = MethodInfo("grpc.health.v1.Health", "Check", MethodKind.UNARY)
ROLES = {WRITE.path: frozenset({Role.UPLOADER})}


async def let_in(call: FakeCall) -> Claims | None:
    """Run ``call`` through the interceptor; the claims its handler saw, None when there were none."""
    seen: list[Claims | None] = []

    async def handler(inner: ServerCall) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(None if inner.info is HEALTH else inner.attached(Claims))

    verifier = Verifier(StaticKeys(forge.keys()), now=lambda: NOW)
    intercept = auth_interceptor(verifier, ROLES, public={HEALTH.service})
    await intercept(call, handler)
    return seen.pop()


def call(*values: str, info: MethodInfo = WRITE) -> FakeCall:
    made = FakeCall(info, metadata=Metadata([("user-agent", "test"), *(("authorization", value) for value in values)]))
    made.client_push_message(b"body")
    return made


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_good_token_is_let_in_with_its_claims(scheme: str) -> None:
    claims = await let_in(call(f"{scheme} {forge.token()}"))
    assert claims is not None and claims.secret_id == GOOD["secret-id"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "JWT token is missing"),
        (["Bearer "], "JWT token is missing"),
        (["Basic dTpw"], "JWT token is missing"),
        ([forge.token()], "JWT token is missing"),
        (["Bearer nonsense"], "Token is invalid"),
        ([f"Bearer {forge.token()} x"], "Token is invalid"),
        ([f"Bearer {forge.token()}"] * 2, "Token is invalid"),
        ([f"Bearer {forge.token()}", "Bearer nonsense"], "Token is invalid"),
        (["Basic dTpw", f"Bearer {forge.token()}"], "Token is invalid"),
        ([f"Bearer {forge.token()}, Bearer {forge.token()}"], "Token is invalid"),
        ([f"Bearer Bearer {forge.token()}"], "Token is invalid"),
        ([f"Bearer\t{forge.token()}"], "JWT token is missing"),
        (["Bearer " + "A" * 1024 * 1024], "Token is invalid"),
        ([f"Bearer {forge.token({**GOOD, 'exp': NOW})}"], "JWT token has expired"),
        ([f"Bearer {forge.token({**GOOD, 'aud': 'x'})}"], "token has invalid audience"),
        ([f"Bearer {forge.token({**GOOD, 'role': 'downloader'})}"], "invalid role, got=downloader, want=uploader"),
        ([f"Bearer {forge.token(kind='other P-521')}"], "unknown signing key"),
    ],
)
async def test_everybody_else_is_refused_before_the_body_is_read(values: list[str], text: str) -> None:
    refused = call(*values)
    with pytest.raises(AuthError) as caught:
        await let_in(refused)
    assert str(caught.value) == text
    assert refused.held == len(b"body") and not refused.parts_taken


async def test_public_services_need_no_token_and_look_at_none() -> None:
    assert await let_in(call(info=HEALTH)) is None
    assert await let_in(call("Bearer nonsense", info=HEALTH)) is None


async def test_a_method_nobody_thought_of_is_closed() -> None:
    unlisted = MethodInfo(WRITE.service, "Delete", MethodKind.UNARY)
    with pytest.raises(AuthError, match=r"^invalid role, got=uploader, want=$"):
        await let_in(call(f"Bearer {forge.token()}", info=unlisted))


async def test_cancelled_anywhere_the_body_is_untouched() -> None:
    value = f"Bearer {forge.token()}"
    calls: list[FakeCall] = []

    async def scenario() -> Claims | None:
        calls.append(call(value))
        return await let_in(calls[-1])

    async def check(run: Run[Claims | None]) -> None:
        await trio.lowlevel.checkpoint()
        assert run.cancelled or run.value is not None
        assert not calls[-1].parts_taken

    assert await cancel_everywhere(scenario, check) >= 2
