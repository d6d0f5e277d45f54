"""Every system call of an upload fails once, dies once: the artifact is complete or absent, and nothing is left."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from casproxy.digest import Digest
from casproxy.errors import BackendBroken, BackendUnavailable, StorageError, StorageFull
from casproxy.storage.api import Resource
from casproxy.storage.local.paths import directory
from casproxy.storage.local.root import LocalRoot, open_local_root
from casproxy.storage.local.staging import Staging
from casproxy.storage.local.threads import translate
from casproxy.storage.local.workspace import Workspace
from casproxy.storage.stored_form import describe_artifact
from casproxy_tests.cancellation import open_files
from casproxy_tests.conformance.backends import layout_path, tree
from casproxy_tests.conformance.traffic import MIB, content, get, put
from casproxy_tests.real import missing, require_root
from casproxy_tests.storage.local.conftest import failing_call

ALL_CALLS = 25
"""An upload makes at least so many calls: fewer, and the faults below missed most of it."""


async def test_each_call_fails_once(root: LocalRoot, place: Path) -> None:
    backend = root.backend("tenant")
    for number in itertools.count(1):
        data = content(2 * MIB + 5, number)
        digest = Digest.of(data)
        before, files = tree(place), open_files()
        failed = False
        with failing_call(number, lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) as calls:
            try:
                await put(backend, data)
            except StorageFull:
                failed = True
        assert open_files() == files, f"call {number}, {calls[-1]}"
        new = {name: what for name, what in tree(place).items() if name not in before}
        assert not [name for name in new if name.startswith(".staging")], f"call {number}, {calls[-1]}"
        if not failed:
            assert await get(backend, digest) == data
        if len(calls) < number:
            assert number > ALL_CALLS
            return
        if failed and layout_path(place / "tenant", digest).exists():
            assert calls[number - 1] == "fsync", "it was in place, only not yet known to be durable"
            assert await get(backend, digest) == data
        elif failed:
            assert set(new.values()) <= {"directory"}, "no more than the directories on the way"


class Died(BaseException):
    """The process ends here."""


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_the_process_dies_at_each_call(root_fd: int, tmp_path: Path) -> None:
    """No clean-up runs; the next start finds the artifact complete or absent, and sweeps the rest."""
    for number in itertools.count(1):
        data = content(3000, number)
        resource = Resource(Digest.of(data), "a", len(data))
        staging = Staging(root_fd)
        staging.open()
        workspace = Workspace(staging, resource.digest)
        with (
            failing_call(number, Died) as calls,
            suppress(Died),
            directory(root_fd, ["tenant"], create=True) as tenant_fd,
        ):
            workspace.write([data[:2000]])
            workspace.seal([data[2000:]], describe_artifact(resource, data))
            workspace.publish(tenant_fd, resource)
        workspace._close_blob()  # what the kernel does
        staging._held.close()

        survivor = Staging(root_fd)
        survivor.open()
        assert sorted(tree(tmp_path / ".staging")) == sorted({"lock", survivor._area, f"{survivor._area}/lock"})
        survivor.close()
        place = layout_path(tmp_path / "tenant", resource.digest)
        if place.exists():
            assert (place / "blobs/sha256" / resource.digest.hex).read_bytes() == data
            assert len(tree(place)) == 7, "oci-layout, index.json, blobs, sha256 and three blobs"
        if len(calls) < number:
            assert place.exists()
            assert number > ALL_CALLS
            return


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EMFILE, BackendUnavailable),
        (errno.EIO, BackendBroken),
        (errno.EROFS, BackendBroken),
        (errno.EACCES, BackendBroken),
    ],
)
def test_what_a_failed_call_means(number: int, meaning: type[StorageError]) -> None:
    translated = translate(OSError(number, os.strerror(number), "/a/path"))
    assert type(translated) is meaning
    assert "/a/path" not in str(translated)


@pytest.fixture
def small_place(place: Path) -> Iterator[Path]:
    """A root on a file system of 4 MiB."""
    require_root("mounting a small file system")
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        missing(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


async def test_a_full_disk(small_place: Path) -> None:
    async with open_local_root(small_place) as root:
        backend = root.backend("tenant")
        small = await put(backend, content(MIB))
        before = tree(small_place)
        with pytest.raises(StorageFull, match="no room in local storage: no space left on device"):
            await put(backend, content(6 * MIB))
        assert tree(small_place) == before
        assert await get(backend, small.digest) == content(MIB)
        await put(backend, content(MIB, 2))
