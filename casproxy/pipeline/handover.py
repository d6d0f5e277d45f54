"""Owns handing a piece to the next stage of a transfer. Refuses to know what a stage does."""

from __future__ import annotations

import trio

from casproxy.storage.api import Piece


async def hand_over(channel: trio.MemorySendChannel[Piece], piece: Piece) -> None:
    """Send ``piece``; waits, and is a checkpoint, only when the channel is full. Errors: those of ``send``.

    Trio's ``send`` gives up the turn each time, and the ``receive`` before it did so already. With one turn a piece
    and stage all stages work in the same round of the event loop; with two, each piece costs two rounds.
    """
    try:
        channel.send_nowait(piece)
    except trio.WouldBlock:
        await channel.send(piece)
