"""One image for all tests of this room, and one OpenBao."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from casproxy_tests.container import ASKED_FOR, BUILT
from casproxy_tests.container.build import Image, build, opened
from casproxy_tests.real import require_real, require_root
from casproxy_tests.real.openbao import OpenBao, running_openbao


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if not ASKED_FOR:
        pytest.skip("building the image takes a minute and a half; `just image-test` does")
    require_root("building an image")
    for program in ("buildah", "debootstrap", "runc"):
        require_real(program, "building an image and running it")
    directory = Path(BUILT) if BUILT else tmp_path_factory.mktemp("image")
    if not BUILT:
        build(directory)
    with opened(directory) as found:
        yield found


@pytest.fixture(scope="session")
def openbao() -> Iterator[OpenBao]:
    with running_openbao() as server:
        server.mount("secret")
        yield server
