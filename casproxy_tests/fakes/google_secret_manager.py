"""Owns a stand-in for GCP Secret Manager: grpcio's server with Google's own messages, run as a program.

``python -m casproxy_tests.fakes.google_secret_manager PORT CONTROL_PORT``. Google has no emulator of it. Only what a
reader needs: AccessSecretVersion of ``latest``. Source: Secret Manager API v1.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.cloud.secretmanager_v1.types import AccessSecretVersionRequest, AccessSecretVersionResponse, SecretPayload

from casproxy_tests.fakes.secret_store import Values, serve_control

_METHOD = "/google.cloud.secretmanager.v1.SecretManagerService/AccessSecretVersion"


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers from ``values``."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def service(self, details: Any) -> Any:
        if details.method != _METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(
            self._access,
            request_deserializer=AccessSecretVersionRequest.deserialize,
            response_serializer=AccessSecretVersionResponse.serialize,
        )

    def _access(self, request: AccessSecretVersionRequest, context: Any) -> AccessSecretVersionResponse:
        if self._values.failing:
            context.abort(grpc.StatusCode[self._values.failing], "as the test ordered")
        name = request.name.removesuffix("/versions/latest")
        value = self._values.secrets.get(name)
        if value is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Secret [{name}] not found or has no versions.")
        return AccessSecretVersionResponse(name=f"{name}/versions/1", payload=SecretPayload(data=value))


def main(port: int, control_port: int) -> None:
    values = Values()
    serve_control(values, control_port)  # first: who can connect to the other port takes both for ready
    server = grpc.server(ThreadPoolExecutor(8), handlers=[Service(values)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
