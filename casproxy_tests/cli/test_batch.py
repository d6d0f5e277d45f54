"""Many uploads at once: order, bounds, and which failure ends all of them."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from casproxy.cli.batch import upload_all
from casproxy.cli.file_list import File
from casproxy.client import Uploaded
from casproxy.digest import EMPTY_DIGEST
from casproxy.rpc.errors import RpcError
from casproxy.wire.status import StatusCode

FILES = [File(str(number)) for number in range(6)]


class Uploads:
    """Uploads that take as long as their test says; ``errors``: how those of some files end."""

    def __init__(self, seconds: dict[str, float], errors: dict[str, Exception] | None = None) -> None:
        self._seconds = seconds
        self._errors = errors or {}
        self.running = self.most = 0
        self.ended: list[str] = []
        self.told: list[tuple[str, str]] = []

    async def upload(self, file: File) -> Uploaded:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(self._seconds.get(file.path, 1))
            if file.path in self._errors:
                raise self._errors[file.path]
            self.ended.append(file.path)
            return Uploaded(EMPTY_DIGEST, 0, file.path, deduplicated=False)
        finally:
            self.running -= 1

    def tell(self, file: File, outcome: Uploaded | Exception) -> None:
        self.told.append((file.path, str(outcome) if isinstance(outcome, Exception) else outcome.file_name))


async def test_they_are_told_in_order_however_they_end(autojump_clock: trio.testing.MockClock) -> None:
    uploads = Uploads({"0": 9, "3": 5})
    await upload_all(FILES, uploads.upload, uploads.tell, jobs=3)
    assert uploads.ended != [file.path for file in FILES]
    assert uploads.told == [(file.path, file.path) for file in FILES]
    assert uploads.most == 3


async def test_one_that_fails_does_not_stop_the_others(autojump_clock: trio.testing.MockClock) -> None:
    uploads = Uploads({}, {"1": OSError("bad"), "4": RpcError(StatusCode.RESOURCE_EXHAUSTED, "big")})
    await upload_all(FILES, uploads.upload, uploads.tell, jobs=2)
    assert uploads.told == [
        ("0", "0"),
        ("1", "bad"),
        ("2", "2"),
        ("3", "3"),
        ("4", "RESOURCE_EXHAUSTED: big"),
        ("5", "5"),
    ]


async def test_what_is_not_the_file_s_fault_ends_all_and_what_ended_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    uploads = Uploads({"0": 100, "1": 1, "2": 2}, {"2": RpcError(StatusCode.UNAUTHENTICATED, "expired")})
    with pytest.RaisesGroup(pytest.RaisesExc(RpcError, match="expired")):
        await upload_all(FILES, uploads.upload, uploads.tell, jobs=3)
    assert uploads.running == 0
    assert uploads.told[0] == ("1", "1")
    assert "0" not in dict(uploads.told)


async def test_the_only_file_s_error_is_the_command_s() -> None:
    uploads = Uploads({"0": 0}, {"0": OSError("bad")})
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="bad")):
        await upload_all(FILES[:1], uploads.upload, uploads.tell, jobs=4)
    assert uploads.told == []


async def test_cancelled_what_had_ended_is_told(autojump_clock: trio.testing.MockClock) -> None:
    uploads = Uploads({"0": 100})
    with trio.move_on_after(3.5):
        await upload_all(FILES, uploads.upload, uploads.tell, jobs=2)
    assert uploads.told == [("1", "1"), ("2", "2"), ("3", "3")]
    assert uploads.running == 0


async def test_who_cannot_be_told_ends_all(autojump_clock: trio.testing.MockClock) -> None:
    def closed(file: File, outcome: object) -> None:
        raise BrokenPipeError

    uploads = Uploads({})
    with pytest.RaisesGroup(BrokenPipeError, allow_unwrapped=True):
        await upload_all(FILES, uploads.upload, closed, jobs=2)
    assert len(uploads.ended) <= 2
