"""What is particular to secret files: YAML as people write it, permissions, reloads, broken files."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
import trio
import trio.testing

from casproxy.errors import ConfigError, SecretError, SecretMalformed, SecretNotFound, SecretUnavailable
from casproxy.files import write_private
from casproxy.secrets import file as file_module
from casproxy.secrets.file import FileSource
from casproxy_tests.secrets.file_rig import hanging

PASSWORD = "hunter2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets.yaml"


async def password_in(path: Path, content: str, secret_id: str = "a") -> str:
    write_private(path, content.encode())
    return (await FileSource(path).read(secret_id)).text("Password")


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("a: {password: hunter2}", "hunter2"),
        ("a:\n  Repository: r\n  Password: 0123\n", "0123"),
        ("a:\n  Password: no\n", "no"),
        ("a:\n  Password: 2024-01-01\n", "2024-01-01"),
        ('{"a": {"Password": "\\ud83d\\ude00"}}', "😀"),
        ('{\n\t"a": {\n\t\t"Password": "tabs"\n\t}\n}\n', "tabs"),
        ('{"a": {"Password": 1e3}}', "1e3"),
        ("{a: {Password: flow}}", "flow"),
        ("base: &base {Password: shared}\na: *base\n", "shared"),
        ("\n\n  # comment\na: {Password: x}\n", "x"),
    ],
)
async def test_scalars_are_texts_as_written(path: Path, content: str, value: str) -> None:
    assert await password_in(path, content) == value


async def test_null_means_absent(path: Path) -> None:
    write_private(path, b'{"a": {"Path": null, "Password": "x"}}')
    assert (await FileSource(path).read("a")).optional("path") == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hunter2",
        b"- hunter2",
        b'{"a": {"Password": "hunter2"}, ',
        b'{"a": {"Password": "hunter2"}, "a": {"Password": "hunter2"}}',
        b"a: {Password: hunter2}\na: {Password: hunter2}\n",
        b"a: {Password: hunter2, Password: hunter2}\n",
        b"a:\n\tPassword: hunter2\n",
        b"a: [hunter2\n",
        b"? [a, b]\n: hunter2\n",
        b"a: &a {Password: *a}",
        b"a: *hunter2",
        b"\xff\xfehunter2",
        b"hunter2: \x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"# " + b"x" * file_module.MAX_FILE_SIZE,
    ],
    ids=lambda content: repr(content[:30]),
)
async def test_a_broken_map_is_an_outage_and_quotes_nothing(path: Path, content: bytes) -> None:
    write_private(path, content)
    source = FileSource(path)
    with pytest.raises(SecretUnavailable, match=r"^the secret file cannot be used now$") as caught:
        await source.read("a")
    with pytest.raises(ConfigError, match=r"^credentials_service\.file\.path: .*secrets\.yaml") as at_start:
        await source.check()
    shown = "".join(traceback.format_exception(caught.value) + traceback.format_exception(at_start.value))
    assert PASSWORD not in shown


async def test_the_place_of_a_fault_is_named(path: Path) -> None:
    write_private(path, b"a: {Password: x}\nb: [\n")
    with pytest.raises(ConfigError, match=r"is not a YAML or JSON map .*\(line 3, column 1\)$"):
        await FileSource(path).check()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
@pytest.mark.parametrize("form", ["map", "directory"])
async def test_files_others_can_open_are_not_used(tmp_path: Path, mode: int, form: str) -> None:
    root = tmp_path / "secrets"
    root.mkdir(mode=0o700)
    file = root / "a.yaml"
    write_private(file, b"{a: {Password: hunter2}, Password: hunter2}")
    file.chmod(mode)
    source = FileSource(root if form == "directory" else file)
    with pytest.raises(SecretUnavailable):
        await source.read("a")
    with pytest.raises(ConfigError, match=rf"^credentials_service\.file\.path: .* run chmod 600 {file}$"):
        await source.check()
    file.chmod(0o400)
    await source.read("a")
    await source.check()


async def test_a_map_is_parsed_again_only_when_it_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    real = file_module._parse

    def counting(data: bytes) -> object:
        parsed.append(len(data))
        return real(data)

    monkeypatch.setattr(file_module, "_parse", counting)
    write_private(path, b"a: {Password: one}")
    source = FileSource(path)
    for _ in range(5):
        await source.read("a")
    assert len(parsed) == 1
    write_private(path, b"a: {Password: other}")
    assert (await source.read("a")).text("password") == "other" and len(parsed) == 2


async def test_kubernetes_swaps_a_symlink(tmp_path: Path) -> None:
    for version in ("one", "other"):
        (tmp_path / version).mkdir(mode=0o700)
        write_private(tmp_path / version / "secrets.yaml", f"a: {{Password: {version}}}".encode())
    link, path = tmp_path / "..data", tmp_path / "secrets.yaml"
    link.symlink_to("one")
    path.symlink_to("..data/secrets.yaml")
    source = FileSource(path)
    assert (await source.read("a")).text("password") == "one"
    (tmp_path / "new").symlink_to("other")
    os.replace(tmp_path / "new", link)
    assert (await source.read("a")).text("password") == "other"


async def test_directory_names(tmp_path: Path) -> None:
    for name, content in (
        ("plain", "Password: plain"),
        ("y.yaml", "Password: yaml"),
        ("z.yml", "Password: yml"),
        ("j.json", '{"Password": "json"}'),
        ("sub/x.json", '{"Password": "deep"}'),
        ("both", "Password: bare name first"),
        ("both.yaml", "Password: never"),
        ("broken.json", '{"Password": "hunter2"'),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_private(tmp_path / name, content.encode())
    source = FileSource(tmp_path)
    found = {name: (await source.read(name)).text("password") for name in ("plain", "y", "z", "j", "sub/x", "both")}
    assert list(found.values()) == ["plain", "yaml", "yml", "json", "deep", "bare name first"]
    with pytest.raises(SecretMalformed, match=r"^secret broken is not a JSON or YAML object$") as caught:
        await source.read("broken")
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    for missing in ("sub", "y.json", "plain/x"):
        with pytest.raises(SecretNotFound):
            await source.read(missing)


async def test_reads_use_few_threads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(path, b"a: {Password: x}")
    source = FileSource(path)
    async with trio.open_nursery() as nursery:
        with hanging(monkeypatch):
            for _ in range(50):
                nursery.start_soon(source.read, "a")
            await trio.testing.wait_all_tasks_blocked()
            assert source._limiter.borrowed_tokens == 4
            assert source._limiter.statistics().tasks_waiting == 46


async def test_a_fifo_does_not_hang_the_reader(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(SecretError):
        await FileSource(fifo).read("a")
