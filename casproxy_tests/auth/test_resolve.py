"""From settings to keys: which settings work together, and what stops a start."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from casproxy.auth.resolve import open_keys
from casproxy.config.files import parse
from casproxy.config.load import interpret
from casproxy.config.model import Auth, Jwks
from casproxy.errors import ConfigError
from casproxy_tests.auth import forge
from casproxy_tests.auth.endpoint import document, named, open_endpoint


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(forge.public_pem("P-521"))
    return path


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_bytes(document(named("file", "P-256")))
    return path


async def test_all_sources_together(pem: Path, jwks: Path) -> None:
    async with open_endpoint(named("url", "Ed25519")) as endpoint:
        auth = Auth(public_key_path=pem, jwks=Jwks(url=endpoint.url, path=jwks))
        async with open_keys(auth) as keys:
            assert keys.keys() == (*forge.keys("P-521"), named("file", "P-256"), named("url", "Ed25519"))
            assert set(keys.ages()) == {"auth.public_key_path", "auth.jwks.path", "auth.jwks.url"}


@pytest.mark.parametrize("kind", ["P-521", "P-384", "P-256", "Ed25519", "RSA-2048"])
async def test_each_kind_of_key_from_each_kind_of_file(tmp_path: Path, kind: str) -> None:
    (tmp_path / "pem").mkdir()
    (tmp_path / "pem" / "key").write_bytes(forge.public_pem(kind))
    (tmp_path / "jwks").mkdir()
    (tmp_path / "jwks" / "keys").write_bytes(document(named("k", kind)))
    auth = Auth(public_key_path=tmp_path / "pem", jwks=Jwks(path=tmp_path / "jwks"))
    async with open_keys(auth) as keys:
        assert keys.keys() == (*forge.keys(kind), named("k", kind))


async def test_a_jwks_server_may_be_down_when_there_are_other_keys(pem: Path) -> None:
    async with open_endpoint() as endpoint:
        endpoint.down = True
        async with open_keys(Auth(public_key_path=pem, jwks=Jwks(url=endpoint.url))) as keys:
            assert keys.keys() == forge.keys("P-521")
            endpoint.down, endpoint.body = False, document(named("url", "Ed25519"))
            await keys.seek()
            assert keys.keys() == (*forge.keys("P-521"), named("url", "Ed25519"))


async def test_what_stops_a_start(tmp_path: Path, pem: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    async with open_endpoint() as endpoint:
        endpoint.down = True
        for auth, text in (
            (Auth(), r"^auth\.public_key_path is not set; name the PEM file .*, or set auth\.jwks$"),
            (
                Auth(public_key_path=tmp_path / "none"),
                r"^auth\.public_key_path: cannot read the public key .*: No such",
            ),
            (Auth(public_key_path=tmp_path / "empty"), r"^auth\.public_key_path: .*it holds 0 files"),
            (Auth(jwks=Jwks(path=tmp_path / "none")), r"^auth\.jwks\.path: cannot read the JWK Set .*: No such file"),
            (
                Auth(public_key_path=pem, jwks=Jwks(path=tmp_path / "broken.json")),
                r"^auth\.jwks\.path: .*broken\.json is not a JWK Set",
            ),
            (Auth(jwks=Jwks(url=endpoint.url)), r"^auth\.jwks\.url: cannot fetch http://127\.0\.0\.1:"),
            (Auth(public_key_path=pem, jwks=Jwks(url="ftp://x/")), r"^auth\.jwks\.url is no address of a document"),
        ):
            with pytest.raises(ConfigError, match=text):
                async with open_keys(auth):
                    raise AssertionError("it started")


@pytest.mark.parametrize("name", ["refresh", "refetch_interval"])
def test_times_that_would_flood_the_server_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^auth\.jwks\.{name}: want 1s or more"):
        msgspec.structs.replace(Jwks(), **{name: 0.5})
    assert getattr(msgspec.structs.replace(Jwks(), **{name: 1.0}), name) == 1.0


def test_settings_as_written_in_files() -> None:
    jwks = "{url: 'https://cp/keys', refresh: 1m30s, maxStale: 1h, refetchInterval: 5s}"
    loaded = interpret(parse(f"auth: {{publicKeyPath: /keys, jwks: {jwks}}}", "f"), {})
    assert not loaded.warnings
    assert loaded.config.auth == Auth(
        public_key_path=Path("/keys"),
        jwks=Jwks(url="https://cp/keys", refresh=90.0, max_stale=3600.0, refetch_interval=5.0),
    )
