"""Owns a whole server inside a test's own event loop, on loopback ports, from a place made by ``casproxy dev``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from casproxy.app import App
from casproxy.config import Config
from casproxy.dev.place import Place, prepare
from casproxy.ports import open_ports

ANY = "127.0.0.1:0"


@contextmanager
def place_at(directory: Path) -> Iterator[Place]:
    with prepare(directory / "place", now=time.time()) as place:
        yield place


def config_of(place: Place) -> Config:
    return place.config(grpc=ANY, http=ANY, metrics=ANY)


@dataclass(frozen=True, slots=True)
class Serving:
    app: App
    grpc: str
    http: str
    metrics: str


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[Serving]:
    """A server that accepts calls; drained at the end, so that the block ends only when nothing is left."""
    app = App(config)
    with open_ports(config) as ports:
        addresses = ports.addresses()
        async with trio.open_nursery() as nursery:
            await nursery.start(app.serve, ports)
            yield Serving(app, **addresses)
            app.drain()
