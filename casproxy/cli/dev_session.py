"""Owns one run of ``casproxy dev``: place, ports, server, first trip, ``dev.json``, its end. Parses no options."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import trio

from casproxy.app import run
from casproxy.cli.dev_file import DevFile
from casproxy.cli.dev_screen import show, show_json
from casproxy.dev.place import BACKEND, ORG_ID, SECRET_ID, Place, prepare
from casproxy.dev.trial import make_trip
from casproxy.files import write_private
from casproxy.listen import address_of, open_port
from casproxy.observe import log
from casproxy.ports import Ports

_HOST = "127.0.0.1"


def serve(root: Path, wanted: Mapping[str, int | None], output: str = "text") -> None:
    """Serve from ``root`` until a signal ends it. ``wanted``: ports by name; None means the usual one or the next free.

    ``output``: text or json, how it is told that the server is ready. Raises ``ConfigError`` when the directory or a
    port cannot be used, and what the first trip raises.
    """
    log.configure("warning", "auto")  # the first trip is shown as a sentence, not as log lines
    with prepare(root, now=time.time()) as place, _open_ports(wanted) as ports, _no_stale_file(place.dev_file):
        config = place.config(
            grpc=address_of(ports.grpc), http=address_of(ports.http), metrics=address_of(ports.metrics)
        )
        addresses = DevFile(
            grpc=config.server.grpc.addr,
            http=config.server.http.addr,
            metrics=config.server.http_metrics.addr,
            backend=BACKEND,
            secret_id=SECRET_ID,
            org_id=ORG_ID,
            uploader_token=place.uploader_token,
            downloader_token=place.downloader_token,
            public_key=str(place.public_key.absolute()),
            private_key=str(place.private_key.absolute()),
        )
        trio.run(partial(run, config, ports, when_ready=partial(_introduce, place, addresses, output)))


async def _introduce(place: Place, addresses: DevFile, output: str) -> None:
    trial = await make_trip(addresses.grpc, place)
    _announce(place, addresses)
    log.configure("info", "auto")
    tell = show_json if output == "json" else show
    tell(place, grpc=addresses.grpc, http=addresses.http, metrics=addresses.metrics, trial=trial)


def _announce(place: Place, addresses: DevFile) -> None:
    write_private(place.dev_file, addresses.encode())


@contextmanager
def _open_ports(wanted: Mapping[str, int | None]) -> Iterator[Ports]:
    with ExitStack() as opened:

        def bind(name: str, usual: int) -> socket.socket:
            port = wanted[name]
            address = f"{_HOST}:{usual if port is None else port}"
            return opened.enter_context(open_port(address, setting=f"--{name}-port", next_free=port is None))

        yield Ports(grpc=bind("grpc", 9001), http=bind("http", 8001), metrics=bind("metrics", 5001))


@contextmanager
def _no_stale_file(dev_file: Path) -> Iterator[None]:
    """``dev.json`` is there while a server is: without it the client commands say what is missing."""
    dev_file.unlink(missing_ok=True)
    try:
        yield
    finally:
        dev_file.unlink(missing_ok=True)
