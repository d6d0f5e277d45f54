"""Every place a CA can be in: a machine of its own for each, on which somebody else's CA lies everywhere it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from casproxy.trust import Places, TrustStore, open_trust


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the CAs of a machine are, and what its environment and configuration say."""

    places: Places
    environ: Mapping[str, str]
    ca_file: Path | None = None

    def open(self) -> AbstractContextManager[TrustStore]:
        """The store that a process on it has."""
        return open_trust(self.ca_file, self.environ, self.places)


def machine(directory: Path, stranger: bytes) -> Machine:
    """One that believes the CA ``stranger`` (PEM) alone."""
    bundle = directory / "system.pem"
    bundle.write_bytes(stranger)
    return Machine(Places((directory / "none.pem", bundle), directory / "none", directory / "none"), {})


Put: TypeAlias = Callable[[Machine, Path, bytes], Machine]
"""The same machine, on which a CA (PEM) lies in one place more; files may be made in the directory."""


def _file(directory: Path, name: str, ca: bytes) -> Path:
    (directory / name).write_bytes(ca)
    return directory / name


def _files(directory: Path, name: str, ca: bytes) -> Path:
    """A directory as Kubernetes mounts it: a link to a file behind ``..data``."""
    mount = directory / name
    (mount / "..1").mkdir(parents=True)
    _file(mount / "..1", "custom-0.crt", ca)
    (mount / "..data").symlink_to("..1")
    (mount / "custom-0.crt").symlink_to("..data/custom-0.crt")
    return mount


def _in_system_file(machine: Machine, directory: Path, ca: bytes) -> Machine:
    stranger = machine.places.system_files[-1].read_bytes()
    bundle = _file(directory, "both.pem", stranger + b"a comment\n" + ca)
    return replace(machine, places=replace(machine.places, system_files=(bundle,)))


def _in_system_directory(machine: Machine, directory: Path, ca: bytes) -> Machine:
    return replace(machine, places=replace(machine.places, system_directory=_files(directory, "certs", ca)))


def _mounted(machine: Machine, directory: Path, ca: bytes) -> Machine:
    return replace(machine, places=replace(machine.places, mounted=_files(directory, "mounted", ca)))


def _in_variable(name: str, make: Callable[[Path, str, bytes], Path], machine: Machine, at: Path, ca: bytes) -> Machine:
    return replace(machine, environ={name: str(make(at, name, ca))})


def _in_second_directory(machine: Machine, directory: Path, ca: bytes) -> Machine:
    return replace(machine, environ={"SSL_CERT_DIR": f"{directory / 'none'}:{_files(directory, 'second', ca)}"})


def _configured(make: Callable[[Path, str, bytes], Path], machine: Machine, directory: Path, ca: bytes) -> Machine:
    return replace(machine, ca_file=make(directory, "configured", ca))


PLACES: Final[Mapping[str, Put]] = {
    "the system's file": _in_system_file,
    "the system's directory": _in_system_directory,
    "SSL_CERT_FILE": partial(_in_variable, "SSL_CERT_FILE", _file),
    "SSL_CERT_DIR": partial(_in_variable, "SSL_CERT_DIR", _files),
    "the second directory of SSL_CERT_DIR": _in_second_directory,
    "the chart's mount": _mounted,
    "outbound.ca_file": partial(_configured, _file),
    "a directory as outbound.ca_file": partial(_configured, _files),
}
