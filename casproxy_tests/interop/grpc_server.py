"""A process that serves the test methods with grpcio's own server."""

from __future__ import annotations

import hashlib
import queue
import sys
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from casproxy_tests.interop import programs

_cancels: queue.Queue[None] = queue.Queue()


def unary(request: bytes, context: Any) -> bytes:
    context.set_trailing_metadata(
        tuple((key, value) for key, value in context.invocation_metadata() if key.startswith("x-"))
    )
    return request


def upload(requests: Iterator[bytes], context: Any) -> bytes:
    digest = hashlib.sha256()
    for request in requests:
        digest.update(request)
    return digest.hexdigest().encode()


def download(request: bytes, context: Any) -> Iterator[bytes]:
    count, size = map(int, request.split())
    piece = (bytes(range(256)) * (size // 256 + 1))[:size]
    for _ in range(count):
        yield piece


def chat(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield from requests


def early(requests: Iterator[bytes], context: Any) -> bytes:
    return b"stored"


def fail(request: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("grpc-status-details-bin", programs.DETAILS),))
    context.abort(grpc.StatusCode.NOT_FOUND, programs.MESSAGE)
    raise AssertionError("abort raises")


def wait(requests: Iterator[bytes], context: Any) -> bytes:
    context.add_callback(lambda: _cancels.put(None))
    for _ in requests:
        pass
    return b""


def cancelled(request: bytes, context: Any) -> bytes:
    _cancels.get()
    return b"yes"


def main() -> None:
    handlers = {
        programs.UNARY: grpc.unary_unary_rpc_method_handler(unary),
        programs.UPLOAD: grpc.stream_unary_rpc_method_handler(upload),
        programs.DOWNLOAD: grpc.unary_stream_rpc_method_handler(download),
        programs.CHAT: grpc.stream_stream_rpc_method_handler(chat),
        programs.EARLY: grpc.stream_unary_rpc_method_handler(early),
        programs.FAIL: grpc.unary_unary_rpc_method_handler(fail),
        programs.WAIT: grpc.stream_unary_rpc_method_handler(wait),
        programs.CANCELLED: grpc.unary_unary_rpc_method_handler(cancelled),
    }
    generic = grpc.method_handlers_generic_handler(
        "t.Test", {path.rpartition("/")[2]: handler for path, handler in handlers.items()}
    )
    server = grpc.server(
        futures.ThreadPoolExecutor(16),
        handlers=[generic],
        options=[("grpc.max_metadata_size", 64 * 1024), ("grpc.absolute_max_metadata_size", 64 * 1024)],
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    while line := sys.stdin.readline():
        if line == "stop\n":
            server.stop(10).wait()
            print("stopped", flush=True)
    server.stop(None).wait()


if __name__ == "__main__":
    main()
