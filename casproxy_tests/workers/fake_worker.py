"""A worker that is none: it speaks to its supervisor as one does, and tells each connection its number.

``python -m casproxy_tests.workers.fake_worker MODE DIRECTORY LINK HAND_OVER``; MODE says when it gives up.
"""

from __future__ import annotations

import os
import socket
import sys

import trio

from casproxy.workers.hand_over import Taker
from casproxy.workers.messages import DOORS, GRPC, Drain, Failed, Link, Message, Orders, Scrape, Snapshot, State


async def main(mode: str, directory: str, link_end: socket.socket, hand_over: socket.socket) -> int:
    link = Link(trio.SocketStream(trio.socket.from_stdlib_socket(link_end)))
    orders = await link.receive()
    assert isinstance(orders, Orders)
    if mode == "refuse":
        await link.send(Failed(kind="config", text="server.grpc.addr: not today"))
        return 1
    if mode == "once" and any(os.scandir(directory)):
        return 3
    os.close(os.open(f"{directory}/{orders.number}", os.O_CREAT))
    taker = Taker(hand_over, lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(taker.run)
        nursery.start_soon(_accept, mode, orders.number, taker, nursery)
        nursery.start_soon(_report, link, taker)
        message: Message | None = orders
        while message is not None and not isinstance(message, Drain):
            if isinstance(message, Scrape):
                await link.send(Snapshot(message.serial, []))
            message = await link.receive()
        nursery.cancel_scope.cancel()
    return 0


async def _accept(mode: str, number: int, taker: Taker, nursery: trio.Nursery) -> None:
    async def hold(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"%d" % number)
            await stream.receive_some(1)

    while True:
        stream = await taker.doors[GRPC].accept()
        if mode == "once":
            sys.exit(4)
        nursery.start_soon(hold, stream)


async def _report(link: Link, taker: Taker) -> None:
    while True:
        taken = {name: taker.doors[name].taken for name in DOORS}
        await link.send(State(started=True, taken=taken, open={name: taker.doors[name].count_open() for name in DOORS}))
        await trio.sleep(0.02)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[3])) as near, socket.socket(fileno=int(sys.argv[4])) as handed:
        sys.exit(trio.run(main, sys.argv[1], sys.argv[2], near, handed))
