"""What AWS, GCP and Azure do differently: their refusals, their logins, and the sentence each start-up check gives."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import structlog.testing
import trio

from casproxy.config.kinds import SecretStr
from casproxy.config.model import AwsCreds, AwsSource, AzureSource, GcpSource
from casproxy.errors import (
    ConfigError,
    SecretDenied,
    SecretError,
    SecretMalformed,
    SecretNotFound,
    SecretUnavailable,
)
from casproxy.secrets.api import SecretSource
from casproxy.secrets.aws import open_aws
from casproxy.secrets.azure import open_azure
from casproxy.secrets.gcp import open_gcp
from casproxy.secrets.remote import LoginRefused
from casproxy_tests.fakes.azure_key_vault import FEDERATED_TOKEN, TENANT
from casproxy_tests.secrets.reports import everything
from casproxy_tests.secrets.rigs import PREFIX, AwsRig, AzureRig, GcpRig

PASSWORD = "canary-correct-horse"


async def refused(opening: AbstractAsyncContextManager[SecretSource]) -> str:
    """The sentence that stops the start."""
    with pytest.raises(ConfigError) as caught:
        async with opening as source:
            await source.check()
    assert "canary" not in everything(caught.value)
    return str(caught.value)


# -- AWS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        ("400 Bad Request", "ResourceNotFoundException", SecretNotFound),
        ("400 Bad Request", "UnrecognizedClientException", LoginRefused),
        ("400 Bad Request", "InvalidSignatureException", LoginRefused),
        ("400 Bad Request", "ExpiredTokenException", LoginRefused),
        ("400 Bad Request", "AccessDeniedException", SecretDenied),
        ("400 Bad Request", "DecryptionFailure", SecretDenied),
        ("400 Bad Request", "ThrottlingException", SecretUnavailable),
        ("400 Bad Request", "NewException", SecretUnavailable),
        ("403 Forbidden", "NewException", SecretDenied),
        ("503 Service Unavailable", "ServiceUnavailable", SecretUnavailable),
    ],
)
async def test_answers_of_aws(aws: AwsRig, status: str, code: str, error: type[SecretError]) -> None:
    body = json.dumps({"__type": f"com.amazonaws#{code}", "Message": "the reason"})
    async with aws.open() as source:
        with aws.gate.answering(status, body), pytest.raises(error) as caught:
            await source.read(aws.id("a"))
    assert type(caught.value) is error
    if error is not SecretNotFound:
        assert str(caught.value.__cause__) == f"{code}: the reason"


async def test_a_secret_marked_for_deletion_is_missing(aws: AwsRig) -> None:
    aws.server.remove(aws.id("a"), at_once=False)
    async with aws.open() as source:
        with pytest.raises(SecretNotFound):
            await source.read(aws.id("a"))


async def test_an_answer_that_is_no_json_shows_nothing(aws: AwsRig) -> None:
    async with aws.open() as source:
        with aws.gate.answering("200 OK", f'{{"SecretString": "{PASSWORD}'), pytest.raises(SecretError) as caught:
            await source.read(aws.id("a"))
    assert PASSWORD not in everything(caught.value)


async def test_bad_keys_of_aws_are_named(aws: AwsRig) -> None:
    body = json.dumps({"__type": "UnrecognizedClientException", "message": "The security token is invalid."})
    with aws.gate.answering("400 Bad Request", body):
        text = await refused(aws.open())
    assert text.startswith("credentials_service.aws_secret_manager.creds: is refused (UnrecognizedClientException")


async def test_no_credentials_at_all_are_named(aws: AwsRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    text = await refused(open_aws(AwsSource(region="eu-west-1"), PREFIX, 5.0))
    assert text.startswith("credentials_service.aws_secret_manager.creds: needs the two keys")


async def test_the_ambient_chain_of_aws(aws: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", aws.user.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", aws.user.secret_key)
    async with open_aws(AwsSource(region="eu-west-1"), PREFIX, 5.0) as source:
        assert (await source.read(aws.id("a"))).text("password") == PASSWORD


async def test_a_bad_region_is_named() -> None:
    section = AwsSource(region="not a region", creds=AwsCreds(access_key="a", secret_key=SecretStr("canary")))
    assert (await refused(open_aws(section, PREFIX, 5.0))).startswith("credentials_service.aws_secret_manager.region: ")


async def test_aws_out_of_reach_is_named(aws: AwsRig) -> None:
    aws.go_down()
    text = await refused(aws.open())
    assert text.startswith("credentials_service.aws_secret_manager.region: no use of Secrets Manager in eu-west-1: ")


# -- GCP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("NOT_FOUND", SecretNotFound),
        ("PERMISSION_DENIED", SecretDenied),
        ("FAILED_PRECONDITION", SecretDenied),
        ("UNAUTHENTICATED", LoginRefused),
        ("UNAVAILABLE", SecretUnavailable),
        ("RESOURCE_EXHAUSTED", SecretUnavailable),
        ("INVALID_ARGUMENT", SecretUnavailable),
        ("UNIMPLEMENTED", SecretUnavailable),
        ("DEADLINE_EXCEEDED", SecretUnavailable),
        ("INTERNAL", SecretUnavailable),
        ("UNKNOWN", SecretUnavailable),
    ],
)
async def test_answers_of_gcp(gcp: GcpRig, status: str, error: type[SecretError]) -> None:
    async with gcp.open() as source:
        gcp.server.control.fail(status)
        with pytest.raises(error) as caught:
            await source.read("a")
    assert type(caught.value) is error


@pytest.mark.parametrize("secret_id", ["team/a", "a.b", "a" * 256])
async def test_ids_that_gcp_cannot_have_are_not_asked_for(gcp: GcpRig, secret_id: str) -> None:
    async with gcp.open() as source:
        gcp.go_down()
        with pytest.raises(SecretNotFound):
            await source.read(secret_id)


async def test_a_refused_account_is_named(gcp: GcpRig) -> None:
    gcp.server.control.fail("UNAUTHENTICATED")
    text = await refused(gcp.open())
    assert text.startswith("credentials_service.gcp_secret_manager.service_account_key: Google refuses it")


async def test_gcp_out_of_reach_is_named(gcp: GcpRig) -> None:
    gcp.go_down()
    text = await refused(gcp.open())
    assert text.startswith(f"credentials_service.gcp_secret_manager: Secret Manager of project {gcp.name} cannot be")


@pytest.mark.parametrize("content", ["", "{}", "nonsense", '{"type": "service_account", "private_key": "canary"}'])
async def test_a_broken_key_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(content)
    text = await refused(open_gcp(GcpSource(project_id="p", service_account_key=path), PREFIX, 5.0))
    assert text.startswith(f"credentials_service.gcp_secret_manager.service_account_key: {path} is no service account")


async def test_no_account_at_all_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    text = await refused(open_gcp(GcpSource(project_id="p"), PREFIX, 5.0))
    assert text.startswith("credentials_service.gcp_secret_manager.service_account_key: is not set, and this machine")


# -- Azure ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("403", SecretDenied),
        ("404", SecretNotFound),
        ("400", SecretUnavailable),
        ("429", SecretUnavailable),
        ("500", SecretUnavailable),
        ("503", SecretUnavailable),
        ("307", SecretUnavailable),
    ],
)
async def test_answers_of_azure(azure: AzureRig, status: str, error: type[SecretError]) -> None:
    async with azure.open() as source:
        await source.read(azure.id("a"))
        azure.server.control.fail(status)
        with pytest.raises(error) as caught:
            await source.read(azure.id("a"))
    assert type(caught.value) is error


@pytest.mark.parametrize("secret_id", ["team/a", "a.b", "a_b", "a" * 128])
async def test_names_that_azure_cannot_have_are_not_asked_for(azure: AzureRig, secret_id: str) -> None:
    async with azure.open() as source:
        azure.go_down()
        with pytest.raises(SecretNotFound):
            await source.read(secret_id)


async def test_a_login_serves_many_reads(azure: AzureRig) -> None:
    before = azure.server.control.logins()
    async with azure.open() as source:
        for _ in range(5):
            await source.read(azure.id("a"))
    assert azure.server.control.logins() == before + 1


async def test_a_wrong_client_secret_is_named(azure: AzureRig) -> None:
    section = azure.section(client_secret=SecretStr("canary-wrong"))
    text = await refused(open_azure(section, PREFIX, 5.0, azure.sdk_options()))
    assert text.startswith("credentials_service.azure_key_vault.client_secret: the login is refused (")
    assert "AADSTS7000215" in text


async def test_a_login_that_nobody_answers_is_an_outage(azure: AzureRig) -> None:
    async with azure.open() as source:
        azure.server.control.fail("503")
        with pytest.raises(SecretUnavailable):
            await source.read(azure.id("a"))
        azure.server.control.fail("")
        azure.go_down()
        with pytest.raises(SecretUnavailable):
            await source.read(azure.id("a"))


async def test_workload_identity(azure: AzureRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token_file = tmp_path / "federated"
    token_file.write_text(FEDERATED_TOKEN)
    for name, value in {"TENANT_ID": TENANT, "CLIENT_ID": "casproxy", "FEDERATED_TOKEN_FILE": str(token_file)}.items():
        monkeypatch.setenv(f"AZURE_{name}", value)
    section = AzureSource(vault_uri=azure.section().vault_uri)
    async with open_azure(section, PREFIX, 5.0, azure.sdk_options()) as source:
        assert (await source.read(azure.id("a"))).text("password") == PASSWORD


async def test_neither_secret_nor_workload_identity_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TENANT_ID", "CLIENT_ID", "FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(f"AZURE_{name}", raising=False)
    text = await refused(open_azure(AzureSource(vault_uri="https://v.vault.azure.net"), PREFIX, 5.0))
    assert text.startswith("credentials_service.azure_key_vault: ")


async def test_a_vault_that_is_elsewhere_gets_no_token(azure: AzureRig) -> None:
    """Whoever answers at a wrong address may ask for a token; Microsoft's client gives one to Azure's hosts only."""
    options = {key: value for key, value in azure.sdk_options().items() if key != "verify_challenge_resource"}
    before = azure.server.control.logins()
    async with open_azure(azure.section(), PREFIX, 5.0, options) as source:
        with pytest.raises(SecretError):
            await source.read(azure.id("a"))
    assert azure.server.control.logins() == before


async def test_a_policy_for_single_secrets_does_not_stop_the_start(aws: AwsRig, gcp: GcpRig, azure: AzureRig) -> None:
    aws.server.forbid(aws.user)
    gcp.server.control.fail("PERMISSION_DENIED")
    for rig in (aws, gcp):
        async with rig.open() as source:
            with structlog.testing.capture_logs() as lines:
                await source.check()
            assert [line["event"] for line in lines] == ["secret_source_check_denied"]
    async with azure.open() as source:
        await source.check()
        azure.server.control.fail("403")
        with structlog.testing.capture_logs() as lines:
            await source.check()
    assert [line["event"] for line in lines] == ["secret_source_check_denied"]


async def test_a_value_of_bytes_is_read_and_a_broken_one_is_not_shown(gcp: GcpRig) -> None:
    gcp.server.control.put(f"projects/{gcp.name}/secrets/bytes", json.dumps({"Password": PASSWORD}).encode("utf-16"))
    gcp.server.control.put(f"projects/{gcp.name}/secrets/broken", b'{"Password": "canary-\xff"}')
    async with gcp.open() as source:
        assert (await source.read("bytes")).text("password") == PASSWORD
        with pytest.raises(SecretMalformed) as caught:
            await source.read("broken")
    assert "canary" not in everything(caught.value)
    await trio.lowlevel.checkpoint()
