"""What is in the image, and what is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from casproxy_tests.container import SLOWEST_SECONDS
from casproxy_tests.container.build import ROOT, Image

pytestmark = pytest.mark.timeout(SLOWEST_SECONDS)
_UNCHECKED_HASH = 0b01  # PEP 552: the flags word of a pyc that is never compared with its source
_TOOLS = re.compile(r"(?:cc|gcc|g\+\+|make|ld|as|git|pip3?|uv)")
_PROGRAM = "opt/casproxy"


def test_what_an_engine_is_told(image: Image) -> None:
    config = image.config
    assert config["User"] == "1001:1001"
    assert config["Entrypoint"] == ["/opt/casproxy/bin/casproxy", "serve", "--conf", "/data/conf"]
    assert set(config["ExposedPorts"]) == {"9001/tcp", "8001/tcp", "5001/tcp"}
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "/opt/casproxy/bin/casproxy", "probe", "--conf", "/data/conf"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert (labels["title"], labels["licenses"], labels["version"]) == ("casproxy", "Apache-2.0", "1.2.3")
    assert labels["description"] and labels["revision"]


def test_no_tool_that_built_it_and_no_cache(image: Image) -> None:
    tools = [path for room in ("bin", "usr/bin", "usr/local/bin") for path in (image.root / room).glob("*")]
    assert not [path.name for path in tools if _TOOLS.fullmatch(path.name)]
    packages = {path.name for path in (image.root / _PROGRAM / "lib/python3.11/site-packages").iterdir()}
    assert "casproxy" in packages
    assert not packages & {"pip", "setuptools", "wheel", "pytest", "casproxy_tests", "mypy"}
    assert not (image.root / "usr/lib/python3/dist-packages/pip").exists()
    for emptied in ("root", "tmp", "var/cache", "var/lib/apt/lists", "var/log", "run/secrets"):
        assert not [path for path in (image.root / emptied).glob("*") if not path.name.startswith(".")], emptied
    assert {path.name for path in (image.root / _PROGRAM / "bin").iterdir()} == {
        "casproxy",
        "python",
        "python3",
        "python3.11",
    }


def test_dependencies_are_those_of_the_constraints(image: Image) -> None:
    pinned = {_name(line): line.partition("==")[2] for line in _lines(ROOT / "constraints.txt")}
    metadata = (image.root / _PROGRAM / "lib/python3.11/site-packages").glob("*.dist-info")
    installed = {_name(path.name): path.name.split("-")[1].removesuffix(".dist") for path in metadata}
    installed.pop("casproxy")
    assert installed and installed == {name: pinned.get(name) for name in installed}


def test_everything_is_compiled_and_believed_without_a_look_at_its_source(image: Image) -> None:
    """A read-only root cannot take bytecode: what is missing here is compiled again at every start."""
    wrong = [str(path) for path in _modules(image.root / _PROGRAM / "lib") if not _compiled(path)]
    assert not wrong
    standard = image.root / "usr/lib/python3.11"
    assert all(_compiled(standard / name) for name in ("asyncio/base_events.py", "ssl.py", "argparse.py"))


def _modules(directory: Path) -> Iterator[Path]:
    """All that can be imported; templates in packages of tools cannot."""
    return (path for path in directory.rglob("*.py") if all(part.isidentifier() for part in path.stem.split(".")))


def _compiled(module: Path) -> bool:
    compiled = module.parent / "__pycache__" / f"{module.stem}.cpython-311.pyc"
    if not compiled.exists():
        return False
    header = compiled.read_bytes()[:8]
    return int.from_bytes(header[4:8], "little") == _UNCHECKED_HASH


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _name(text: str) -> str:
    """A distribution's name as PyPA compares them, of ``Name==1`` or ``Name-1.dist-info``."""
    return re.sub(r"[-_.]+", "-", re.split(r"==|-[0-9]", text)[0]).lower()
