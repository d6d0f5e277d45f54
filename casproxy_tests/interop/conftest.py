"""Owns the other implementations of gRPC the tests run against, unmodified: how each is built and started."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from casproxy_tests.cas import machines_environment
from casproxy_tests.interop.programs import ROOT, python
from casproxy_tests.real import require_real


@pytest.fixture(scope="session")
def grpc_go(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of ``contrib/interop/go``."""
    go = require_real("go", "building grpc-go's side of the interoperability tests")
    built = tmp_path_factory.mktemp("go") / "peer"
    subprocess.run(
        [go, "build", "-o", built, "."], cwd=ROOT / "contrib/interop/go", env=machines_environment(), check=True
    )
    return [str(built)]


@pytest.fixture(scope="session")
def grpc_js(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of ``contrib/interop/js``, installed aside so that the checkout stays clean."""
    node = require_real("node", "running grpc-js's side of the interoperability tests")
    npm = require_real("npm", "installing grpc-js")
    place = tmp_path_factory.mktemp("js")
    for source in (ROOT / "contrib/interop/js").iterdir():
        if source.is_file():
            shutil.copy(source, place)
    subprocess.run(
        [npm, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=place,
        env=machines_environment(),
        check=True,
    )
    return [str(node), str(place / "peer.js")]


@pytest.fixture
def other(request: pytest.FixtureRequest) -> list[str]:
    """The command line of the implementation a test is parametrised with: ``go``, ``js``, ``grpclib`` or ``grpcio``."""
    name: str = request.param
    if name == "grpclib":
        return python("grpclib_peer")
    command: list[str] = request.getfixturevalue(f"grpc_{name}")
    return command
