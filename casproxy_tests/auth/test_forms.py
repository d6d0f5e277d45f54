"""Exactly the forms that are valid pass: hypothesis makes good claims and headers of every form, then spoils one.

The texts of the refusals are those that existing clients match on.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.auth.claims import Claims, Role
from casproxy.auth.verify import verify
from casproxy.errors import AuthError
from casproxy_tests.auth import forge
from casproxy_tests.auth.forge import NOW

pytestmark = pytest.mark.timeout(600)  # the soak signs 20,000 tokens a test

OURS = "artifact-cas.chainloop"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PRINTABLE = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=30)
SECRET_IDS = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,8}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,8}){0,3}", fullmatch=True)
AUDIENCES = st.just(OURS) | st.lists(st.text(max_size=8), max_size=3).flatmap(
    lambda others: st.permutations([OURS, *others])
)
LATER = st.integers(int(NOW) + 1, 10**300) | st.floats(NOW + 1e-6, 1e300)
EARLIER = st.integers(-(10**300), int(NOW)) | st.floats(-1e300, NOW)
FOREIGN = st.dictionaries(st.from_regex(r"x-[a-z]{1,5}|iss|sub|jti|iat", fullmatch=True), JSON, max_size=3)

GOOD = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["uploader", "downloader"]),
        "secret-id": SECRET_IDS,
        "backend": PRINTABLE,
        "aud": AUDIENCES,
    },
    optional={
        "org-id": PRINTABLE | st.just(""),
        "maxbytes": st.integers(0, 2**63 - 1),
        "source-internal": st.booleans(),
        "exp": LATER,
        "nbf": EARLIER,
    },
)

_NO_TEXT = st.one_of(st.none(), st.booleans(), st.integers(), st.lists(st.text(), max_size=1), st.just("a\nb"))
_NO_NUMBER = st.one_of(st.none(), st.booleans(), st.text(max_size=5), st.lists(st.integers(), max_size=1))
SPOILT: Mapping[str, st.SearchStrategy[tuple[str, object, str]]] = {
    "wrong type": st.one_of(
        st.tuples(st.sampled_from(["role", "secret-id", "backend", "org-id"]), _NO_TEXT, st.just("Token is invalid")),
        st.tuples(st.sampled_from(["exp", "nbf"]), _NO_NUMBER, st.just("Token is invalid")),
        st.tuples(st.sampled_from(["exp", "nbf"]), st.just(10**400), st.just("Token is invalid")),
        st.tuples(st.just("maxbytes"), _NO_NUMBER | st.floats(0, 1e9), st.just("Token is invalid")),
        st.tuples(st.just("maxbytes"), st.integers(max_value=-1) | st.integers(2**63), st.just("Token is invalid")),
        st.tuples(st.just("source-internal"), st.none() | st.integers() | st.text(), st.just("Token is invalid")),
    ),
    "time": st.one_of(
        st.tuples(st.just("exp"), EARLIER, st.just("JWT token has expired")),
        st.tuples(st.just("nbf"), LATER, st.just("JWT token has expired")),
    ),
    "audience": st.tuples(
        st.just("aud"),
        st.one_of(
            st.none(), st.integers(), st.text(max_size=30), st.just([[OURS]]), st.just([OURS, 1]), st.just({OURS: 1})
        ),
        st.just("token has invalid audience"),
    ),
    "empty": st.sampled_from(
        [
            ("role", "", "invalid role, got=, want=downloader or uploader"),
            ("role", "admin", "invalid role, got=admin, want=downloader or uploader"),
            ("role", "Uploader", "invalid role, got=Uploader, want=downloader or uploader"),
            ("secret-id", "", "missing secret reference"),
            ("secret-id", "a/../b", "invalid secret reference"),
            ("backend", "", "missing backend type"),
        ]
    ),
}


def token_of(claims: Mapping[str, object]) -> str:
    return forge.token(claims, kind="Ed25519", algorithm="EdDSA")


@given(GOOD, FOREIGN)
def test_every_valid_form_passes(good: dict[str, object], foreign: dict[str, object]) -> None:
    exp, nbf = good.get("exp"), good.get("nbf")
    assert verify(token_of(foreign | good), forge.keys("Ed25519"), NOW) == Claims(
        role=Role(str(good["role"])),
        secret_id=str(good["secret-id"]),
        backend=str(good["backend"]),
        org_id=str(good.get("org-id", "")),
        max_bytes=good.get("maxbytes", 0),  # type: ignore[arg-type]
        source_internal=bool(good.get("source-internal", False)),
        expires_at=None if exp is None else float(exp),  # type: ignore[arg-type]
        not_before=None if nbf is None else float(nbf),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("how", SPOILT)
@given(data=st.data())
def test_a_valid_form_with_one_claim_spoilt_is_refused_in_the_exact_words(how: str, data: st.DataObject) -> None:
    good = data.draw(GOOD)
    name, value, text = data.draw(SPOILT[how])
    token = token_of(good | {name: value})
    with pytest.raises(AuthError) as caught:
        verify(token, forge.keys("Ed25519"), NOW)
    assert str(caught.value) == text and token not in repr(caught.value)


@given(
    st.fixed_dictionaries({"alg": st.just("EdDSA")}, optional={"typ": JSON, "kid": st.text(max_size=10)}),
    st.dictionaries(st.sampled_from(["zip", "enc", "cty", "jku", "jwk", "x5c", "b64", "x"]), JSON, max_size=3),
)
def test_headers_without_meaning_are_ignored(header: dict[str, object], more: dict[str, object]) -> None:
    token = forge.token(kind="Ed25519", algorithm="EdDSA", header=header | more)
    assert verify(token, forge.keys("Ed25519"), NOW)


@given(st.fixed_dictionaries({}, optional={"alg": JSON, "kid": JSON, "crit": JSON, "typ": JSON}))
def test_headers_with_meaning_pass_in_one_form_only(header: dict[str, object]) -> None:
    good = header.get("alg") == "EdDSA" and "crit" not in header and isinstance(header.get("kid"), str | None)
    token = forge.token(kind="Ed25519", algorithm="EdDSA", header=header)
    if good:
        assert verify(token, forge.keys("Ed25519"), NOW)
        return
    with pytest.raises(AuthError, match=r"^(Token is invalid|unknown signing key|token has unsupported crit header)$"):
        verify(token, forge.keys("Ed25519"), NOW)
