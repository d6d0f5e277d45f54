"""One image for all tests of this room, and one OpenBao."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from casproxy_tests.container import ASKED_FOR
from casproxy_tests.container.build import Image, built_image
from casproxy_tests.real.openbao import OpenBao, running_openbao


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if not ASKED_FOR:
        pytest.skip("building the image takes a minute and a half; `just image-test` does")
    with built_image(tmp_path_factory.mktemp("image")) as built:
        yield built


@pytest.fixture(scope="session")
def openbao() -> Iterator[OpenBao]:
    with running_openbao() as server:
        server.mount("secret")
        yield server
