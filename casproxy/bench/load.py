"""Owns what a run is asked to do, and to whom. Refuses to know how."""

from __future__ import annotations

import enum
import math
import ssl
from dataclasses import dataclass, field

from casproxy.client.address import Address
from casproxy.client.tls import TlsFiles


class Scenario(enum.StrEnum):
    """What every stream does, again and again."""

    UPLOAD = "upload"
    DOWNLOAD = "download"
    MIXED = "mixed"
    DEDUP = "dedup"
    DESCRIBE = "describe"
    CANCEL = "cancel"
    SLOW = "slow"


class ClientKind(enum.StrEnum):
    """Who calls: our own client, or grpcio's C-core as an independent one."""

    NATIVE = "native"
    GRPCIO = "grpcio"


class NameForm(enum.StrEnum):
    """How artifacts are named on Write and Read: as Chainloop's client, a Remote Execution client, or a person does."""

    GOB = "gob"
    REAPI = "reapi"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Target:
    """A server to measure. ``process_id``: 0 unless it runs on this machine and its CPU and memory may be read.

    ``tls_files``: what ``tls`` was made of. ``control``: a bench server answers questions there (loop lag, when uploads
    were released); None for all others.
    """

    name: str
    address: Address
    uploader_token: str = field(repr=False, default="")
    downloader_token: str = field(repr=False, default="")
    tls: ssl.SSLContext | None = None
    tls_files: TlsFiles = field(default_factory=TlsFiles)
    process_id: int = 0
    control: Address | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Sizes in bytes, times in seconds. ``count``: operations of all streams together, else ``duration`` ends the run.

    ``concurrency``: streams side by side, over ``connections`` connections. ``stalled``: streams of the slow scenario
    that send one message and then nothing. ``message_size``: artifact bytes in one message of an upload.
    """

    scenario: Scenario
    size: int = 16 << 20
    concurrency: int = 8
    connections: int = 1
    duration: float = 5.0
    count: float = math.inf
    client: ClientKind = ClientKind.NATIVE
    names: NameForm = NameForm.GOB
    stalled: int = 100
    message_size: int = 1 << 20
