"""Owns whom tests and what they start believe besides the CAs that they name: nobody.

Reading the 140 CAs of a machine takes 25 ms of a core, and every start of a server and every client would do it.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from casproxy_tests.real.certificates import new_authority

PLAIN: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of ports without TLS: httpx reads CAs unless it is given a context."""
_VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_MACHINE: Final[Mapping[str, str]] = {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def believe_nobody(patch: pytest.MonkeyPatch, directory: Path) -> None:
    """Put a CA that has signed nothing in the place of the machine's; ``directory`` is an empty one."""
    (directory / "nobody.pem").write_bytes(new_authority("nobody").certificate_pem)
    patch.setenv("SSL_CERT_FILE", str(directory / "nobody.pem"))
    patch.setenv("SSL_CERT_DIR", str(directory))


def machines_environment() -> dict[str, str]:
    """For a program that fetches something from afar: the environment with the machine's CAs."""
    return {**{name: value for name, value in os.environ.items() if name not in _VARIABLES}, **_MACHINE}
