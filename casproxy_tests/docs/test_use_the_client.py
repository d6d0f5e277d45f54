"""The page about the client is executed as the tutorial is; its Python blocks become the files that it names."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

from casproxy_tests.docs.test_tutorial import background, blocks, run

PAGE = Path(__file__).parents[2] / "docs/how-to/use-the-client.md"
_FILE = re.compile(r"^<!-- file: (?P<name>[\w.]+) -->\n```python\n(?P<text>.*?)^```\n", re.MULTILINE | re.DOTALL)


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    programs, directory = tmp_path / "bin", tmp_path / "empty"
    programs.mkdir()
    directory.mkdir()
    for name, arguments in (("casproxy", "-m casproxy.cli.main "), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
        (programs / name).chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CASPROXY_")}
    environment |= {"PATH": f"{programs}:{environment['PATH']}", "PYTHONUTF8": "1"}
    text = PAGE.read_text("utf-8")
    files = list(_FILE.finditer(text))
    assert len(files) == text.count("```python\n") == 1
    for file in files:
        (directory / file["name"]).write_text(file["text"], "utf-8")
    found = blocks(text)
    assert len(found) == text.count("```sh\n")
    with background(directory, environment) as server:
        for block in found:
            if "background" in block.how:
                server.start(block)
            else:
                run(block, directory, environment)
