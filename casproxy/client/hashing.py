"""Owns hashing a file that is open, a few pieces per visit to the worker thread. Refuses to know whose file it is."""

from __future__ import annotations

import hashlib
import io
from functools import partial

from casproxy.client.progress import Phase, Progress
from casproxy.client.worker_file import PIECE_SIZE, WorkerFile

_STEP = 8  # pieces per visit: rare enough to be free, often enough to be cancelled


async def hash_file(file: WorkerFile, size: int, progress: Progress) -> tuple[hashlib._Hash, int]:
    """The sha256 state of the next ``size`` bytes, and how many there were; the file's position is behind them.

    What is appended meanwhile is not looked at: a log that grows as fast as it is read would never end.
    """
    state, done = hashlib.sha256(), 0
    while step := await file.run(partial(_hash_step, state, size - done)):
        done += step
        progress(Phase.HASH, done, size)
    return state, done


def _hash_step(state: hashlib._Hash, left: int, file: io.FileIO) -> int:
    """Blocking: hash the next few pieces of the ``left`` bytes; returns how many bytes that was, 0 at the end."""
    done = 0
    buffer = memoryview(bytearray(PIECE_SIZE))
    for _ in range(_STEP):
        got = file.readinto(buffer[: left - done]) or 0
        state.update(buffer[:got])
        done += got
        if got == 0:
            break
    return done
