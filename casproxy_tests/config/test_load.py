"""Files and environment to ``Config``: each rule of the contract."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from casproxy.config import Config, InvalidConfig, LoadedConfig, load
from casproxy.config.files import parse
from casproxy.config.kinds import SecretStr
from casproxy.config.load import interpret
from casproxy.config.model import (
    AwsCreds,
    AwsSource,
    AzureSource,
    CredentialsService,
    FileSource,
    GcpSource,
    TlsConfig,
    VaultSource,
)
from casproxy.errors import ConfigError


def read(text: str, environ: Mapping[str, str] | None = None) -> LoadedConfig:
    return interpret(parse(text, "conf.yaml"), environ or {})


def problems(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        read(text, environ)
    return caught.value.problems


def load_variables(environ: Mapping[str, str]) -> LoadedConfig:
    return load(None, environ)


DOCUMENTED = """\
server:
  http: {addr: 0.0.0.0:8001, timeout: 300s, cors: {allow_origins: [http://localhost:3000]}}
  grpc: {addr: 0.0.0.0:9001, timeout: 5s, tls_config: {certificate: c.pem, private_key: k.pem}}
  http_metrics: {addr: 0.0.0.0:5001}
auth:
  public_key_path: cas.pub
credentials_service:
  secret_prefix: chainloop
  vault: {address: http://vault:8200, token: t0ken, mount_path: kv}
observability:
  sentry: {dsn: http://key@sentry/1, environment: production}
  tracing: {enabled: true, endpoint: localhost:4317, insecure: true, sampling_ratio: 0.5}
nats_server: {uri: nats://localhost:4222, token: n4ts}
"""


def test_the_documented_file_is_read_whole() -> None:
    config = read(DOCUMENTED).config
    assert config.server.http.addr == "0.0.0.0:8001"
    assert config.server.http.timeout == 300.0
    assert config.server.http.cors.allow_origins == ("http://localhost:3000",)
    assert config.server.grpc.timeout == 5.0
    assert config.server.grpc.tls_config == TlsConfig(certificate=Path("c.pem"), private_key=Path("k.pem"))
    assert config.server.http_metrics.addr == "0.0.0.0:5001"
    assert config.auth.public_key_path == Path("cas.pub")
    assert config.credentials_service.secret_prefix == "chainloop"
    assert config.credentials_service.vault == VaultSource(
        address="http://vault:8200", token=SecretStr("t0ken"), mount_path="kv"
    )
    assert config.observability.sentry.dsn == SecretStr("http://key@sentry/1")
    assert config.observability.tracing.enabled
    assert config.observability.tracing.insecure
    assert config.observability.tracing.sampling_ratio == 0.5
    assert config.nats_server.uri == "nats://localhost:4222"
    assert config.nats_server.token == SecretStr("n4ts")


def test_the_documented_file_has_no_unknown_key() -> None:
    assert read(DOCUMENTED).unknown_keys == []


def test_an_empty_file_means_the_defaults() -> None:
    loaded = read("")
    assert loaded == LoadedConfig(Config(), [], [])
    assert loaded.config.credentials_service.file == FileSource(path=Path("secrets.yaml"))


def test_keys_may_be_lower_camel_case() -> None:
    config = read(
        "server: {httpMetrics: {addr: ':1'}, grpc: {tlsConfig: {certificate: c, privateKey: k}}}\n"
        "credentialsService:\n"
        "  secretPrefix: p\n"
        "  gcpSecretManager: {projectId: 522312304548, serviceAccountKey: k.json}\n"
        "natsServer: {uri: u}\n"
    ).config
    assert config.server.http_metrics.addr == ":1"
    assert config.server.grpc.tls_config == TlsConfig(certificate=Path("c"), private_key=Path("k"))
    assert config.credentials_service.gcp_secret_manager == GcpSource(
        project_id="522312304548", service_account_key=Path("k.json")
    )
    assert config.nats_server.uri == "u"


def test_every_source_is_read() -> None:
    def source(text: str) -> CredentialsService:
        return read(f"credentials_service: {{{text}}}").config.credentials_service

    aws = source("aws_secret_manager: {creds: {access_key: a, secret_key: s}, region: r}")
    assert aws.aws_secret_manager == AwsSource(region="r", creds=AwsCreds(access_key="a", secret_key=SecretStr("s")))
    assert source("aws_secret_manager: {region: r}").aws_secret_manager == AwsSource(region="r")
    azure = source("azure_key_vault: {tenant_id: t, client_id: c, client_secret: s, vault_uri: u}")
    assert azure.azure_key_vault == AzureSource(
        tenant_id="t", client_id="c", client_secret=SecretStr("s"), vault_uri="u"
    )
    file = source("file: {path: s.yaml}")
    assert file.file == FileSource(path=Path("s.yaml"))
    assert [file.vault, azure.file, aws.file] == [None, None, None]


def test_network_and_timeout_of_each_server_and_cors_of_metrics_are_legal() -> None:
    loaded = read(
        "server:\n"
        "  http: {network: tcp, timeout: 1s}\n"
        "  grpc: {network: tcp4, timeout: 1s}\n"
        "  http_metrics: {network: tcp6, timeout: 1s, cors: {allow_origins: ['*']}}\n"
    )
    assert loaded.unknown_keys == []
    assert loaded.config.server.http_metrics.cors.allow_origins == ("*",)


def test_a_timeout_of_zero_is_no_limit() -> None:
    assert read("server: {grpc: {timeout: 0s}}").config.server.grpc.timeout == math.inf


def test_settings_of_our_own_are_read() -> None:
    config = read(
        "server: {drain_grace: 1m, memory_budget: 64MiB, grpc: {limits: {max_message_size: 1MiB}}}\n"
        "transfer: {piece_size: 1MiB, idle_timeout: 1m30s, min_rate: 1KiB}\n"
        "storage: {fs: {root: /data}}\n"
        "credentials_service: {timeout: 500ms, cache: {ttl: 0s}}\n"
        "auth: {require_exp: true, issuer: chainloop}\n"
        "observability: {log: {level: debug, format: json}}\n"
    ).config
    assert config.server.drain_grace == 60.0
    assert config.server.memory_budget == 64 << 20
    assert config.server.grpc.limits.max_message_size == 1 << 20
    assert config.transfer.piece_size == 1 << 20
    assert config.transfer.idle_timeout == 90.0
    assert config.transfer.min_rate == 1024
    assert config.storage.fs.root == Path("/data")
    assert config.credentials_service.timeout == 0.5
    assert config.credentials_service.cache.ttl == 0.0
    assert config.auth.require_exp
    assert config.auth.issuer == "chainloop"
    assert config.observability.log.level == "debug"


def test_the_deprecated_key_path_works_and_warns() -> None:
    loaded = read("auth: {robot_account_public_key_path: old.pub}")
    assert loaded.config.auth.public_key_path == Path("old.pub")
    assert loaded.warnings == ["conf.yaml:1: auth.robot_account_public_key_path is deprecated; call it public_key_path"]


def test_the_new_key_path_wins_over_the_deprecated_one() -> None:
    loaded = read("auth: {robotAccountPublicKeyPath: old.pub, publicKeyPath: new.pub}")
    assert loaded.config.auth.public_key_path == Path("new.pub")


def test_a_planned_setting_warns() -> None:
    assert read("server: {http_metrics: {timeout: 3s}}").warnings == [
        "conf.yaml:1: server.http_metrics.timeout has no effect in this version"
    ]


@pytest.mark.parametrize("value", ["", "~", "''", "'${NOT_THERE}'"])
def test_an_empty_value_is_not_set(value: str) -> None:
    assert read(f"server: {{grpc: {{addr: {value}, timeout: {value}, tls_config: {value}}}}}").config == Config()


def test_placeholders_are_filled_in_and_typed_by_their_setting() -> None:
    config = read(
        "server: {grpc: {addr: 'localhost:${PORT:9}', timeout: '${T}'}, http: {cors: {allow_origins: '${ORIGINS}'}}}\n"
        "observability: {tracing: {enabled: '${ON:true}', sampling_ratio: '${server.ratio:0.5}'}}\n",
        {"CAS_T": "1m", "CAS_ORIGINS": "http://a, http://b,"},
    ).config
    assert config.server.grpc.addr == "localhost:9"
    assert config.server.grpc.timeout == 60.0
    assert config.server.http.cors.allow_origins == ("http://a", "http://b")
    assert config.observability.tracing.enabled
    assert config.observability.tracing.sampling_ratio == 0.5


def test_a_broken_placeholder_names_the_setting_it_is_in() -> None:
    assert problems("server: {grpc: {addr: '${server.grpc.addr}'}}") == [
        "conf.yaml:1: placeholders go in a circle: server.grpc.addr -> server.grpc.addr; break it (at server.grpc.addr)"
    ]


def test_a_dotted_variable_overrides_a_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("server: {grpc: {addr: ':1', timeout: 7s}, http: {cors: {allow_origins: [x]}}}")
    environ = {
        "CAS_server.grpc.addr": "[::]:2",
        "CAS_server.http.cors.allow_origins": "http://a,http://b",
        "CAS_server.drainGrace": "1m",
        "CAS_observability.tracing.enabled": "true",
        "CAS_transfer.piece_size": "64KiB",
    }
    config = load(path, environ).config
    assert config.server.grpc.addr == "[::]:2"
    assert config.server.grpc.timeout == 7.0
    assert config.server.http.cors.allow_origins == ("http://a", "http://b")
    assert config.server.drain_grace == 60.0
    assert config.observability.tracing.enabled
    assert config.transfer.piece_size == 65536


def test_a_variable_is_never_interpolated() -> None:
    loaded = load_variables({"CAS_nats_server.token": "${nats_server.uri}", "CAS_nats_server.uri": "u"})
    assert loaded.config.nats_server.token == SecretStr("${nats_server.uri}")


def test_an_unknown_variable_warns_like_a_key() -> None:
    assert load_variables({"CAS_server.grpc.adress": "x"}).unknown_keys == [
        "variable CAS_server.grpc.adress: unknown key server.grpc.adress; the nearest known key is server.grpc.addr"
    ]


def test_files_of_a_directory_are_merged_in_name_order(tmp_path: Path) -> None:
    (tmp_path / "20.yaml").write_text("server: {grpc: {addr: ':2'}, http: {cors: {allow_origins: [b]}}}")
    (tmp_path / "10.yaml").write_text(
        "server: {grpc: {addr: ':1', timeout: 9s}, http: {cors: {allow_origins: [a, c]}}}"
    )
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "99.yaml").write_text("server: {grpc: {addr: ':99'}}")
    (tmp_path / ".30.yaml").write_text("server: {grpc: {addr: ':30'}}")
    server = load(tmp_path, {}).config.server
    assert (server.grpc.addr, server.grpc.timeout) == (":2", 9.0)
    assert server.http.cors.allow_origins == ("b",)


def test_a_placeholder_reaches_a_key_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("nats_server: {token: '${shared.token}'}")
    (tmp_path / "b.yaml").write_text("shared: {token: s}")
    loaded = load(tmp_path, {})
    assert loaded.config.nats_server.token == SecretStr("s")
    assert loaded.unknown_keys == []


@pytest.mark.parametrize(
    ("text", "written", "nearest"),
    [
        ("server: {grcp: {}}", "server.grcp", "server.grpc"),
        ("server: {cors: {allow_origins: [a]}}", "server.cors", "server.http.cors"),
        ("server: {HTTP: {}}", "server.HTTP", "server.http"),
        ("server: {httpMetrcis: {}}", "server.httpMetrcis", "server.http_metrics"),
        ("public_key_path: x", "public_key_path", "auth.public_key_path"),
        ("auth: {publicKeyPth: x}", "auth.publicKeyPth", "auth.public_key_path"),
    ],
)
def test_an_unknown_key_warns_with_its_file_and_the_nearest_known_one(text: str, written: str, nearest: str) -> None:
    loaded = read(text)
    assert loaded.unknown_keys == [f"conf.yaml:1: unknown key {written}; the nearest known key is {nearest}"]
    assert loaded.warnings == loaded.unknown_keys
    assert loaded.config == Config()


def test_an_unknown_key_far_from_all_others_still_warns() -> None:
    (line,) = read("managed_cas_backends: {s3_access_point: {}}").unknown_keys
    assert line.startswith("conf.yaml:1: unknown key managed_cas_backends; the nearest known key is ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server: {grpc: {addr: 9001}}", 'server.grpc.addr: found "9001", want host:port, such as'),
        ("server: {grpc: {timeout: 5}}", 'server.grpc.timeout: found "5", want a duration such as 500ms, 30s or 1m30s'),
        ("server: {grpc: {timeout: [5s]}}", "server.grpc.timeout: found a list, want a duration"),
        ("server: 5", "server: found a single value, want a map, such as {http: …}"),
        ("server: {grpc: [a]}", "server.grpc: found a list, want a map, such as {network: …}"),
        (
            "server: {http: {cors: {allow_origins: x}}}",
            "server.http.cors.allow_origins: found a single value, want a list",
        ),
        (
            "server: {http: {cors: {allow_origins: [{}]}}}",
            "server.http.cors.allow_origins: found a map in the list, want a text",
        ),
        ("server: {http: {ui: maybe}}", 'server.http.ui: found "maybe", want true or false'),
        ("server: {http: {network: unix}}", 'server.http.network: found "unix", want one of tcp, tcp4, tcp6'),
        ("server: {grpc: {limits: {max_concurrent_streams: -1}}}", 'found "-1", want a whole number above 0'),
        ("transfer: {piece_size: 2MiB}", 'transfer.piece_size: found "2MiB", want a size such as'),
        ("transfer: {piece_size: 2MiB}", "above 0 and at most 1MiB"),
        ("observability: {tracing: {sampling_ratio: 2}}", 'found "2", want a number from 0 to 1'),
        ("outbound: {allow: [10.0.0.0/8, nowhere]}", 'outbound.allow: found "nowhere", want a network such as'),
        (
            "server: {grpc: {tls_config: {certificate: c}}}",
            "server.grpc.tls_config.private_key: is missing, want a path",
        ),
        ("nats_server: {token: {a: hunter2}}", "nats_server.token: found a map, want a text"),
        ('server: {grpc: {addr: "a\\nb\\e[2J"}}', r'found "a\nb\x1b[2J", want host:port'),
        (f"server: {{grpc: {{addr: {'x' * 500}}}}}", f'found "{"x" * 60}…", want host:port'),
    ],
)
def test_a_wrong_value_is_one_line_with_place_key_found_and_wanted(text: str, problem: str) -> None:
    (line,) = problems(text)
    assert line.startswith("conf.yaml:1: ")
    assert problem in line
    assert "\n" not in line


def test_problems_name_their_line() -> None:
    assert problems("server:\n  grpc:\n    addr: x\n    timeout: y\n") == [
        'conf.yaml:3: server.grpc.addr: found "x", want host:port, such as 0.0.0.0:9001 or [::]:9001',
        'conf.yaml:4: server.grpc.timeout: found "y", want a duration such as 500ms, 30s or 1m30s',
    ]


def test_the_first_problem_is_the_text_of_the_error() -> None:
    with pytest.raises(
        ConfigError, match=r"^conf\.yaml:1: server\.http: .* \(and 1 more: casproxy config check lists all\)$"
    ):
        read("server: {grpc: 1, http: 2}")


def test_an_unknown_key_that_explains_a_missing_one_is_told_as_well() -> None:
    with pytest.raises(InvalidConfig) as caught:
        read("credentials_service: {file: {pth: x}}")
    assert caught.value.problems == ["conf.yaml:1: credentials_service.file.path: is missing, want a path"]
    assert caught.value.warnings == [
        "conf.yaml:1: unknown key credentials_service.file.pth; the nearest known key is credentials_service.file.path"
    ]


def test_two_sources_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("credentials_service: {vault: {address: a, token: t}}")
    (tmp_path / "b.yaml").write_text("credentials_service: {file: {path: p}}")
    with pytest.raises(InvalidConfig, match="credentials_service: names vault and file; keep exactly one of them"):
        load(tmp_path, {})


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(InvalidConfig) as caught:
        load_variables({"CAS_server.grpc": "x"})
    assert caught.value.problems == [
        "variable CAS_server.grpc: server.grpc: found a single value, want a map, such as {network: …}"
    ]


def test_no_problem_repeats_a_secret() -> None:
    text = "credentials_service: {vault: [hunter2], azure_key_vault: {client_secret: {a: hunter2}}, file: hunter2}"
    assert "hunter2" not in " ".join(problems(text))
