"""A registry that forgets what it is sent and makes up what it sends: ``python -m contrib.bench.registry_sink SEED``.

So the proxy's own cost can be seen, without a disk and without the registry's work. It speaks as much of the OCI
distribution API as the proxy uses. Of a large blob it keeps the size and the last 16 bytes: what comes before them is
``artifact.Pattern(size, SEED)``, over and over. Small blobs and manifests are kept. Threads and blocking sockets, for
what it costs is nobody's concern. ``GET /count`` gives requests so far; ``GET /closed`` when each broken upload ended.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import sys
import threading
import time
from urllib.parse import parse_qs, urlsplit

from casproxy.bench.artifact import TAIL_SIZE, Artifact, Pattern
from casproxy.digest import Digest

_SMALL = 64 * 1024
_TLS_HANDSHAKE = 0x16  # who tries https first must learn at once that there is none
_NAME = re.compile(r"/v2/(?P<name>.+)/(?P<kind>blobs|manifests)/(?P<rest>.+)")
_REASONS = {200: "OK", 201: "Created", 202: "Accepted", 206: "Partial Content", 404: "Not Found"}


class Body:
    """What is remembered of a body: all of it when it is small, else its size and end. ``hex`` is unknown for those."""

    def __init__(self) -> None:
        self.size = 0
        self.data = b""
        self.tail = b""

    def add(self, part: bytes | memoryview) -> None:
        """Some bytes, in order."""
        self.size += len(part)
        if self.size <= _SMALL:
            self.data += part
        self.tail = (self.tail + bytes(part[-TAIL_SIZE:]))[-TAIL_SIZE:]


class Registry:
    """What is remembered. ``requests``: how many of each method; ``closed``: repository -> monotonic time."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._patterns: dict[int, Pattern] = {}
        self.requests: dict[str, int] = {}
        self.closed: dict[str, float] = {}
        self.blobs: dict[str, Body] = {}
        self.manifests: dict[str, bytes] = {}
        self.sessions: dict[str, Body] = {}
        self.lock = threading.Lock()

    def pattern(self, size: int) -> Pattern:
        """The pattern of a size, made once."""
        with self.lock:
            if size not in self._patterns:
                self._patterns[size] = Pattern(size, self._seed)
            return self._patterns[size]


class Client(threading.Thread):
    """One connection."""

    def __init__(self, connection: socket.socket, registry: Registry) -> None:
        super().__init__(daemon=True)
        self._socket = connection
        self._registry = registry
        self._buffer = b""
        self._target = ""
        self._big = memoryview(bytearray(1 << 20))

    def run(self) -> None:
        """Answer requests until the peer goes; one that goes in the middle of a body is noted."""
        in_body = False
        try:
            while head := self._head():
                lines = head.decode("latin-1").split("\r\n")
                method, self._target, _ = lines[0].split(" ", 2)
                headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
                in_body = True
                body = self._body(headers)
                in_body = False
                self._answer(method, headers, body)
        except OSError:
            pass
        finally:
            if in_body and (found := _NAME.match(self._target)):
                self._registry.closed[found["name"]] = time.monotonic()
            self._socket.close()

    def _more(self) -> bytes:
        part = self._socket.recv(1 << 18)
        if not part:
            raise ConnectionResetError
        return part

    def _head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            part = self._socket.recv(1 << 16)
            if not part or part[0] == _TLS_HANDSHAKE:
                return b""
            self._buffer += part
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def _body(self, headers: dict[str, str]) -> Body:
        body = Body()
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                while b"\r\n" not in self._buffer:
                    self._buffer += self._more()
                line, _, self._buffer = self._buffer.partition(b"\r\n")
                size = int(line.split(b";")[0], 16)
                self._take(size, body)
                while len(self._buffer) < 2:
                    self._buffer += self._more()
                self._buffer = self._buffer[2:]
                if not size:
                    return body
        self._take(int(headers.get("content-length", "0")), body)
        return body

    def _take(self, size: int, body: Body) -> None:
        part, self._buffer = self._buffer[:size], self._buffer[size:]
        body.add(part)
        left = size - len(part)
        while left:
            count = self._socket.recv_into(self._big[: min(left, len(self._big))])
            if not count:
                raise ConnectionResetError
            body.add(self._big[:count])
            left -= count

    def _answer(self, method: str, headers: dict[str, str], body: Body) -> None:
        registry, url = self._registry, urlsplit(self._target)
        registry.requests[method] = registry.requests.get(method, 0) + 1
        if url.path in ("/count", "/closed"):
            self._send(200, json.dumps(registry.requests if url.path == "/count" else registry.closed).encode())
        elif (found := _NAME.match(url.path)) is None:
            self._send(200 if url.path == "/v2/" else 404)
        elif found["kind"] == "manifests":
            self._manifest(method, found["name"], body)
        elif found["rest"].startswith("uploads/"):
            self._upload(method, url.path, parse_qs(url.query).get("digest", [""])[0], body)
        else:
            self._blob(method, found["rest"], headers)

    def _manifest(self, method: str, name: str, body: Body) -> None:
        registry = self._registry
        if method == "PUT":
            registry.manifests[name] = body.data
            self._send(201, digest=hashlib.sha256(body.data).hexdigest())
        elif (data := registry.manifests.get(name)) is None:
            self._send(404)
        else:
            self._send(200, data, kind=json.loads(data).get("mediaType", ""), head=method == "HEAD")

    def _upload(self, method: str, path: str, digest: str, body: Body) -> None:
        sessions = self._registry.sessions
        if method == "POST":
            location = f"{path}{time.monotonic_ns()}-{threading.get_ident()}"
            sessions[location] = Body()
            self._send(202, location=location)
        elif method == "PATCH":
            sessions[path] = body
            self._send(202, location=path)
        elif method == "PUT":
            begun = sessions.pop(path, body)
            self._registry.blobs[digest] = body if body.size else begun
            self._send(201, location=path, digest=digest.removeprefix("sha256:"))
        else:
            sessions.pop(path, None)
            self._send(202)

    def _blob(self, method: str, digest: str, headers: dict[str, str]) -> None:
        blob = self._registry.blobs.get(digest)
        if blob is None:
            self._send(404)
        elif blob.size <= _SMALL:
            self._send(200, blob.data, head=method == "HEAD")
        else:
            pattern = self._registry.pattern(blob.size)
            artifact = Artifact(Digest.parse(digest), blob.size, blob.tail, "")
            self._send(200, size=blob.size)
            if method == "GET":
                for piece in pattern.pieces(artifact, 1 << 20):
                    self._socket.sendall(piece)

    def _send(
        self,
        status: int,
        data: bytes = b"",
        *,
        size: int | None = None,
        head: bool = False,
        location: str = "",
        digest: str = "",
        kind: str = "application/octet-stream",
    ) -> None:
        lines = [f"HTTP/1.1 {status} {_REASONS[status]}", f"Content-Length: {len(data) if size is None else size}"]
        lines += [f"Location: {location}"] if location else []
        lines += [f"Docker-Content-Digest: sha256:{digest}"] if digest else []
        lines += [f"Content-Type: {kind}"]
        self._socket.sendall("\r\n".join([*lines, "\r\n"]).encode() + (b"" if head else data))


def main() -> None:
    """Serve until the process is ended."""
    registry = Registry(sys.argv[1].encode())
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(json.dumps({"http": f"127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Client(connection, registry).start()


if __name__ == "__main__":
    main()
