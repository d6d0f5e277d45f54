"""No command in the documentation is only written: it is executed by a test, or says what it needs that a test has not.

A page whose commands this module runs gets a directory of its own, the files in ``_GIVEN`` that it speaks of, and the
``casproxy dev`` that it starts, whose ports stand for the page's ``localhost:9001``, ``8001`` and ``5001``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from casproxy.auth.mint import generate_keypair
from casproxy_tests.architecture import ROOT
from casproxy_tests.docs.test_tutorial import Block, background, blocks, environment, run
from casproxy_tests.real import require_real
from casproxy_tests.real.registry import Access, running_registry

__all__ = ["environment"]

_NEEDS = {
    "a checkout of yours",  # .ci/run does it
    "a cluster",
    "a container engine",
    "a server of yours",
    "minutes",
    "systemd",
}
_ELSEWHERE = {
    "docs/how-to/rotate-keys.md": "casproxy_tests/auth/test_rotate_page.py",
    "docs/how-to/use-the-client.md": "casproxy_tests/docs/test_use_the_client.py",
    "docs/tutorial/README.md": "casproxy_tests/docs/test_tutorial.py",
}
_PAGES = {str(path.relative_to(ROOT)): path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]}
_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(
    r"^ *(?:\$ )?(?:\S*/)?(?:casproxy|curl|docker|helm|just|kubectl|openssl|pip|podman|python3?|systemctl) +[\w\-.]",
    re.MULTILINE,
)
_CREDENTIALS = '{Repo: "REGISTRY/team", Username: alice, Password: alices-password}'
_GIVEN = {
    "docs/how-to/migrate.md": {
        "conf/server.yaml": "server: {http: {addr: 0.0.0.0:8001}, grpc: {addr: 0.0.0.0:9001, max_conections: 9}}\n"
        "auth: {public_key_path: cas.public.pem}\noutbound: {allow: [127.0.0.0/8]}\n",
        "conf/config.secret.yaml": "credentials_service: {file: {path: secrets.yaml}}\n",
        "secrets.yaml": f"chainloop/tenant-1: {_CREDENTIALS}\n",
    },
    "docs/how-to/registries.md": {
        "config.yaml": "auth: {public_key_path: cas.public.pem}\noutbound: {allow: [127.0.0.0/8]}\n",
        "secrets.yaml": f"team/cas: {_CREDENTIALS}\n",
    },
    "docs/how-to/secrets.md": {
        "casproxy.yaml": "auth: {public_key_path: cas.public.pem}\n",
        "secrets.yaml": f"chainloop/tenant-1: {_CREDENTIALS}\n",
    },
}


def executed(page: str) -> list[Block]:
    """The blocks of a page that are run here. The README's two commands with pip are run by .ci/run."""
    found = [] if page in _ELSEWHERE else blocks(_PAGES[page].read_text("utf-8"))
    return [block for block in found if not block.needs and not block.script.startswith("python3 -m venv .venv && ")]


@pytest.mark.parametrize("page", [page for page in _PAGES if page != "README.md" and executed(page)])
async def test_the_commands_of_a_page_do_what_it_says(page: str, tmp_path: Path, environment: dict[str, str]) -> None:
    directory = tmp_path / "here"
    directory.mkdir()
    if any("curl" in block.script for block in executed(page)):
        require_real("curl", page)
    given = _GIVEN.get(page, {})
    if "REGISTRY" in "".join(given.values()):
        async with running_registry(tmp_path / "registry", Access.BASIC) as registry:
            give(directory, given, registry.host)
            await trio.to_thread.run_sync(play, executed(page), directory, environment)
    else:
        await trio.to_thread.run_sync(play, executed(page), directory, environment)


def test_the_readme_does_what_it_says(tmp_path: Path, environment: dict[str, str]) -> None:
    """With ``casproxy dev`` running, as it says, in the directory with the ``.venv`` that its first command makes."""
    (tmp_path / "here/.venv").mkdir(parents=True)
    (tmp_path / "here/.venv/bin").symlink_to(tmp_path / "bin")
    (tmp_path / "here/README.md").write_bytes(_PAGES["README.md"].read_bytes())
    play([Block("casproxy dev", None, ("background",)), *executed("README.md")], tmp_path / "here", environment)
    assert (tmp_path / "here/copy.md").read_bytes() == _PAGES["README.md"].read_bytes()


def give(directory: Path, files: dict[str, str], registry: str) -> None:
    (directory / "cas.public.pem").write_bytes(generate_keypair()[1])
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.touch(0o600)
        path.write_text(text.replace("REGISTRY", registry), "utf-8")


def play(found: list[Block], directory: Path, environment: dict[str, str]) -> None:
    """All blocks in order; what the page starts in the background ends with it."""
    with background(directory, environment) as server:
        for block in found:
            if "background" in block.how:
                any_ports = block.script.replace(
                    "casproxy dev", "casproxy dev --grpc-port 0 --http-port 0 --metrics-port 0"
                )
                server.start(replace(block, script=any_ports))
            else:
                run(replace(block, script=_here(block.script, directory)), directory, environment)


def _here(script: str, directory: Path) -> str:
    place = directory / ".casproxy/dev.json"
    if not place.exists():
        return script
    dev = json.loads(place.read_text())
    for port, name in ((9001, "grpc"), (8001, "http"), (5001, "metrics")):
        script = script.replace(f"localhost:{port}", dev[name])
    return script


def test_every_block_of_commands_is_found() -> None:
    """A block that is written in another way would be run by nobody."""
    for page, path in _PAGES.items():
        text = path.read_text("utf-8")
        assert len(blocks(text)) == len(re.findall(r"^ *```sh$", text, re.MULTILINE)), page
        assert not re.search(r"```(?:bash|shell|zsh)\b", text), f"{page}: say sh"
        assert {block.needs for block in blocks(text)} <= _NEEDS | {""}, page


def test_what_looks_like_commands_is_a_block_of_commands() -> None:
    assert not [(page, line) for page, path in _PAGES.items() for line in hidden_commands(path.read_text("utf-8"))]


def hidden_commands(text: str) -> Iterator[str]:
    """Commands in blocks that no test looks at."""
    for language, content in _FENCE.findall(text):
        if language in {"", "console"}:
            yield from _COMMAND.findall(content)


def test_pages_that_are_run_elsewhere_are() -> None:
    for page, test in _ELSEWHERE.items():
        assert page in (ROOT / test).read_text("utf-8"), test


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```\ncasproxy status --addr x\n```\n", 1),
        ("```console\n$ casproxy status\n```\n", 1),
        ("```sh\ncasproxy status\n```\n", 0),
        ("```\nclient ── casproxy ── store\n```\n", 0),
    ],
)
def test_what_counts_as_hidden(text: str, found: int) -> None:
    assert len(list(hidden_commands(text))) == found
