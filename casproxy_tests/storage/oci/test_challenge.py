"""``WWW-Authenticate`` as registries send it, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.storage.oci.challenge import Challenge, parse_challenges

BEARER = {"realm": "https://auth.example/token", "service": "registry.example", "scope": "repository:a/b:pull,push"}


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="basic-realm"', [("basic", {"realm": "basic-realm"})]),
        (
            'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"',
            [("bearer", BEARER)],
        ),
        (
            'bearer Realm = "https://auth.example/token" , service=registry.example,\tscope="repository:a/b:pull,push"',
            [("bearer", BEARER)],
        ),
        ('Basic realm="a", Bearer realm="b"', [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        ('Negotiate, Basic realm="a"', [("negotiate", {}), ("basic", {"realm": "a"})]),
        ('NTLM TlRMTVNTUAAB=, Basic realm="a"', [("ntlm", {}), ("basic", {"realm": "a"})]),
        (r'Basic realm="a \"b\" \\c"', [("basic", {"realm": 'a "b" \\c'})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        (',, Basic realm="a" ,,', [("basic", {"realm": "a"})]),
        ('realm="a"', []),
        ('Bearer realm="unterminated', [("bearer", {})]),
        ("Bearer " + "x" * 9000, []),
    ],
)
def test_challenges(value: str, want: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(value) == [Challenge(scheme, parameters) for scheme, parameters in want]


@given(st.text(alphabet='Bearer realm="\\,;=/: \t', max_size=200) | st.text(max_size=200))
def test_nonsense_is_no_failure(value: str) -> None:
    for challenge in parse_challenges(value):
        assert challenge.scheme == challenge.scheme.lower() != ""
