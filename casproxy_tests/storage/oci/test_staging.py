"""Staged bodies: nothing on the disk has a name, and nobody takes more than the quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from casproxy.errors import BackendBroken, StorageFull
from casproxy.storage.oci.staging import StagedBody, Staging
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.conformance.traffic import MIB, content


async def everything(body: StagedBody, offset: int, size: int) -> bytes:
    part, found = body.part(offset, size), b""
    while data := await part.receive():
        assert len(data) <= MIB
        found += data
    return found


async def test_what_was_appended_comes_back_as_often_as_asked(tmp_path: Path) -> None:
    data = content(3 * MIB + 5)
    body = Staging(tmp_path, 10 * MIB).open()
    for start in range(0, len(data), 700_000):
        await body.append(memoryview(data)[start : start + 700_000])
    assert body.size == len(data) and os.listdir(tmp_path) == []
    for _ in range(2):
        assert await everything(body, 0, body.size) == data
    assert await everything(body, 100, MIB) == data[100 : 100 + MIB]
    body.close()


async def test_the_quota_is_common_and_given_back(tmp_path: Path) -> None:
    staging = Staging(tmp_path, 100)
    one, two = staging.open(), staging.open()
    await one.append(b"x" * 60)
    with pytest.raises(StorageFull):
        await two.append(b"x" * 41)
    await two.append(b"x" * 40)
    one.close()
    one.close()
    await two.append(b"x" * 60)
    two.close()
    assert staging.reserved == 0


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    body = Staging(tmp_path / "missing", 100).open()
    with pytest.raises(BackendBroken):
        await body.append(b"x")
    body.close()


async def test_an_empty_body_needs_no_file(tmp_path: Path) -> None:
    body = Staging(tmp_path / "missing", 100).open()
    assert await everything(body, 0, 0) == b""
    body.close()


async def test_a_body_that_lost_bytes_is_told(tmp_path: Path) -> None:
    body = Staging(tmp_path, 100).open()
    await body.append(b"x" * 10)
    with pytest.raises(BackendBroken):
        await everything(body, 0, 11)
    body.close()


async def test_a_cancel_at_every_await_leaves_no_file_open(tmp_path: Path) -> None:
    staging = Staging(tmp_path, 10 * MIB)

    async def scenario() -> None:
        body = staging.open()
        try:
            await body.append(content(MIB))
            await body.append(content(MIB))
            await everything(body, 0, body.size)
        finally:
            body.close()

    async def settle() -> None:
        await staging.wait_idle()

    async def check(run: Run[None]) -> None:
        assert staging.reserved == 0

    await cancel_everywhere(scenario, check, settle=settle)
