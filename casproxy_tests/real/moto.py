"""Owns moto's server, which speaks the API of AWS Secrets Manager and checks signatures and policies like AWS."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx

from casproxy_tests.cas import PLAIN
from casproxy_tests.real.process import free_port, python, require_package, running

REGION = "eu-west-1"
_ALLOW_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
_READ_SECRETS = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}],
}


@dataclass(frozen=True, slots=True)
class User:
    """An IAM user with a key pair."""

    name: str
    access_key: str
    secret_key: str = field(repr=False)


class Moto:
    """A running server and its administrator."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._session = boto3.session.Session()
        self._admin = User("nobody", "AKIAEXAMPLE", "none")
        self._admin = self._create_user("admin", _ALLOW_ALL)

    def _client(self, service: str) -> Any:
        return self._session.client(
            service,
            region_name=REGION,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id=self._admin.access_key,
            aws_secret_access_key=self._admin.secret_key,
        )

    def _create_user(self, name: str, policy: object) -> User:
        iam = self._client("iam")
        try:
            iam.create_user(UserName=name)
            key = iam.create_access_key(UserName=name)["AccessKey"]
            iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(policy))
        finally:
            iam.close()
        return User(name, key["AccessKeyId"], key["SecretAccessKey"])

    def reader(self, name: str) -> User:
        """A user who may read every secret."""
        return self._create_user(name, _READ_SECRETS)

    def forbid(self, user: User) -> None:
        """From now on the user may do nothing."""
        iam = self._client("iam")
        try:
            iam.delete_user_policy(UserName=user.name, PolicyName="all")
        finally:
            iam.close()

    def put(self, name: str, value: str) -> None:
        """Create the secret or give it a new value."""
        secrets = self._client("secretsmanager")
        try:
            try:
                secrets.create_secret(Name=name, SecretString=value)
            except secrets.exceptions.ResourceExistsException:
                secrets.put_secret_value(SecretId=name, SecretString=value)
        finally:
            secrets.close()

    def remove(self, name: str, *, at_once: bool = True) -> None:
        """Delete the secret, or only mark it for deletion."""
        secrets = self._client("secretsmanager")
        try:
            secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=at_once)
        finally:
            secrets.close()


_UNCHECKED_ACTIONS = 3
"""What the administrator is made with; from then on moto checks."""


@contextmanager
def running_moto() -> Iterator[Moto]:
    """A server of its own, or skip (fail) when moto is not installed."""
    require_package("moto", "secrets in AWS Secrets Manager")
    require_package("flask", "moto's server")
    port = free_port()

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/moto-api/", verify=PLAIN, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    with tempfile.TemporaryDirectory() as name:
        command = python("moto.server", "-H", "127.0.0.1", "-p", str(port))
        with running(command, Path(name), ready, {"INITIAL_NO_AUTH_ACTION_COUNT": str(_UNCHECKED_ACTIONS)}):
            yield Moto(port)
