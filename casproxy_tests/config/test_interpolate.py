"""Placeholders: the order of look-ups, what is literal, and what would never end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.config.files import Scalar, parse
from casproxy.config.interpolate import Interpolator
from casproxy.errors import ConfigError


def resolve(tree: str, environ: Mapping[str, str], text: str) -> str | None:
    return Interpolator(parse(tree, "f"), environ).resolve(Scalar(text, "here"))


@pytest.mark.parametrize(
    ("tree", "environ", "text", "resolved"),
    [
        ("a: {b: key}", {"CAS_a.b": "variable"}, "${a.b:default}", "key"),
        ("a: {}", {"CAS_a.b": "variable"}, "${a.b:default}", "variable"),
        ("a: {b: ~}", {"CAS_a.b": "variable"}, "${a.b:default}", "variable"),
        ("", {}, "${a.b:default}", "default"),
        ("", {}, "${a.b}", ""),
        ("", {"VAULT_TOKEN": "plain"}, "${VAULT_TOKEN:x}", "x"),
        ("", {"CAS_VAULT_TOKEN": "good"}, "${VAULT_TOKEN:x}", "good"),
        ("", {"CAS_VAULT_TOKEN": ""}, "${VAULT_TOKEN:x}", ""),
        ("VAULT_TOKEN: key", {"CAS_VAULT_TOKEN": "good"}, "${VAULT_TOKEN}", "key"),
        ("", {}, "${VAULT_ADDRESS:http://0.0.0.0:8200}", "http://0.0.0.0:8200"),
        ("a: A", {}, "x${a}y", "xAy"),
        ("a: A", {}, "${a}${a}-${b:B}", "AA-B"),
        ("a: A", {}, "${ a }", "A"),
        ("a: A", {}, "${a: }", "A"),
        ("server: {httpMetrics: {addr: A}}", {}, "${server.http_metrics.addr}${server.httpMetrics.addr}", "AA"),
        ("", {"CAS_someName": "v"}, "${someName}", "v"),
        ("{a: '<${b}>', b: '[${c:C}]'}", {}, "${a}", "<[C]>"),
        ("a: 0123", {}, "${a}", "0123"),
        ("", {}, "pa$$ {word} $x ${", "pa$$ {word} $x ${"),
    ],
)
def test_key_then_variable_then_default_then_empty(
    tree: str, environ: Mapping[str, str], text: str, resolved: str
) -> None:
    assert resolve(tree, environ, text) == resolved


def test_variables_and_defaults_are_taken_as_they_are() -> None:
    assert resolve("b: B", {"CAS_a": "${b}"}, "${a}") == "${b}"


def test_null_stays_null_and_literal_stays_literal() -> None:
    interpolator = Interpolator(parse("a: A", "f"), {})
    assert interpolator.resolve(Scalar(None, "here")) is None
    assert interpolator.resolve(Scalar("${a}", "variable X", literal=True)) == "${a}"


@pytest.mark.parametrize(
    ("tree", "text", "problem"),
    [
        ("a: ${a}", "${a}", "f:1: placeholders go in a circle: a -> a; break it"),
        ("{a: '${b}', b: '${c:x}', c: '${a}'}", "${a}", "f:1: placeholders go in a circle: a -> b -> c -> a; break it"),
        ("a: {b: 1}", "${a}", "here: ${a} names a map or a list; want a single value"),
        ("a: [1]", "${a:x}", "here: ${a} names a map or a list; want a single value"),
        ("", "${a:${b}}", "here: placeholders do not nest"),
    ],
)
def test_what_cannot_be_filled_in_is_one_line(tree: str, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(tree, {}, text)
    assert str(caught.value).startswith(problem)


def test_a_value_that_doubles_at_every_step_is_refused() -> None:
    tree = "a0: xxxxxxxxxx\n" + "".join(f"a{n}: ${{a{n - 1}}}${{a{n - 1}}}\n" for n in range(1, 31))
    with pytest.raises(ConfigError, match="longer than 64 KiB"):
        resolve(tree, {}, "${a30}")


def test_a_long_chain_is_refused() -> None:
    tree = "".join(f"a{n}: ${{a{n + 1}}}\n" for n in range(1000))
    with pytest.raises(ConfigError, match="more than 32 placeholders lead"):
        resolve(tree, {}, "${a0}")


def test_remembers_the_keys_it_was_asked_for() -> None:
    interpolator = Interpolator(parse("a: ${b.cD}", "f"), {})
    interpolator.resolve(Scalar("${a}", "here"))
    assert interpolator.used == {"a", "b.c_d"}


@given(st.text(alphabet="${}a.b: x", max_size=30), st.text(alphabet="${}a.b: x", max_size=30))
def test_any_text_is_filled_in_or_refused(key: str, text: str) -> None:
    tree = parse("", "f")
    tree.entries["a"] = Scalar(key, "f:1")
    with contextlib.suppress(ConfigError):
        assert isinstance(Interpolator(tree, {}).resolve(Scalar(text, "here")), str)
