"""Make everything a release consists of, into ``dist/``: nothing is uploaded, tagged or committed.

::

    casproxy-X.tar.gz            source distribution
    casproxy-X-py3-none-any.whl  built out of it, tried in an empty environment
    casproxy-X.cdx.json          CycloneDX: every package that comes along, with version, licence and where it is from
    casproxy-X.licences.md       the licences of those, to read
    casproxy-X.changes.md        the changelog's next entry
    SHA256SUMS

The version is ``casproxy.__version__`` and nowhere else. ``--changelog`` also writes the entry into CHANGELOG.md and
removes the newsfragments. Owns the order of things and refuses to know how each is done: build, towncrier and
cyclonedx-py do. Usage: ``just release``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casproxy import __version__
from contrib.check_wheel import ROOT, check_files, installed, newest_wheel, use

DIST = ROOT / "dist"
_STEM = f"casproxy-{__version__}"


def main() -> None:
    """Exit with a sentence when something is wrong."""
    parser = argparse.ArgumentParser(description="Make everything a release consists of, into dist/.")
    parser.add_argument("--changelog", action="store_true", help="write CHANGELOG.md and remove the newsfragments")
    options = parser.parse_args()
    for directory in (DIST, ROOT / "build"):  # setuptools would pack what an earlier build left there
        shutil.rmtree(directory, ignore_errors=True)
    wheel = _build()
    with installed(wheel) as environment:
        use(environment)
        components = _bill_of_materials(environment)
    _licences(components)
    _changes(write=options.changelog)
    _sums()
    print(f"dist/: casproxy {__version__} with {len(components)} packages that come along")


def _build() -> Path:
    """Source distribution, and the wheel out of that: what is missing in the one is missing in the other."""
    _run("build", "--outdir", DIST, ROOT)
    wheel = newest_wheel(DIST)
    if wheel.name != f"{_STEM}-py3-none-any.whl":
        sys.exit(f"{wheel.name}: its version is not casproxy.__version__, {__version__}")
    check_files(wheel)
    return wheel


@dataclass(frozen=True, slots=True)
class _Component:
    """A package that comes along. ``licences``: SPDX expressions or, if its author knows none, names."""

    name: str
    version: str
    licences: tuple[str, ...]


def _bill_of_materials(environment: Path) -> list[_Component]:
    path = DIST / f"{_STEM}.cdx.json"
    root = ("--pyproject", ROOT / "pyproject.toml", "--mc-type", "application")
    _run("cyclonedx_py", "environment", *root, "--output-reproducible", "-o", path, environment / "bin/python")
    bill = json.loads(path.read_text())
    bill["metadata"]["component"]["version"] = __version__  # dynamic in pyproject.toml, which is all the tool reads
    for item in bill["components"]:
        item.setdefault("licenses", list(_declared(environment, item["name"])))
    path.write_text(json.dumps(bill, indent=2) + "\n")
    found = [_component(item) for item in bill["components"] if item["name"] != "casproxy"]
    return sorted(found, key=lambda component: component.name.lower())


def _declared(environment: Path, package: str) -> Iterator[dict[str, Any]]:
    """The old metadata's free text, of which the tool takes only what SPDX knows (protobuf: "3-Clause BSD License")."""
    places = [str(path) for path in environment.glob("lib/python*/site-packages")]
    for distribution in importlib.metadata.distributions(name=package, path=places):
        if text := distribution.metadata.json.get("license"):
            yield {"license": {"acknowledgement": "declared", "name": text}}


def _component(item: dict[str, Any]) -> _Component:
    return _Component(item["name"], item["version"], tuple(_licence_names(item["licenses"])))


def _licence_names(entries: list[dict[str, Any]]) -> list[str]:
    """CycloneDX 1.6, "licenses": an expression or SPDX ids; names only where there are neither."""
    licences = [entry["license"] for entry in entries if "license" in entry]
    known = [entry["expression"] for entry in entries if "expression" in entry]
    known += [licence["id"] for licence in licences if "id" in licence]
    return known or [licence["name"].removeprefix("License :: OSI Approved :: ") for licence in licences]


def _licences(components: list[_Component]) -> None:
    unknown = [component.name for component in components if not component.licences]
    if unknown:
        sys.exit(f"no licence is known of {', '.join(unknown)}; look it up before this is given away")
    rows = (f"| {item.name} | {item.version} | {', '.join(dict.fromkeys(item.licences))} |\n" for item in components)
    table = "| package | version | licence |\n| --- | --- | --- |\n" + "".join(rows)
    (DIST / f"{_STEM}.licences.md").write_text(f"# What comes along with casproxy {__version__}\n\n{table}")


def _changes(*, write: bool) -> None:
    """The next entry as a draft; with ``write`` also where it belongs, and its newsfragments are gone."""
    draft = _run("towncrier", "build", "--draft", "--version", __version__, "--dir", ROOT)
    (DIST / f"{_STEM}.changes.md").write_text(draft)
    if write:
        _run("towncrier", "build", "--yes", "--version", __version__, "--dir", ROOT)


def _sums() -> None:
    """As ``sha256sum --check`` reads them."""
    files = sorted(DIST.iterdir())
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (DIST / "SHA256SUMS").write_text("".join(lines))


def _run(module: str, *arguments: str | Path) -> str:
    """What a Python program prints; exits with its words when it fails."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{module}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
