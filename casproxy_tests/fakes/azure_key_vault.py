"""Owns a stand-in for Azure Key Vault and the Entra ID login before it: one HTTPS server, run as a program.

``python -m casproxy_tests.fakes.azure_key_vault PORT CONTROL_PORT CERTIFICATE KEY``. Microsoft has no emulator of
either. Source: Key Vault REST API 7.x, Get Secret and its bearer challenge; the Microsoft identity platform's client
credentials flow. A token says that it is good for ``TOKEN_SECONDS``, and is taken for ever.
"""

from __future__ import annotations

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from casproxy_tests.fakes.secret_store import Values, serve_control

TENANT = "11111111-2222-4333-8444-555555555555"
CLIENT_SECRET = "canary-azure-client-secret"
FEDERATED_TOKEN = "canary-azure-federated-token"
ACCESS_TOKEN = "canary-azure-access-token"
TOKEN_SECONDS = 3600


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    values: Values

    @property
    def origin(self) -> str:
        return f"https://{self.headers['Host']}"

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.endswith("/.well-known/openid-configuration"):
            base = f"{self.origin}/{TENANT}"
            names = {"authorization_endpoint": "oauth2/v2.0/authorize", "token_endpoint": "oauth2/v2.0/token"}
            self._answer(200, {"issuer": f"{base}/v2.0"} | {name: f"{base}/{path}" for name, path in names.items()})
            return
        if not (self.headers.get("Authorization") or "").startswith(f"Bearer {ACCESS_TOKEN}-"):
            self._challenge()
        elif self.values.failing:
            self._error(int(self.values.failing), "Ordered", "as the test ordered")
        elif "api-version" not in parse_qs(url.query):
            self._error(400, "BadParameter", "api-version must be specified")
        else:
            self._secret(url.path.strip("/").split("/")[1])

    def _challenge(self) -> None:
        challenge = f'Bearer authorization="{self.origin}/{TENANT}", resource="https://vault.azure.net"'
        self._error(401, "Unauthorized", "AKV10000: Request is missing a Bearer token.", challenge)

    def _secret(self, name: str) -> None:
        value = self.values.secrets.get(name)
        if value is None:
            self._error(404, "SecretNotFound", f"A secret with (name/id) {name} was not found in this key vault.")
            return
        attributes = {"enabled": True, "created": 1, "updated": 1}
        identity = f"{self.origin}/secrets/{name}/0123456789abcdef0123456789abcdef"
        self._answer(200, {"value": value.decode("utf-8", "replace"), "id": identity, "attributes": attributes})

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if self.values.failing.startswith("5"):
            self._answer(int(self.values.failing), {"error": "temporarily_unavailable"})
        elif form.get("client_secret") == [CLIENT_SECRET] or form.get("client_assertion") == [FEDERATED_TOKEN]:
            self.values.logins += 1
            token = f"{ACCESS_TOKEN}-{self.values.logins}"
            self._answer(200, {"token_type": "Bearer", "expires_in": TOKEN_SECONDS, "access_token": token})
        else:
            text = "AADSTS7000215: Invalid client secret provided."
            self._answer(401, {"error": "invalid_client", "error_description": text})

    def _error(self, status: int, code: str, text: str, challenge: str = "") -> None:
        self._answer(status, {"error": {"code": code, "message": text}}, challenge)

    def _answer(self, status: int, body: object, challenge: str = "") -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.end_headers()
        self.wfile.write(data)


def main(port: int, control_port: int, certificate: str, key: str) -> None:
    Handler.values = Values()
    serve_control(Handler.values, control_port)  # first: who can connect to the other port takes both for ready
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
