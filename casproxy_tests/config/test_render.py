"""Showing a configuration: complete, loadable again, without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from casproxy.config import Config, load
from casproxy.config.files import parse
from casproxy.config.load import interpret
from casproxy.config.model import NatsServer
from casproxy.config.render import to_yaml
from casproxy_tests.config.test_load import DOCUMENTED


def test_secrets_are_hidden() -> None:
    text = to_yaml(interpret(parse(DOCUMENTED, "f"), {}).config)
    for secret in ("t0ken", "key@sentry", "n4ts"):
        assert secret not in text
    assert text.count("******") == 3


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("aws_secret_manager: {creds: {access_key: a, secret_key: hunter2}, region: r}", "hunter2"),
        ("azure_key_vault: {client_secret: hunter2, vault_uri: u}", "hunter2"),
    ],
)
def test_secrets_of_clouds_are_hidden(text: str, secret: str) -> None:
    config = interpret(parse(f"credentials_service: {{{text}}}", "f"), {}).config
    assert secret not in to_yaml(config)
    assert secret not in repr(config)


def test_a_password_in_an_address_is_hidden() -> None:
    text = to_yaml(Config(nats_server=NatsServer(uri="nats://user:hunter2@host:4222")))
    assert "hunter2" not in text
    assert "nats://******@host:4222" in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "server: {grpc: {timeout: 0s, tls_config: {certificate: c, private_key: k}}, memory_budget: 100000}",
        "server: {http: {cors: {allow_origins: ['*', 'http://ä']}}, drain_grace: 1500ms}\nstorage: {fs: {root: /d}}",
        "credentials_service: {gcp_secret_manager: {project_id: '0123'}}",
    ],
)
def test_what_is_shown_loads_as_the_same(text: str, tmp_path: Path) -> None:
    config = interpret(parse(text, "f"), {}).config
    path = tmp_path / "shown.yaml"
    path.write_text(to_yaml(config), "utf-8")
    assert load(path, {}).config == config
