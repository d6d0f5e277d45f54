"""The Python API of a caller: typed, async, verified.

::

    async with open_client("cas.example.org:443", token) as client:
        stored = await client.upload(Path("report.pdf"), progress=show)
        await client.download_file(stored.digest, Path("downloads"))

A call raises ``rpc.errors.RpcError`` as the server ended it, ``OSError`` for local files, and what is listed at the
method. ``casproxy upload``, ``download``, ``describe`` and ``status`` are this API with a terminal around it.
"""

from casproxy.client.client import Client, ServerInfo, Uploaded, open_client, tls_context
from casproxy.client.errors import SourceChanged, TargetExists, TargetUnusable, UnexpectedAnswer
from casproxy.client.progress import Phase, Progress
from casproxy.client.source import UploadData
from casproxy.client.transfer import Sink

__all__ = [
    "Client",
    "Phase",
    "Progress",
    "ServerInfo",
    "Sink",
    "SourceChanged",
    "TargetExists",
    "TargetUnusable",
    "UnexpectedAnswer",
    "UploadData",
    "Uploaded",
    "open_client",
    "tls_context",
]
