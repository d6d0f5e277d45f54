"""Tokens made to deceive. A forger may know the public key; a signer may be careless: neither gets past the form."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import traceback
import zlib
from base64 import b64encode
from itertools import product

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA512
from hypothesis import example, given
from hypothesis import strategies as st

from casproxy.auth.claims import Claims
from casproxy.auth.jwks import jwks_of
from casproxy.auth.verify import UnknownKid, verify
from casproxy.errors import AuthError, SecretNotFound
from casproxy.secrets.api import check_secret_id
from casproxy_tests.auth import forge
from casproxy_tests.auth.endpoint import named
from casproxy_tests.auth.forge import GOOD, NOW

pytestmark = pytest.mark.timeout(600)  # the soak signs 20,000 tokens


def refusal(token: str, *kinds: str) -> str:
    with pytest.raises(AuthError) as caught:
        verify(token, forge.keys(*kinds), NOW)
    assert_untold(token, caught.value)
    return str(caught.value)


def assert_untold(token: str, error: AuthError) -> None:
    """Neither the error nor its traceback shows the token or a part of it."""
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(error.args) + error.cause
    assert not [part for part in (token, *token.split(".")) if len(part) > 20 and part in told]


def test_algorithm_none() -> None:
    head, payload = forge.encode(b'{"alg":"none"}'), forge.encode(json.dumps(GOOD).encode())
    assert refusal(f"{head}.{payload}.") == "Token is invalid"
    assert refusal(f"{head}.{payload}.AAAA") == "unknown signing key"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "", "HS256", "HS512", "RS256", "es512", "ES521", "EdDSA"])
def test_the_header_cannot_choose_another_algorithm(name: str) -> None:
    assert refusal(forge.token(header={"alg": name})) == "unknown signing key"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_public_key_as_hmac_secret(algorithm: str) -> None:
    signed = f"{forge.encode(json.dumps({'alg': algorithm}).encode())}.{forge.encode(json.dumps(GOOD).encode())}"
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    for secret in (forge.public_pem(), forge.public_pem().strip()):
        signature = hmac.new(secret, signed.encode(), digest).digest()
        assert refusal(f"{signed}.{forge.encode(signature)}") == "unknown signing key"


@pytest.mark.parametrize("claimed", ["ES256", "ES512"])
def test_es256_signature_under_an_es512_key(claimed: str) -> None:
    token = forge.token(kind="P-256", algorithm="ES256", header={"alg": claimed})
    assert refusal(token) == "unknown signing key"
    with pytest.raises(AuthError):
        verify(token, forge.keys("P-521", "P-384"), NOW)


KINDS = {"P-521": "ES512", "P-384": "ES384", "P-256": "ES256", "Ed25519": "EdDSA", "RSA-2048": "RS256"}
NAMES = [*KINDS.values(), "PS256", "RS384", "RS512", "PS384", "PS512", "ES256K", "Ed25519", "HS256", "none"]


@pytest.mark.parametrize(("kind", "name"), list(product(KINDS, NAMES)))
def test_each_key_passes_under_its_own_algorithm_only(kind: str, name: str) -> None:
    token = forge.token(kind=kind, algorithm=KINDS[kind], header={"alg": name})
    if name == KINDS[kind]:
        assert verify(token, forge.keys(*KINDS), NOW).backend == "OCI"
    else:
        assert refusal(token, *KINDS) == "unknown signing key"


def test_rsa_signs_two_ways_and_neither_passes_for_the_other() -> None:
    for algorithm, other in (("RS256", "PS256"), ("PS256", "RS256")):
        assert verify(forge.token(kind="RSA-2048", algorithm=algorithm), forge.keys("RSA-2048"), NOW)
        swapped = forge.token(kind="RSA-2048", algorithm=algorithm, header={"alg": other})
        assert refusal(swapped, "RSA-2048") == "unknown signing key"


def test_der_is_not_the_form_of_a_signature() -> None:
    """RFC 7518, 3.4: the two numbers side by side, not their ASN.1."""
    head, payload, _ = forge.token().split(".")
    key = forge.private_key("P-521")
    assert isinstance(key, EllipticCurvePrivateKey)
    der = key.sign(f"{head}.{payload}".encode(), ECDSA(SHA512()))
    assert refusal(f"{head}.{payload}.{forge.encode(der)}") == "unknown signing key"


def test_a_key_that_comes_with_the_token_is_no_key() -> None:
    own = jwks_of(forge.keys("other P-521"))["keys"]
    certificate = b64encode(forge.public_pem("other P-521")).decode()
    for brought in (
        {"jwk": own},
        {"x5c": [certificate]},
        {"jku": "http://127.0.0.1:1/"},
        {"x5u": "http://127.0.0.1:1/"},
    ):
        token = forge.token(kind="other P-521", header={"alg": "ES512", **brought})
        assert refusal(token) == "unknown signing key"


@pytest.mark.parametrize("kid", ["", "b", "../../dev/null", "x' OR 1=1 --", "\0", "\ud800", "k" * 1000], ids=ascii)
def test_kid_only_chooses_among_our_keys(kid: str) -> None:
    keys = (named("a"), named("b", "P-256"))
    with pytest.raises(AuthError, match=r"^unknown signing key$") as caught:
        verify(forge.token(kid=kid), keys, NOW)
    assert_untold(forge.token(kid=kid), caught.value)
    assert isinstance(caught.value, UnknownKid) == (kid != "b")
    assert verify(forge.token(kid="a"), keys, NOW) == verify(forge.token(), keys, NOW)


def test_nothing_is_decompressed() -> None:
    packed = zlib.compress(json.dumps(GOOD).encode(), wbits=-15)
    bomb = zlib.compress(bytes(10**6), wbits=-15)
    for payload in (packed, bomb):
        assert refusal(forge.token(payload, header={"alg": "ES512", "zip": "DEF"})) == "Token is invalid"
    assert verify(forge.token(header={"alg": "ES512", "zip": "DEF"}), forge.keys(), NOW)  # a name without meaning here


def test_encrypted_tokens_are_none_of_ours() -> None:
    """RFC 7516: five parts; a JWS in JSON is none either (RFC 7515, 7.2)."""
    head = forge.encode(b'{"alg":"dir","enc":"A256GCM","zip":"DEF"}')
    assert refusal(f"{head}..{'A' * 16}.{'A' * 400}.{'A' * 22}") == "Token is invalid"
    head, payload, signature = forge.token().split(".")
    flattened = json.dumps({"protected": head, "payload": payload, "signature": signature})
    assert refusal(flattened) == "Token is invalid"
    assert refusal(forge.encode(flattened.encode())) == "Token is invalid"


def test_a_token_within_a_token() -> None:
    assert refusal(forge.token(forge.token().encode(), header={"alg": "ES512", "cty": "JWT"})) == "Token is invalid"


def test_stripped_and_swapped_signatures() -> None:
    good, other = forge.token(), forge.token({**GOOD, "role": "downloader"})
    head, payload, signature = good.split(".")
    for stripped in (f"{head}.{payload}", f"{head}.{payload}.", f"{head}.{payload}..", f".{payload}.{signature}"):
        assert refusal(stripped) == "Token is invalid"
    assert refusal(f"{head}.{payload}.{other.split('.')[2]}") == "unknown signing key"
    assert refusal(f"{head}.{other.split('.')[1]}.{signature}") == "unknown signing key"
    for broken in (b"\0" * 132, b"\xff" * 132, b"\0", os.urandom(131), os.urandom(133)):
        assert refusal(f"{head}.{payload}.{forge.encode(broken)}") == "unknown signing key"


@pytest.mark.parametrize("crit", [["b64"], ["exp"], [], None, "b64"], ids=str)
def test_critical_headers(crit: object) -> None:
    assert (
        refusal(forge.token(header={"alg": "ES512", "crit": crit, "b64": True})) == "token has unsupported crit header"
    )


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"alg": None},
        {"alg": ["ES512"]},
        {"alg": {"ES512": 1}},
        {"alg": 512},
        {"alg": "ES512", "kid": 1},
        {"alg": "ES512", "kid": ["a"]},
        b'{"alg":"none","alg":"ES512"}',
        b"[]",
        b"null",
        b"",
        b"{",
        b"\xff\xfe",
    ],
    ids=str,
)
def test_broken_headers(header: dict[str, object] | bytes) -> None:
    assert refusal(forge.token(header=header)) == "Token is invalid"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"role"',
        b"{}{}",
        json.dumps(GOOD).encode("utf-16"),
        json.dumps(GOOD).encode("utf-8-sig"),
        json.dumps(GOOD).encode()[:-1] + b',"x":"\xff"}',
        json.dumps(GOOD).encode()[:-1] + b',"x":"\xc0\xaf"}',
        json.dumps(GOOD).encode()[:-1] + b',"role":"downloader"}',
        json.dumps(GOOD).encode()[:-1] + b',"r\\u006fle":"uploader"}',
        json.dumps(GOOD).encode()[:-1] + b',"x":{"a":1,"a":1}}',
        json.dumps(GOOD).encode()[:-1] + b',"x":NaN}',
        json.dumps(GOOD).encode()[:-1] + b',"x":-Infinity}',
        b'{"x":' + b"[" * 5000 + b"]" * 500 + b"}",
        b'{"maxbytes":' + b"9" * 5000 + b"}",
    ],
    ids=lambda payload: repr(payload[-24:]),
)
def test_broken_payloads(payload: bytes) -> None:
    assert refusal(forge.token(payload)) == "Token is invalid"


@pytest.mark.parametrize(
    "change",
    [
        *product(["exp"], ["1700000600", "", None, True, [1], {"a": 1}, 10**400]),
        *product(["nbf"], ["0", None, False, [0], -(10**400)]),
        *product(["maxbytes"], [-1, 2**63, 10**30, 1.0, 1e3, "100", True, None, [1]]),
        *product(["role"], [None, 1, ["uploader"], True, "up\nloader", "\ud800"]),
        *product(["secret-id"], [None, 1, ["a"], {"a": 1}, "a\0b", "a\r\nb"]),
        *product(["backend"], [None, 1, ["OCI"], "OCI\n"]),
        *product(["org-id"], [None, 1, "a\nb", "\ud800", "a\u2028b"]),
        *product(["source-internal"], [None, 1, "true", []]),
    ],
    ids=lambda change: ascii(change)[:30],
)
def test_claims_of_the_wrong_type(change: tuple[str, object]) -> None:
    assert refusal(forge.token({**GOOD, change[0]: change[1]})) == "Token is invalid"


def test_deep_nesting_that_parses_is_no_harm() -> None:
    deep: object = 1
    for _ in range(400):
        deep = {"x": deep}
    assert verify(forge.token({**GOOD, "deep": deep}), forge.keys(), NOW)


@pytest.mark.parametrize("number", [b"1e400", b"-1e400"])
def test_dates_beyond_floats(number: bytes) -> None:
    payload = json.dumps({**GOOD, "exp": 0}).encode().replace(b'"exp": 0', b'"exp": ' + number)
    assert refusal(forge.token(payload)) == "Token is invalid"


def test_spellings_of_one_token() -> None:
    good = forge.token()
    head, payload, signature = good.split(".")
    spellings = [f" {good}", f"{good} ", f"{good}\n", f"{good}=", f"{head}=.{payload}.{signature}", f"{good}."]
    spellings += [f"{head}.{payload}..{signature}", good.replace("_", "/").replace("-", "+") + "/", f"{good}é"]
    for spelling in spellings:
        assert refusal(spelling) == "Token is invalid", spelling


def test_stray_bits_of_the_last_character() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    head, payload, signature = forge.token(header=b'{"alg":"ES512" }').split(".")
    assert len(payload) % 4 or len(head) % 4, "no segment has spare bits: change the header above"
    for position, segment in enumerate((head, payload)):
        if len(segment) % 4:
            last = alphabet[alphabet.index(segment[-1]) ^ 1]
            segments = [head, payload, signature]
            segments[position] = segment[:-1] + last
            assert refusal(".".join(segments)) == "Token is invalid"


@pytest.mark.parametrize("size", [8 * 1024 + 1, 1024 * 1024])
def test_oversized_tokens_are_refused_before_they_are_read(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> object:
        raise AssertionError("the token was decoded")

    monkeypatch.setattr("casproxy.auth.verify.json.loads", read)
    good = forge.token()
    assert refusal(good + "A" * (size - len(good))) == "Token is invalid"
    assert refusal("." * size) == "Token is invalid"


@pytest.mark.parametrize("text", ["é.é.é", "a.b", "a", ".", "..", "...", "\ud800.a.a", "eyJ.\0.A", "a.b.c"])
def test_no_token_at_all(text: str) -> None:
    assert refusal(text) == "Token is invalid"


@given(
    st.text(max_size=200) | st.lists(st.from_regex(r"[A-Za-z0-9_-]{0,40}", fullmatch=True), max_size=5).map(".".join)
)
def test_any_text_is_refused_and_nothing_else_is_raised(text: str) -> None:
    with pytest.raises(AuthError):
        verify(text, forge.keys("P-521", "RSA-2048", "Ed25519"), NOW)


_GOOD_TOKEN = forge.token()


@given(st.data())
def test_any_change_to_a_good_token_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(_GOOD_TOKEN)))
    cut = data.draw(st.integers(0, 3))
    put = data.draw(st.text("AZaz09_-.=+/", max_size=3))
    changed = _GOOD_TOKEN[:at] + put + _GOOD_TOKEN[at + cut :]
    if changed == _GOOD_TOKEN:
        assert verify(changed, forge.keys(), NOW)
        return
    assert refusal(changed) in {"Token is invalid", "unknown signing key", "JWT token is missing"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_OFTEN_GOOD = {name: st.just(value) | _JSON for name, value in GOOD.items()}
_PAYLOADS = st.fixed_dictionaries({}, optional={**_OFTEN_GOOD, "nbf": _JSON, "source-internal": st.booleans() | _JSON})


@given(_PAYLOADS)
@example(dict(GOOD))
@example({**GOOD, "aud": ["artifact-cas.chainloop", ["artifact-cas.chainloop"]]})
def test_signed_nonsense_gives_sound_claims_or_a_refusal(payload: dict[str, object]) -> None:
    token = forge.token(payload, kind="Ed25519", algorithm="EdDSA")
    verdict = verdict_on(token)
    if isinstance(verdict, Claims):
        assert_sound(verdict, payload)
    else:
        assert 0 < len(verdict) < 120 and token not in verdict


def verdict_on(token: str) -> Claims | str:
    try:
        return verify(token, forge.keys("Ed25519"), NOW)
    except AuthError as error:
        return str(error)


def assert_sound(claims: Claims, payload: dict[str, object]) -> None:
    assert claims.role == payload["role"] and claims.backend == payload["backend"]
    check_secret_id(claims.secret_id)
    assert 0 <= claims.max_bytes < 2**63 and claims.max_bytes == payload.get("maxbytes", 0)
    assert (claims.expires_at is None) == ("exp" not in payload)
    assert claims.expires_at is None or claims.expires_at > NOW
    assert claims.not_before is None or claims.not_before <= NOW
    assert "artifact-cas.chainloop" in json.dumps(payload["aud"])


@given(st.text(max_size=30) | st.from_regex(r"[a-z./_-]{1,12}", fullmatch=True))
@example("a\n")
@example("..a")
@example("a/.")
@example("..")
@example("../a")
@example("ａ")
def test_secret_ids_that_pass_are_safe_paths(secret_id: str) -> None:
    try:
        check_secret_id(secret_id)
    except SecretNotFound:
        return
    assert os.path.normpath(secret_id) == secret_id and not secret_id.startswith("/")
    assert ".." not in secret_id.split("/")
    assert secret_id.isascii() and secret_id.isprintable() and not set(secret_id) & set(" ?#%&\\:")
