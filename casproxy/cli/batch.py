"""Owns many uploads at once: how many run, in which order they are told, and which failure ends all of them.

Refuses to know how one is made and how it is shown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import trio

from casproxy.cli.file_list import File
from casproxy.rpc.errors import RpcError
from casproxy.wire.status import StatusCode

if TYPE_CHECKING:
    from casproxy.client import Uploaded

Tell: TypeAlias = "Callable[[File, Uploaded | Exception], None]"
"""Told of each file how it went, in the order of the files."""

_OF_THE_CALLER = frozenset(
    {
        StatusCode.FAILED_PRECONDITION,
        StatusCode.PERMISSION_DENIED,
        StatusCode.UNAUTHENTICATED,
        StatusCode.UNAVAILABLE,
        StatusCode.UNIMPLEMENTED,
    }
)
"""A token, a tenant or a server with which the next file would fare no better."""


async def upload_all(
    files: Sequence[File], upload: Callable[[File], Awaitable[Uploaded]], tell: Tell, *, jobs: int
) -> None:
    """Run ``upload`` for each file, at most ``jobs`` at once.

    A file that fails is told like one that went well, and the others go on. An error that is not the file's, and any
    error when there is one file only, is raised after those that are under way were cancelled; so is what ``tell``
    raises. What had ended until then is told in any case.
    """
    waiting = iter(enumerate(files))
    ended: dict[int, Uploaded | Exception] = {}
    told = 0

    async def work() -> None:
        nonlocal told
        for index, file in waiting:
            try:
                ended[index] = await upload(file)
            except Exception as error:
                if len(files) == 1 or (isinstance(error, RpcError) and error.code in _OF_THE_CALLER):
                    raise
                ended[index] = error
            while told in ended:
                told += 1
                tell(files[told - 1], ended.pop(told - 1))

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(min(jobs, len(files))):
                nursery.start_soon(work)
    finally:
        for index in sorted(ended):
            tell(files[index], ended[index])
