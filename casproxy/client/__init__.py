"""The Python API of a caller: typed, async, verified.

::

    async with open_client("cas.example.org:443", token, retry=Retry()) as client:
        stored = await client.upload(Path("report.pdf"), progress=show)
        await client.download_file(stored.digest, Path("downloads"), resume=True)

A call raises ``RpcError`` as the server ended it (its ``code`` is a ``StatusCode``), ``OSError`` for local files, and
what is listed at the method. All the rest is a ``CasproxyError``. ``casproxy upload``, ``download``, ``describe`` and
``status`` are this API with a terminal around it; docs/how-to/use-the-client.md is a program that runs.
"""

from casproxy.client.client import UNARY_TIMEOUT, Client, Resource, ServerInfo, Uploaded, open_client
from casproxy.client.errors import SourceChanged, TargetExists, TargetUnusable, UnexpectedAnswer
from casproxy.client.progress import Phase, Progress
from casproxy.client.retry import NO_RETRY, Retry
from casproxy.client.source import UploadData
from casproxy.client.tls import tls_context
from casproxy.client.transfer import Sink
from casproxy.digest import Digest
from casproxy.errors import ArtifactCorrupt, CasproxyError, DigestMismatch, InvalidDigest, InvalidRequest
from casproxy.rpc.errors import RpcError
from casproxy.wire.status import StatusCode

__all__ = [
    "NO_RETRY",
    "UNARY_TIMEOUT",
    "ArtifactCorrupt",
    "CasproxyError",
    "Client",
    "Digest",
    "DigestMismatch",
    "InvalidDigest",
    "InvalidRequest",
    "Phase",
    "Progress",
    "Resource",
    "Retry",
    "RpcError",
    "ServerInfo",
    "Sink",
    "SourceChanged",
    "StatusCode",
    "TargetExists",
    "TargetUnusable",
    "UnexpectedAnswer",
    "UploadData",
    "Uploaded",
    "open_client",
    "tls_context",
]
