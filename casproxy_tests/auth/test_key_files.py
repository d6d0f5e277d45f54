"""Key files as they change under our feet: rewritten, replaced, swapped by Kubernetes, broken, gone."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from casproxy.auth import key_files
from casproxy.auth.key_files import KeyFiles
from casproxy.auth.keys import VerificationKey, read_key_file
from casproxy_tests.auth import forge
from casproxy_tests.auth.mount import Mount
from casproxy_tests.cancellation import Run, cancel_everywhere


class Reads:
    """Reads PEM files and notes which."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, path: Path) -> tuple[VerificationKey, ...]:
        self.names.append(path.name)
        return read_key_file(path)

    def taken(self) -> list[str]:
        names, self.names = self.names, []
        return names


def files_at(path: Path, reads: Reads | None = None) -> KeyFiles:
    return KeyFiles(path, reads or Reads(), setting="auth.public_key_path", max_stale=math.inf)


async def kinds(files: KeyFiles) -> list[str]:
    """Which keys a look gives; the look must be without a fault."""
    reading = await files.read()
    assert not reading.fault
    return _kinds(reading.keys)


def _kinds(keys: tuple[VerificationKey, ...]) -> list[str]:
    known = {kind: forge.keys(kind)[0] for kind in ("P-521", "other P-521", "P-256", "Ed25519")}
    return [kind for key in keys for kind, candidate in known.items() if candidate == key]


def replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(data)
    beside.rename(path)


async def test_a_file_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    file, reads = tmp_path / "key.pem", Reads()
    file.write_bytes(forge.public_pem("P-521"))
    files = files_at(file, reads)
    for _ in range(3):
        assert await kinds(files) == ["P-521"]
    assert reads.taken() == ["key.pem"]
    file.write_bytes(forge.public_pem("P-256"))
    assert await kinds(files) == ["P-256"]
    replace(file, forge.public_pem("P-521") + forge.public_pem("P-256"))
    assert await kinds(files) == ["P-521", "P-256"]
    assert reads.taken() == ["key.pem"] * 2


async def test_same_size_same_times_another_file(tmp_path: Path) -> None:
    """``cp --preserve`` and ``rename``: only the inode tells."""
    file = tmp_path / "key.pem"
    file.write_bytes(forge.public_pem("P-521"))
    files = files_at(file)
    assert await kinds(files) == ["P-521"]
    before = file.stat()
    replace(file, forge.public_pem("other P-521"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert await kinds(files) == ["other P-521"]


async def test_kubernetes_swaps_a_symlink(tmp_path: Path) -> None:
    mount = Mount(tmp_path, key=forge.public_pem("P-521"))
    file, directory = files_at(tmp_path / "key.pem"), files_at(tmp_path)
    assert await kinds(file) == await kinds(directory) == ["P-521"]
    mount.swap(key=forge.public_pem("other P-521"))
    assert await kinds(file) == await kinds(directory) == ["other P-521"]
    mount.swap(key=forge.public_pem("other P-521"), next=forge.public_pem("P-256"))
    assert await kinds(file) == ["other P-521"]
    assert await kinds(directory) == ["other P-521", "P-256"]
    mount.swap(next=forge.public_pem("P-256"))
    assert await kinds(directory) == ["P-256"]


async def test_a_directory_reads_only_what_changed(tmp_path: Path) -> None:
    reads = Reads()
    for name, kind in (("b", "P-256"), ("a", "P-521")):
        (tmp_path / name).write_bytes(forge.public_pem(kind))
    (tmp_path / ".hidden").write_bytes(b"nonsense")
    (tmp_path / "below").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    files = files_at(tmp_path, reads)
    assert await kinds(files) == ["P-521", "P-256"] and reads.taken() == ["a", "b"]
    (tmp_path / "c").write_bytes(forge.public_pem("Ed25519"))
    assert await kinds(files) == ["P-521", "P-256", "Ed25519"] and reads.taken() == ["c"]
    (tmp_path / "a").unlink()
    assert await kinds(files) == ["P-256", "Ed25519"] and reads.taken() == []


@pytest.mark.parametrize("broken", [b"", b"half a", forge.public_pem("secp256k1"), b"\n" * 1_048_577], ids=len)
async def test_a_broken_new_file_keeps_the_old_keys_until_it_is_mended(tmp_path: Path, broken: bytes) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(forge.public_pem("P-521"))
    files = files_at(file)
    assert await kinds(files) == ["P-521"]
    file.write_bytes(broken)
    for _ in range(2):
        reading = await files.read()
        assert _kinds(reading.keys) == ["P-521"] and str(file) in reading.fault
    file.write_bytes(forge.public_pem("P-256"))
    assert await kinds(files) == ["P-256"]


async def test_a_broken_file_is_read_again_although_nothing_tells_that_it_changed(tmp_path: Path) -> None:
    """A writer caught in the middle may finish within the same tick of the file system's clock."""
    file, reads = tmp_path / "key.pem", Reads()
    file.write_bytes(b"half")
    files = files_at(file, reads)
    assert (await files.read()).fault and (await files.read()).fault
    assert reads.taken() == ["key.pem"] * 2


async def test_a_missing_file_keeps_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(forge.public_pem("P-521"))
    files = files_at(file)
    await files.read()
    file.unlink()
    reading = await files.read()
    assert (
        _kinds(reading.keys) == ["P-521"]
        and reading.fault == f"cannot read the public key {file}: No such file or directory"
    )
    file.write_bytes(forge.public_pem("P-521"))
    assert await kinds(files) == ["P-521"]


async def test_one_broken_file_in_a_directory_does_not_keep_a_withdrawn_key(tmp_path: Path) -> None:
    for name, kind in (("old", "P-521"), ("current", "P-256")):
        (tmp_path / name).write_bytes(forge.public_pem(kind))
    files = files_at(tmp_path)
    assert await kinds(files) == ["P-256", "P-521"]
    (tmp_path / "new").write_bytes(b"half")
    (tmp_path / "old").unlink()
    reading = await files.read()
    assert _kinds(reading.keys) == ["P-256"] and reading.fault.startswith(f"{tmp_path / 'new'} holds no PEM block")
    (tmp_path / "new").write_bytes(forge.public_pem("Ed25519"))
    assert await kinds(files) == ["P-256", "Ed25519"]


async def test_an_empty_or_missing_directory_keeps_the_keys(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    directory.mkdir()
    (directory / "a").write_bytes(forge.public_pem("P-521"))
    files = files_at(directory)
    await files.read()
    (directory / "a").unlink()
    reading = await files.read()
    assert _kinds(reading.keys) == ["P-521"] and reading.fault.endswith("it holds 0 files; want 1 to 100")
    directory.rmdir()
    reading = await files.read()
    assert _kinds(reading.keys) == ["P-521"] and "No such file" in reading.fault


async def test_too_many_files_are_not_read(tmp_path: Path) -> None:
    for number in range(101):
        (tmp_path / f"{number}.pem").touch()
    reads = Reads()
    assert (await files_at(tmp_path, reads).read()).fault.endswith("it holds 101 files; want 1 to 100")
    assert reads.taken() == []


async def test_a_private_key_in_the_directory_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "private.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----\n")
    reading = await files_at(tmp_path).read()
    assert "holds a private key: put the public one here" in reading.fault and "MC4C" not in reading.fault


async def test_a_look_that_was_given_up_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that hangs: its thread ends some day, with what was true long ago."""
    file = tmp_path / "key.pem"
    file.write_bytes(forge.public_pem("P-521"))
    files = files_at(file)
    look, go_on, ended = key_files._look, threading.Event(), threading.Event()

    def slow_look(*arguments: object) -> object:
        try:
            result = look(*arguments)  # type: ignore[arg-type]
            assert go_on.wait(30)
            return result
        finally:
            ended.set()

    with monkeypatch.context() as patch:
        patch.setattr(key_files, "_look", slow_look)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(files.read)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    file.write_bytes(forge.public_pem("P-256"))
    go_on.set()
    await trio.to_thread.run_sync(ended.wait)
    assert await kinds(files) == ["P-256"]


async def test_cancelled_anywhere_the_next_look_works(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(forge.public_pem("P-521"))
    made: list[KeyFiles] = []

    async def scenario() -> None:
        made.append(files_at(file))
        await made[-1].read()

    async def check(run: Run[None]) -> None:
        assert await kinds(made[-1]) == ["P-521"]

    assert await cancel_everywhere(scenario, check) >= 1
