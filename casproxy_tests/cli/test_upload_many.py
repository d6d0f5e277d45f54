"""Many files in one command, each with its line; what fails, what is tried again, what is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import trio

from casproxy.client.part import part_path
from casproxy.digest import Digest
from casproxy.rpc.errors import RpcError
from casproxy.wire.status import StatusCode
from casproxy_tests.cli.command import PROGRAM, Result, casproxy, write_dev_file
from casproxy_tests.fakes.artifact_server import READ_PIECE, ArtifactServer, serve

CONTENT = os.urandom(3 * READ_PIECE + 1)
DIGEST = Digest.of(CONTENT)


def line(content: bytes, name: str) -> str:
    return f"{Digest.of(content)}  {name}\n"


async def run(server: ArtifactServer, cwd: Path, *arguments: str) -> Result:
    async with serve(server) as address:
        write_dev_file(cwd, address)
        return await casproxy(*arguments, cwd=cwd)


async def test_a_directory_a_pattern_and_a_file(tmp_path: Path) -> None:
    for name in ("d/a", "d/e/b", "x.1", "x.2", "y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    server = ArtifactServer()
    result = await run(server, tmp_path, "upload", "d", "y", "x.*", "--jobs", "8")
    names = ["d/a", "d/e/b", "y", "x.1", "x.2"]
    assert result == Result(0, "".join(line(name.encode(), name) for name in names), "")
    assert {name for name, _ in server.stored.values()} == {"a", "b", "y", "x.1", "x.2"}


async def test_a_file_that_fails_is_told_and_the_others_are_stored(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in "ac":
        (tmp_path / "d" / name).write_bytes(name.encode())
    os.symlink("nowhere", tmp_path / "d/b")
    os.mkfifo(tmp_path / "d/pipe")
    (tmp_path / "d" / os.fsdecode(b"\xff")).touch()
    result = await run(server := ArtifactServer(), tmp_path, "upload", "d", "--output", "json")
    assert [json.loads(text)["file"] for text in result.out.splitlines()] == ["d/a", "d/c"]
    assert len(server.stored) == 2
    assert result.code == 1
    assert result.err.splitlines()[:2] == [
        "casproxy: d/b: neither a file nor a link to one",
        "casproxy: d/pipe: neither a file nor a link to one",
    ]
    assert "is not UTF-8" in result.err.splitlines()[2]


async def test_the_exit_code_is_that_of_the_first_that_failed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in "ab":
        (tmp_path / "d" / name).write_bytes(name.encode())
    server = ArtifactServer(refuse=RpcError(StatusCode.RESOURCE_EXHAUSTED, "too big"))
    result = await run(server, tmp_path, "upload", "d")
    assert (result.code, result.out) == (1, "")
    assert result.err == "".join(f"casproxy: d/{name}: too big (RESOURCE_EXHAUSTED)\n" for name in "ab")


async def test_a_refused_token_is_told_once(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / str(number)).touch()
    server = ArtifactServer(refuse=RpcError(StatusCode.UNAUTHENTICATED, "JWT token has expired"))
    assert "JWT token has expired" in (await run(server, tmp_path, "upload", "[0-9]")).error(4)
    assert len(server.tokens) < 9


async def test_a_server_that_restarts_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(CONTENT)
    server = ArtifactServer(failures={"Write": 1, "Describe": 1, "Read": 1}, fail_read_after=2)
    async with serve(server) as address:
        write_dev_file(tmp_path, address)
        assert await casproxy("upload", "f", cwd=tmp_path) == Result(0, line(CONTENT, "f"), "")
        done = await casproxy("download", str(DIGEST), "-o", "out", cwd=tmp_path)
        assert done == Result(0, "out\n", "")
        assert (tmp_path / "out").read_bytes() == CONTENT
        server.failures = {"Write": 1, "Describe": 1}
        for command in (("upload", "f", "--retries", "0"), ("describe", str(DIGEST), "--retries", "0")):
            server.stored.clear()
            assert (await casproxy(*command, cwd=tmp_path)).error(1).startswith("the server restarts (UNAVAILABLE)")
    assert server.offsets == [0, 0, 2 * READ_PIECE]


async def test_a_broken_download_is_taken_up_by_the_same_command(tmp_path: Path) -> None:
    server = ArtifactServer(fail_read_after=3)
    server.put("n.bin", CONTENT)
    command = ("download", str(DIGEST), "--retries", "0")
    async with serve(server) as address:
        write_dev_file(tmp_path, address)
        text = (await casproxy(*command, cwd=tmp_path)).error(1)
        assert text.endswith("; 2.0 MiB are kept: the same command goes on from there")
        assert part_path(tmp_path / "n.bin", DIGEST).read_bytes() == CONTENT[: 2 * READ_PIECE]
        assert await casproxy(*command, cwd=tmp_path) == Result(0, "n.bin\n", "")
    assert server.offsets == [0, 2 * READ_PIECE]
    assert (tmp_path / "n.bin").read_bytes() == CONTENT
    assert sorted(os.listdir(tmp_path)) == [".casproxy", "n.bin"]


async def test_a_part_that_does_not_match_is_told(tmp_path: Path) -> None:
    server = ArtifactServer()
    server.put("n.bin", CONTENT)
    part_path(tmp_path / "n.bin", DIGEST).write_bytes(b"something else")
    result = await run(server, tmp_path, "download", str(DIGEST))
    assert (result.code, result.out) == (0, "n.bin\n")
    assert result.err.startswith("casproxy: the part of an earlier download did not match")
    assert (tmp_path / "n.bin").read_bytes() == CONTENT


async def test_ctrl_c_reaches_the_server_and_leaves_the_part_only(tmp_path: Path) -> None:
    server = ArtifactServer(stall=True)
    server.put("n.bin", CONTENT)
    part_path(tmp_path / "n.bin", DIGEST).write_bytes(CONTENT[:READ_PIECE])
    async with serve(server) as address:
        write_dev_file(tmp_path, address)
        done = await interrupted(server, tmp_path, "download", str(DIGEST))
        assert done == (130, "casproxy: interrupted; 1.0 MiB are kept: the same command goes on from there\n")
        await server.cancelled.wait()
    assert sorted(os.listdir(tmp_path)) == [".casproxy", part_path(tmp_path / "n.bin", DIGEST).name]


async def test_ctrl_c_during_uploads(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    server = ArtifactServer(stall=True)
    async with serve(server) as address:
        write_dev_file(tmp_path, address)
        assert await interrupted(server, tmp_path, "upload", "a", "b", "c") == (130, "casproxy: interrupted\n")
        await server.cancelled.wait()
    assert server.stored == {}
    assert sorted(os.listdir(tmp_path)) == [".casproxy", "a", "b", "c"]


async def interrupted(server: ArtifactServer, cwd: Path, *arguments: str) -> tuple[int, str]:
    """The exit code and stderr of a command that gets Ctrl-C while the server stalls."""
    process = await trio.lowlevel.open_process(
        [*PROGRAM, *arguments], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    async with process.stderr:
        await server.stalling.wait()
        process.send_signal(signal.SIGINT)
        code = await process.wait()
        return code, b"".join([part async for part in process.stderr]).decode()
