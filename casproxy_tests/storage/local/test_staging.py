"""Leftovers of dead processes are swept at start; a live process is never touched."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import trio

from casproxy.digest import Digest
from casproxy.storage.api import NewResource
from casproxy.storage.local.root import LocalRoot, open_local_root
from casproxy_tests.conformance.backends import tree
from casproxy_tests.conformance.traffic import MIB, content, get, put

UPLOADER = """
import sys, trio
from functools import partial
from pathlib import Path
from casproxy.digest import Digest
from casproxy.storage.api import NewResource
from casproxy.storage.local.root import open_local_root

async def main():
    async with open_local_root(Path(sys.argv[1])) as root:
        async with root.backend("tenant").ingest(NewResource(Digest.of(b""), "half")) as ingest:
            await ingest.write(bytes(3 << 20))
            print(1, flush=True)
            await trio.sleep_forever()

trio.run(main)
"""


def uploads(place: Path) -> list[str]:
    """The workspaces in the staging area."""
    return [name for name, what in tree(place / ".staging").items() if name.count("/") == 1 and what == "directory"]


async def test_a_killed_process_leaves_only_what_the_next_start_sweeps(place: Path) -> None:
    command = [sys.executable, "-c", UPLOADER, str(place)]
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
        )
        assert process.stdout is not None
        async with process.stdout:
            assert await process.stdout.receive_some(1) == b"1"
            assert len(uploads(place)) == 1
            async with open_local_root(place) as beside:
                assert len(uploads(place)) == 1, "it is alive"
                process.send_signal(signal.SIGKILL)
                await process.wait()
                await beside.backend("tenant").check_writable()
                assert len(uploads(place)) == 1, "swept at start, not while running"
    async with open_local_root(place):
        assert uploads(place) == []
    assert list(tree(place)) == [".staging", ".staging/lock"]


async def test_two_open_roots_leave_each_other_alone(root: LocalRoot, place: Path) -> None:
    data = content(3 * MIB)
    digest = Digest.of(data)
    async with root.backend("tenant").ingest(NewResource(digest, "a")) as ingest:
        await ingest.write(data[: 2 * MIB])
        async with open_local_root(place) as other:
            await put(other.backend("tenant"), b"x")
        await ingest.write(data[2 * MIB :])
        await ingest.commit(digest, len(data))
    assert await get(root.backend("tenant"), digest) == data


async def test_whatever_lies_in_staging_is_swept(place: Path) -> None:
    area = place / ".staging" / "1-dead"
    (area / "upload" / "blobs").mkdir(parents=True)
    (area / "upload" / "blobs" / "x").write_bytes(b"half")
    (place / ".staging" / "unlocked").mkdir()
    (place / ".staging" / "file").write_bytes(b"?")
    (place / "keep").mkdir()
    (place / ".staging" / "link").symlink_to(place / "keep")
    async with open_local_root(place):
        assert uploads(place) == []
    assert list(tree(place)) == [".staging", ".staging/lock", "keep"]


async def test_an_open_root_holds_no_files_of_ended_uploads(root: LocalRoot, place: Path) -> None:
    backend = root.backend("tenant")
    before = tree(place / ".staging")
    for seed in range(3):
        await put(backend, content(1000, seed))
        async with backend.ingest(NewResource(Digest.of(b"never"), "a")) as ingest:
            await ingest.write(content(MIB))
    assert tree(place / ".staging") == before
