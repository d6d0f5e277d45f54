"""The forms of a good token, the texts of every refusal."""

from __future__ import annotations

import pytest

from casproxy.auth.claims import Claims, Role
from casproxy.auth.verify import MAX_TOKEN_SIZE, require_role, verify
from casproxy.errors import AuthError
from casproxy_tests.auth import forge
from casproxy_tests.auth.forge import GOOD, NOW


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in GOOD.items() if key != name}


def refusal(token: str, **options: object) -> AuthError:
    with pytest.raises(AuthError) as caught:
        verify(token, forge.keys(), NOW, **options)  # type: ignore[arg-type]
    return caught.value


def test_good_token() -> None:
    assert verify(forge.token(), forge.keys(), NOW) == Claims(
        role=Role.UPLOADER,
        secret_id="tenants/acme-1",
        backend="OCI",
        org_id="5d2a9d6c-2f4f-4a4e-8d3b-1c1f7f5b0a11",
        max_bytes=104857600,
        expires_at=NOW + 600,
    )


def test_only_role_secret_backend_and_audience_are_needed() -> None:
    bare = {name: GOOD[name] for name in ("role", "secret-id", "backend", "aud")}
    claims = verify(forge.token(bare), forge.keys(), NOW)
    assert claims == Claims(role=Role.UPLOADER, secret_id="tenants/acme-1", backend="OCI")


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "artifact-cas.chainloop"},
        {"aud": ["other", "artifact-cas.chainloop"]},
        {"exp": NOW + 0.5},
        {"exp": 10**15},
        {"exp": 1e300},
        {"nbf": NOW},
        {"nbf": NOW - 0.5},
        {"nbf": -1},
        {"maxbytes": 0},
        {"maxbytes": 2**63 - 1},
        {"source-internal": True},
        {"iss": "anybody"},
        {"unknown": {"deep": [[[1]]]}},
        {"org-id": ""},
        {"secret-id": "a.b_C-9/..d"},
    ],
    ids=str,
)
def test_valid_forms(change: dict[str, object]) -> None:
    assert verify(forge.token({**GOOD, **change}), forge.keys(), NOW).role is Role.UPLOADER


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("P-521", "ES512"),
        ("P-384", "ES384"),
        ("P-256", "ES256"),
        ("Ed25519", "EdDSA"),
        ("RSA-2048", "RS256"),
        ("RSA-2048", "PS256"),
    ],
)
def test_each_kind_of_key_has_its_algorithm(kind: str, algorithm: str) -> None:
    everything = forge.keys("P-256", "P-384", "P-521", "Ed25519", "RSA-2048")
    token = forge.token(kind=kind, algorithm=algorithm)
    assert verify(token, everything, NOW).role is Role.UPLOADER
    others = tuple(key for key in everything if algorithm not in key.algorithms)
    with pytest.raises(AuthError, match=r"^unknown signing key$"):
        verify(token, others, NOW)


def test_every_fitting_key_is_tried_without_a_kid() -> None:
    assert verify(forge.token(), forge.keys("other P-521", "P-521"), NOW).role is Role.UPLOADER


def test_a_kid_chooses_among_named_keys_and_leaves_unnamed_ones() -> None:
    from dataclasses import replace

    unnamed = forge.keys()[0]
    named = replace(unnamed, kid="2026")
    asks = {kid: forge.token(header={"alg": "ES512", "kid": kid}) for kid in ("2026", "2027")}
    assert verify(asks["2026"], (named,), NOW)
    assert verify(asks["2027"], (unnamed,), NOW)
    assert verify(forge.token(), (named,), NOW)
    with pytest.raises(AuthError, match=r"^unknown signing key$"):
        verify(asks["2027"], (named,), NOW)


@pytest.mark.parametrize(
    ("change", "text", "cause"),
    [
        ({"exp": NOW}, "JWT token has expired", "expired"),
        ({"exp": NOW - 0.5}, "JWT token has expired", "expired"),
        ({"exp": -(10**30)}, "JWT token has expired", "expired"),
        ({"nbf": NOW + 0.5}, "JWT token has expired", "not_yet_valid"),
        ({"aud": "artifact-cas"}, "token has invalid audience", "audience"),
        ({"aud": []}, "token has invalid audience", "audience"),
        ({"aud": ["artifact-cas.chainloop", 1]}, "token has invalid audience", "audience"),
        ({"aud": {"artifact-cas.chainloop": 1}}, "token has invalid audience", "audience"),
        ({"role": "admin"}, "invalid role, got=admin, want=downloader or uploader", "role"),
        ({"role": "Uploader"}, "invalid role, got=Uploader, want=downloader or uploader", "role"),
        ({"secret-id": ""}, "missing secret reference", "secret_id"),
        ({"secret-id": "../a"}, "invalid secret reference", "secret_id"),
        ({"secret-id": "a//b"}, "invalid secret reference", "secret_id"),
        ({"secret-id": "/a"}, "invalid secret reference", "secret_id"),
        ({"secret-id": "a?b"}, "invalid secret reference", "secret_id"),
        ({"backend": ""}, "missing backend type", "backend"),
    ],
    ids=str,
)
def test_refused_claims(change: dict[str, object], text: str, cause: str) -> None:
    error = refusal(forge.token({**GOOD, **change}))
    assert (str(error), error.cause) == (text, cause)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("role", "invalid role, got=, want=downloader or uploader"),
        ("secret-id", "missing secret reference"),
        ("backend", "missing backend type"),
        ("aud", "token has invalid audience"),
    ],
)
def test_missing_claims(name: str, text: str) -> None:
    assert str(refusal(forge.token(without(name)))) == text


def test_missing_token() -> None:
    error = refusal("")
    assert (str(error), error.cause) == ("JWT token is missing", "missing")


def test_other_key() -> None:
    error = refusal(forge.token(kind="other P-521"))
    assert (str(error), error.cause) == ("unknown signing key", "unknown_key")


def test_hardening() -> None:
    eternal = forge.token(without("exp"))
    assert str(refusal(eternal, require_exp=True)) == "token has no expiry"
    assert str(refusal(forge.token(), issuer="cp.chainloop")) == "token has invalid issuer"
    assert verify(forge.token({**GOOD, "iss": "cp"}), forge.keys(), NOW, issuer="cp", require_exp=True)
    assert verify(forge.token({**GOOD, "aud": "other"}), forge.keys(), NOW, audience="other")


def test_longest_token() -> None:
    room = MAX_TOKEN_SIZE - len(forge.token({**GOOD, "pad": ""}))
    padded = forge.token({**GOOD, "pad": "x" * (room * 3 // 4 - 3)})
    assert MAX_TOKEN_SIZE - 8 <= len(padded) <= MAX_TOKEN_SIZE
    assert verify(padded, forge.keys(), NOW)
    assert str(refusal(forge.token({**GOOD, "pad": "x" * room}))) == "Token is invalid"


def test_roles() -> None:
    claims = verify(forge.token(), forge.keys(), NOW)
    require_role(claims, {Role.UPLOADER})
    require_role(claims, frozenset(Role))
    with pytest.raises(AuthError, match=r"^invalid role, got=uploader, want=downloader$"):
        require_role(claims, {Role.DOWNLOADER})
