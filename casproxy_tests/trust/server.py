"""Owns everybody our clients may call, behind one certificate: an HTTPS port and a gRPC port, run as a program.

``python -m casproxy_tests.trust.server HTTPS_PORT GRPC_PORT CERTIFICATE KEY``. HTTPS answers as Vault, AWS, Azure, a
registry, Google's log-in, a publisher of keys and Sentry; gRPC as Google's Secret Manager and a receiver of traces.
"""

from __future__ import annotations

import json
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from casproxy_tests.auth.endpoint import document, named
from casproxy_tests.fakes import azure_key_vault
from casproxy_tests.fakes.google_secret_manager import Service
from casproxy_tests.fakes.otlp import OtlpReceiver
from casproxy_tests.fakes.secret_store import Values

SECRET = {"Path": "tenants/a"}
REPORTS = "/reports"
"""How many envelopes Sentry got, as a number."""


class _Everybody(azure_key_vault.Handler):
    reports = 0

    def do_GET(self) -> None:
        answers: dict[str, object] = {
            "/v1/secret/data/a": {"data": {"data": SECRET}},
            "/keys.json": json.loads(document(named("a"))),
            "/v2/": {},
            REPORTS: _Everybody.reports,
        }
        if self.path in answers:
            self._answer(200, answers[self.path])
        else:
            super().do_GET()

    def do_POST(self) -> None:
        if self.path == "/google-log-in":
            self._taken({"access_token": "t", "expires_in": 3600, "token_type": "Bearer"})
        elif self.path == "/":
            self._taken({"Name": "a", "SecretString": json.dumps(SECRET)})
        elif self.path.endswith("/envelope/"):
            _Everybody.reports += 1
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Connection", "close")  # Sentry's SDK keeps its connections to the end of the process
            self.end_headers()
        else:
            super().do_POST()

    def _taken(self, answer: object) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, answer)


def main(https_port: int, grpc_port: int, certificate: Path, key: Path) -> None:
    values = Values({"a": json.dumps(SECRET).encode(), "projects/p/secrets/a": json.dumps(SECRET).encode()})
    over_grpc = grpc.server(ThreadPoolExecutor(4), handlers=[Service(values)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(OtlpReceiver(), over_grpc)  # type: ignore[no-untyped-call]
    identity = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    over_grpc.add_secure_port(f"127.0.0.1:{grpc_port}", identity)
    over_grpc.start()
    _Everybody.values = values
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    over_https = ThreadingHTTPServer(("127.0.0.1", https_port), _Everybody)
    over_https.socket = context.wrap_socket(over_https.socket, server_side=True, do_handshake_on_connect=False)
    over_https.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
