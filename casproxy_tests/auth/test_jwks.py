"""JWK Sets as they are published: several keys, some not for us, some wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from casproxy.auth.jwks import jwks_of, parse_jwks, thumbprint
from casproxy.auth.keys import VerificationKey
from casproxy.errors import ConfigError
from casproxy_tests.auth import forge
from casproxy_tests.auth.endpoint import document, named

KINDS = ["P-521", "P-384", "P-256", "Ed25519", "RSA-2048"]


def jwk(kind: str = "P-521", **change: Any) -> dict[str, Any]:
    """A key as published; a member changed to None is left out."""
    (member,) = json.loads(document(named("k", kind)))["keys"]
    return {name: value for name, value in (member | change).items() if value is not None}


def parse(*members: object) -> tuple[VerificationKey, ...]:
    return parse_jwks(json.dumps({"keys": members}).encode(), origin="keys.json")


def skipped(*members: object) -> list[str]:
    """Why the members before a good one are skipped."""
    with capture_logs() as logs:
        (key,) = parse(*members, jwk(kid="good"))
    assert key.kid == "good"
    assert {line["event"] for line in logs} <= {"jwks_key_skipped"}
    return [line["reason"] for line in logs]


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind: str) -> None:
    assert parse_jwks(document(named("k", kind)), origin="x") == (named("k", kind),)


def test_a_key_without_a_name_is_published_under_its_thumbprint() -> None:
    (key,) = forge.keys("P-256")
    (read,) = parse_jwks(document(key), origin="x")
    assert read.kid == thumbprint(key.key) and len(read.kid) == 43


def test_thumbprint_of_the_rfc() -> None:
    """RFC 7638, section 3.1."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3ok"
        "njhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6"
        "qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awa"
        "pJzKnqDKgw"
    )
    (key,) = parse({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"})
    assert key.algorithms == {"RS256"} and thumbprint(key.key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_names_are_kept_and_may_be_absent_or_shared() -> None:
    assert [key.kid for key in parse(jwk(kid="a"), jwk(kid=None), jwk("P-256", kid="a"))] == ["a", None, "a"]


@pytest.mark.parametrize(
    ("kind", "alg", "algorithms"),
    [
        ("RSA-2048", None, {"RS256", "PS256"}),
        ("RSA-2048", "RS256", {"RS256"}),
        ("RSA-2048", "PS256", {"PS256"}),
        ("P-384", None, {"ES384"}),
        ("Ed25519", "EdDSA", {"EdDSA"}),
    ],
)
def test_alg_narrows(kind: str, alg: str | None, algorithms: set[str]) -> None:
    assert parse(jwk(kind, alg=alg))[0].algorithms == algorithms


@pytest.mark.parametrize(
    "purpose", [{"use": None}, {"key_ops": ["verify"]}, {"use": "sig", "key_ops": ["sign", "verify"]}]
)
def test_keys_for_checking_signatures_are_taken(purpose: dict[str, Any]) -> None:
    assert parse(jwk(**purpose)) == (named("k"),)


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (jwk(use="enc"), "its use is not sig"),
        (jwk(use=["sig"]), "its use is not sig"),
        (jwk(key_ops=["sign"]), "its key_ops do not include verify"),
        (jwk(key_ops="verify"), "its key_ops do not include verify"),
        (jwk(key_ops=[]), "its key_ops do not include verify"),
        (jwk(alg="ES256"), "its alg does not fit its type"),
        (jwk(alg="none"), "its alg does not fit its type"),
        (jwk(alg=["ES512"]), "its alg does not fit its type"),
        (jwk("RSA-2048", alg="HS256"), "its alg does not fit its type"),
        (jwk("RSA-2048", alg="RS512"), "its alg does not fit its type"),
        (jwk(kty="oct", k="c2VjcmV0"), "its kty is not EC, OKP or RSA"),
        (jwk(kty="AKP"), "its kty is not EC, OKP or RSA"),
        (jwk(kty=None), "its kty is not EC, OKP or RSA"),
        (jwk(kty={"EC": 1}), "its kty is not EC, OKP or RSA"),
        (jwk(d="AAAA"), "it is a private key, and now known to whoever reads this document: replace the pair"),
        (jwk(kid=7), "its kid is not a text"),
        (jwk(crv="P-256"), "its numbers are missing or no key of this type"),
        (jwk(x=None), "its numbers are missing or no key of this type"),
        (jwk(x=5), "its numbers are missing or no key of this type"),
        (jwk(x="A" * 88), "its numbers are missing or no key of this type"),
        (jwk(x="é"), "its numbers are missing or no key of this type"),
        (jwk("Ed25519", crv="X25519"), "its numbers are missing or no key of this type"),
        (jwk("Ed25519", x="AAAA"), "its numbers are missing or no key of this type"),
        (jwk("RSA-2048", n=None), "its numbers are missing or no key of this type"),
        (jwk("RSA-2048", e="AA"), "its numbers are missing or no key of this type"),
        (jwk("RSA-2048", n="_" * 170), "its curve is not accepted, or its modulus is too short"),
        ("text", "it is not an object"),
        (None, "it is not an object"),
    ],
)
def test_a_key_we_cannot_use_is_skipped_and_told(member: object, reason: str) -> None:
    assert skipped(member) == [reason]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"<html>", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a JWK Set"),
        (b'{"keys":{}}', "is not a JWK Set"),
        (json.dumps(jwk()).encode(), "is not a JWK Set"),
        (b'{"keys":[]}', "holds no key that can check tokens"),
        (b'{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}', "holds no key that can check tokens"),
        (b'{"keys":[' + b"0," * 100 + b"0]}", "holds 101 keys; at most 100 are read"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_no_set_at_all(data: bytes, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_jwks(data, origin="keys.json")
    assert str(caught.value).startswith(f"keys.json {text}") and "c2VjcmV0" not in str(caught.value)


_MEMBERS = ["kty", "crv", "x", "y", "n", "e", "d", "alg", "use", "kid", "key_ops"]
_VALUES = (
    st.none() | st.integers() | st.text(max_size=10) | st.sampled_from(["EC", "OKP", "RSA", "P-521", "AQAB", "sig"])
)


@given(st.lists(st.dictionaries(st.sampled_from(_MEMBERS), _VALUES | st.lists(_VALUES, max_size=2)), max_size=3))
def test_any_document_gives_sound_keys_or_a_config_error(members: list[dict[str, object]]) -> None:
    try:
        keys = parse(*members)
    except ConfigError:
        return
    assert jwks_of(keys)["keys"] and all(key.algorithms for key in keys)
