"""The real commands in a process of their own, against a server whose misbehaviour is chosen here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy.rpc.errors import RpcError
from casproxy.wire.status import StatusCode
from casproxy_tests.cli.command import Result, casproxy, write_dev_file
from casproxy_tests.fakes.artifact_server import READ_PIECE, ArtifactServer, serve

CONTENT = b"hello\n"
DIGEST = Digest.of(CONTENT)


async def run(server: ArtifactServer, cwd: Path, *arguments: str | Path, stdin: bytes = b"") -> Result:
    """One command in ``cwd``, where dev.json leads to ``server``."""
    async with serve(server) as address:
        write_dev_file(cwd, address)
        return await casproxy(*arguments, cwd=cwd, stdin=stdin)


def visible(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name != ".casproxy")


async def test_upload_prints_a_digest_per_file_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(CONTENT)
    (tmp_path / "a.txt").write_bytes(b"")
    server = ArtifactServer()
    result = await run(server, tmp_path, "upload", "b.txt", "a.txt")
    assert result == Result(0, f"{DIGEST}  b.txt\n{EMPTY_DIGEST}  a.txt\n", "")
    assert server.stored == {DIGEST.hex: ("b.txt", CONTENT), EMPTY_DIGEST.hex: ("a.txt", b"")}
    assert set(server.tokens) == {"Bearer up.tok"}


@pytest.mark.parametrize("form", [("-f", "f"), ("--file", "f"), ("--timeout", "50", "f")])
async def test_upload_forms(tmp_path: Path, form: tuple[str, ...]) -> None:
    (tmp_path / "f").write_bytes(CONTENT)
    assert (await run(ArtifactServer(), tmp_path, "upload", *form)).out == f"{DIGEST}  f\n"


async def test_upload_of_stdin_with_and_without_a_name(tmp_path: Path) -> None:
    server = ArtifactServer()
    result = await run(server, tmp_path, "upload", "-", "--name", "greeting", "--output", "json", stdin=CONTENT)
    assert json.loads(result.out) == {
        "digest": str(DIGEST),
        "size": 6,
        "file_name": "greeting",
        "deduplicated": False,
        "file": "-",
    }
    assert server.stored[DIGEST.hex] == ("greeting", CONTENT)


async def test_a_hostile_file_name_cannot_forge_output(tmp_path: Path) -> None:
    server = ArtifactServer()
    server.put("a\nsha256:forged\x1b[2J", CONTENT)
    assert (await run(server, tmp_path, "download", str(DIGEST))).out == "a\\nsha256:forged\\x1b[2J\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("upload", "there", "missing"), 1, "missing: No such file or directory"),
        (("upload", "there", "empty"), 1, "empty: there is no file in this directory that is not hidden"),
        (("upload", "there", "x*y"), 1, "x*y: no file matches this pattern"),
        (("upload", "there", "--jobs", "0"), 2, "argument -j/--jobs: '0' is not a number from 1 to 64"),
        (("upload", "there", "--retries", "-1"), 2, "argument --retries: "),
        (("upload",), 2, "no file to upload: give FILE, or - for stdin"),
        (("upload", "a", "b", "--name", "n"), 2, "--name goes with one file only"),
        (("upload", "-", "-f", "-"), 2, "stdin (-) can be uploaded only once"),
        (("download",), 2, "no digest: give sha256: and 64 hex digits"),
        (("download", "sha256:ABC"), 2, "invalid digest 'ABC'"),
        (("download", "-d", "x", "x"), 2, "one digest at a time"),
        (("download", str(DIGEST), "-o", "-", "--output", "json"), 2, "--output json goes to stdout"),
        (("describe", "../x"), 2, "invalid digest '../x'"),
        (("describe", str(DIGEST)), 3, f"artifact {DIGEST} not found"),
        (("download", str(DIGEST)), 3, f"artifact {DIGEST} not found"),
        (("status", "--addr", "nonsense", "--insecure"), 2, "invalid address 'nonsense'"),
        (("describe", str(DIGEST), "--token", "two words"), 2, "the token has characters no token has"),
    ],
)
async def test_what_goes_wrong_is_one_line_and_an_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "empty").mkdir()
    server = ArtifactServer()
    assert (await run(server, tmp_path, *arguments)).error(code).startswith(text)
    assert server.stored == {}


@pytest.mark.parametrize(
    "command", [("upload", "f"), ("describe", str(DIGEST)), ("download", str(DIGEST)), ("status",)]
)
async def test_a_refused_token_is_exit_code_4(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "f").write_bytes(CONTENT)
    refusal = RpcError(StatusCode.UNAUTHENTICATED, "JWT token has expired")
    line = (await run(ArtifactServer(refuse=refusal), tmp_path, *command)).error(4)
    assert line.startswith("JWT token has expired (UNAUTHENTICATED); give a valid token")


async def test_download_into_the_directory_under_the_last_segment_of_the_stored_name(tmp_path: Path) -> None:
    server = ArtifactServer()
    server.put("../../evil/hello.txt", CONTENT)
    result = await run(server, tmp_path, "download", str(DIGEST))
    assert result == Result(0, "hello.txt\n", "")
    assert (tmp_path / "hello.txt").read_bytes() == CONTENT
    assert set(server.tokens) == {"Bearer down.tok"}


async def test_download_to_a_file_to_stdout_and_as_json(tmp_path: Path) -> None:
    server = ArtifactServer()
    server.put("n", CONTENT)
    async with serve(server) as address:
        write_dev_file(tmp_path, address)
        assert await casproxy("download", DIGEST.hex, "-o", "-", cwd=tmp_path) == Result(0, "hello\n", "")
        result = await casproxy("download", "-d", str(DIGEST), "-o", "x", "--output", "json", cwd=tmp_path)
        assert json.loads(result.out) == {"digest": str(DIGEST), "size": 6, "file": "x"}
        assert (
            (await casproxy("download", str(DIGEST), "-o", "x", cwd=tmp_path)).error(1).startswith("x exists already")
        )
        assert (await casproxy("download", str(DIGEST), "-o", "x", "--force", cwd=tmp_path)).code == 0
    assert visible(tmp_path) == ["x"]


async def test_a_damaged_artifact_is_exit_code_5_and_never_whole(tmp_path: Path) -> None:
    server, content = ArtifactServer(corrupt=True), bytes(2 * READ_PIECE)
    digest = str(Digest(server.put("n", content)))
    async with serve(server) as address:
        write_dev_file(tmp_path, address)
        assert (await casproxy("download", digest, cwd=tmp_path)).error(5).startswith("checksum mismatch")
        to_stdout = await casproxy("download", digest, "-o", "-", cwd=tmp_path)
    assert to_stdout.code == 5
    assert len(to_stdout.out) < len(content)
    assert visible(tmp_path) == []


async def test_data_loss_told_by_the_server_is_exit_code_5(tmp_path: Path) -> None:
    loss = RpcError(StatusCode.DATA_LOSS, "checksum mismatch: got=a, want=b")
    line = (await run(ArtifactServer(refuse=loss), tmp_path, "download", str(DIGEST))).error(5)
    assert line.startswith("checksum mismatch: got=a, want=b (DATA_LOSS)")


async def test_describe(tmp_path: Path) -> None:
    server = ArtifactServer()
    digest = Digest(server.put("big\x1b.bin", bytes(2048)))
    async with serve(server) as address:
        write_dev_file(tmp_path, address)
        text = await casproxy("describe", str(digest), cwd=tmp_path)
        as_json = await casproxy("describe", str(digest), "--output", "json", cwd=tmp_path)
    assert text == Result(0, f"digest  {digest}\nname    big\\x1b.bin\nsize    2048 bytes (2.0 KiB)\n", "")
    assert json.loads(as_json.out) == {"digest": str(digest), "file_name": "big\x1b.bin", "size": 2048}


async def test_status(tmp_path: Path) -> None:
    server = ArtifactServer()
    async with serve(server) as address:
        ready = await casproxy("status", "--addr", address, "--insecure", cwd=tmp_path)
        server.not_ready = "the secret store is away"
        unready = await casproxy("status", "--addr", address, "--insecure", cwd=tmp_path)
        as_json = await casproxy("status", "--addr", address, "--insecure", "--output", "json", cwd=tmp_path)
    assert ready == Result(0, "version   9.9\nbackends  FS, OCI\nready     yes\n", "")
    assert unready == Result(1, "version   9.9\nbackends  FS, OCI\nready     no: the secret store is away\n", "")
    assert as_json.code == 1
    assert json.loads(as_json.out) == {
        "version": "9.9",
        "chart_version": "",
        "backends": ["FS", "OCI"],
        "ready": False,
        "reason": "the secret store is away",
        "trouble": "",
    }


async def test_a_dev_json_whose_server_is_gone_says_so(tmp_path: Path) -> None:
    async with serve(ArtifactServer()) as address:
        write_dev_file(tmp_path, address)
    line = (await casproxy("status", cwd=tmp_path)).error(1)
    assert line.startswith(f"cannot connect to {address}")
    assert line.endswith("is 'casproxy dev' still running here?")


async def test_a_dev_json_that_is_not_private_is_not_used(tmp_path: Path) -> None:
    write_dev_file(tmp_path, "127.0.0.1:1").chmod(0o644)
    assert "run chmod 600 .casproxy/dev.json" in (await casproxy("status", cwd=tmp_path)).error(1)


async def test_a_token_in_the_environment_is_never_shown(tmp_path: Path) -> None:
    async with serve(ArtifactServer(refuse=RpcError(StatusCode.UNAUTHENTICATED, "Token is invalid"))) as address:
        result = await casproxy(
            *("describe", str(DIGEST), "--addr", address, "--insecure"),
            cwd=tmp_path,
            env={"CASPROXY_TOKEN": "very.secret.token", "CASPROXY_DEBUG": "1"},
        )
    assert result.code == 4
    assert "Traceback" in result.err
    assert "very.secret" not in result.err + result.out
