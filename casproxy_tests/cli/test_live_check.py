"""``casproxy config check --live``: one line per tenant that says what works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from casproxy.cli.live_check import Finding, check_live, parse_tenant
from casproxy.cli.main import main
from casproxy.config import Config
from casproxy.config.model import CredentialsService, FileSource, Fs, Outbound, Storage
from casproxy.storage.api import Tenant
from casproxy_tests.fakes.registry import Account, Basic, serve_registry


def configuration(tmp_path: Path, secrets: dict[str, dict[str, str]]) -> Config:
    path = tmp_path / "secrets.yaml"
    path.write_text(json.dumps(secrets))
    path.chmod(0o600)
    return Config(
        credentials_service=CredentialsService(file=FileSource(path=path)),
        outbound=Outbound(allow=("127.0.0.0/8",)),
        storage=Storage(fs=Fs(root=tmp_path / "store")),
    )


def login(host: str, password: str = "right") -> dict[str, str]:
    return {"Repo": f"{host}/team/cas", "Username": "alice", "Password": password}


@pytest.mark.parametrize(
    ("text", "tenant"), [("team/a", Tenant("OCI", "team/a")), ("FS:dev", Tenant("FS", "dev")), (":x", Tenant("", "x"))]
)
def test_tenants(text: str, tenant: Tenant) -> None:
    assert parse_tenant(text) == tenant


async def test_what_works_and_what_does_not(tmp_path: Path) -> None:
    async with serve_registry(auth=Basic({"alice": Account("right", "team/")})) as registry:
        secrets = {
            "good": login(registry.host),
            "bad": login(registry.host, "wrong"),
            "metadata": login("169.254.169.254"),
            "half": {"Repo": "registry.example/x"},
            "local": {"Path": "here"},
        }
        config = configuration(tmp_path, secrets)
        asked = ["good", "bad", "metadata", "half", "missing", "FS:local", "S3:good"]
        first, *rest = await check_live(config, [parse_tenant(text) for text in asked])
        assert registry.store.visible() == {}
    assert first == Finding("credentials_service.file: ok", good=True)
    found = dict(zip(asked, rest, strict=True))
    assert found["good"] == Finding("OCI good: login ok, pull ok, push ok", good=True)
    assert found["FS:local"] == Finding("FS local: login ok, pull ok, push ok", good=True)
    assert {name for name in asked if found[name].good} == {"good", "FS:local"}
    assert "login failed, pull failed (" in found["bad"].text and "refused the credentials" in found["bad"].text
    assert "never connected to" in found["metadata"].text
    assert found["half"].text == "OCI half: the secret has no Username"
    assert found["missing"].text == "OCI missing: secret missing not found"
    assert found["S3:good"].text == 'S3 good: backend "S3" not found'
    assert "wrong" not in "".join(finding.text for finding in rest)


async def test_a_source_that_cannot_be_used(tmp_path: Path) -> None:
    config = Config(credentials_service=CredentialsService(file=FileSource(path=tmp_path / "none.yaml")))
    (finding,) = await check_live(config, [Tenant("OCI", "x")])
    assert not finding.good and "none.yaml" in finding.text


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secrets = tmp_path / "secrets.yaml"
    secrets.write_text('{"dev": {"Path": "here"}}')
    secrets.chmod(0o600)
    conf = tmp_path / "c.yaml"
    conf.write_text(
        json.dumps(
            {"credentials_service": {"file": {"path": str(secrets)}}, "storage": {"fs": {"root": str(tmp_path)}}}
        )
    )
    command = ["config", "check", "--conf", str(conf), "--live", "--secret"]
    assert main([*command, "FS:dev"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["FS dev: login ok, pull ok, push ok"]
    assert main([*command, "FS:other"]) == 1
