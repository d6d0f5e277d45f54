"""The page on rotation does what it says: its commands are executed, and what they make are good keys."""

from __future__ import annotations

import os
import time
from pathlib import Path

from casproxy.auth.jwks import parse_jwks
from casproxy.auth.keys import read_key_file
from casproxy.auth.verify import verify
from casproxy_tests.architecture import ROOT
from casproxy_tests.docs.test_tutorial import blocks, environment, run

PAGE = ROOT / "docs/how-to/rotate-keys.md"

__all__ = ["environment"]


def test_the_page_leaves_the_new_key_alone(tmp_path: Path, environment: dict[str, str]) -> None:
    directory = tmp_path / "empty"
    directory.mkdir()
    text = PAGE.read_text("utf-8")
    commands = blocks(text)
    assert len(commands) == text.count("```sh\n") == 6
    for block in commands:
        run(block, directory, environment)
    assert os.listdir(directory / "keys") == ["next.pem"]
    (named,) = parse_jwks((directory / "keys.json").read_bytes(), origin="keys.json")
    (plain,) = read_key_file(directory / "keys" / "next.pem")
    token = (directory / "next.token").read_text().strip()
    for key in (named, plain):
        assert verify(token, [key], time.time()).secret_id == "acme/oci"
