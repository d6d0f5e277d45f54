"""A secret keeps itself to itself."""

from __future__ import annotations

import copy

import pytest

from casproxy.errors import SecretMalformed
from casproxy.secrets.api import Secret, check_secret_id

PASSWORD = "hunter2"


def test_keys_match_without_regard_to_case() -> None:
    secret = Secret({"Repository": "r", "passWord": PASSWORD})
    assert secret.text("repository") == "r" and secret.optional("PASSWORD") == PASSWORD
    assert secret.optional("absent") == ""


@pytest.mark.parametrize("value", ["", 1, None, ["x"], {"a": 1}])
def test_a_value_of_another_kind_is_named_by_its_key_only(value: object) -> None:
    with pytest.raises(SecretMalformed, match=r"^the secret has no Password$"):
        Secret({"password": value}).text("Password")


def test_it_cannot_be_shown_by_accident() -> None:
    secret = Secret({"password": PASSWORD})
    shown = [repr(secret), str(secret), f"{secret!s:>20}", repr([secret]), repr(copy.copy(secret))]
    assert not any(PASSWORD in text for text in shown)
    assert not hasattr(secret, "__iter__") and not hasattr(secret, "__dict__")


def test_fingerprints_tell_credentials_apart() -> None:
    prints = [
        Secret(fields).fingerprint
        for fields in ({"a": "1"}, {"A": "1"}, {"a": "2"}, {"a": "1", "b": ""}, {"b": "1"}, {"a": 1}, {})
    ]
    assert prints[0] == prints[1] and len(set(prints)) == 6


@pytest.mark.parametrize("secret_id", ["a", "A-1_b.c", "a/b/c", "...", "..a", "a..", "0"])
def test_good_ids(secret_id: str) -> None:
    check_secret_id(secret_id)
