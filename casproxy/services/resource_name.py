"""Owns how a caller names an artifact: one pure parser for all three forms. Refuses to know calls and stores.

Tried in this order (64 hex digits are valid base64 too):

1. ``sha256:{hex}`` or ``{hex}``: 64 lower-case hex digits.
2. The Remote Execution API's names, ``[{instance}/]uploads/{uuid}/blobs/{hex}/{size}[/{file_name}]`` and
   ``[{instance}/]blobs/{hex}/{size}`` (build.bazel.remote.execution.v2, ``ContentAddressableStorage``).
3. ``base64(gob(CASResource))``, what Chainloop's Go client sends on Write (``casproxy/gob.py``).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import lru_cache

from casproxy import gob
from casproxy.digest import Digest
from casproxy.errors import InvalidRequest, InvalidResourceName
from casproxy.storage.api import check_file_name

MAX_NAME_LENGTH = 8 * 1024
"""The longest resource name that is looked at, in characters."""

_REMEMBERED_LENGTH = 512
_REMEMBERED_NAMES = 512
"""What is stored already is sent again under the same name, and reading a gob takes an eighth of such a Write."""

_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,19}", re.ASCII)
_MAX_SIZE = 2**63 - 1
_CAS_RESOURCE = {"FileName": gob.STRING, "Digest": gob.STRING, "Size": gob.INT}
"""The fields that matter, with their types; a sender may leave out any of them and have others."""


@dataclass(frozen=True, slots=True)
class ResourceName:
    """What a name says. ``file_name`` is ``""`` and ``size`` (bytes) None when it does not say."""

    digest: Digest
    file_name: str = ""
    size: int | None = None

    @property
    def title(self) -> str:
        """The file name to store: readers need one, so an artifact without a name is titled by its hex digest."""
        return self.file_name or self.digest.hex


def parse(name: str) -> ResourceName:
    """Read a resource name of any form.

    Raises ``InvalidResourceName`` (none of the forms), ``InvalidDigest`` (a form, but not 64 lower-case hex digits)
    or ``InvalidRequest`` (a compressed blob, a file name that must not be stored).
    """
    return _remembered(name) if len(name) <= _REMEMBERED_LENGTH else _parse(name)


def _parse(name: str) -> ResourceName:
    if not name:
        raise InvalidResourceName("resourceName must be set")
    if len(name) > MAX_NAME_LENGTH:
        raise _undecodable(f"it is longer than {MAX_NAME_LENGTH} characters")
    if match := _HEX.fullmatch(name):
        return ResourceName(Digest(match[1]))
    if name.startswith("sha256:"):
        return ResourceName(Digest.parse(name))
    return _remote_execution(name) or _gob(name)


_remembered = lru_cache(_REMEMBERED_NAMES)(_parse)


def _remote_execution(name: str) -> ResourceName | None:
    """Form 2, or None. An instance name never has a segment of these words, so the first one tells the form."""
    segments = name.split("/")
    start = next((n for n, word in enumerate(segments) if word in ("uploads", "blobs", "compressed-blobs")), None)
    match segments[start:] if start is not None else []:
        case ["compressed-blobs", _, _, *_] | ["uploads", _, "compressed-blobs", *_]:
            raise InvalidRequest("compressed-blobs are not supported")
        case ["uploads", uuid, "blobs", hex_digest, size, *file_name] if uuid and _SIZE.fullmatch(size):
            title = check_file_name("/".join(file_name))
            return ResourceName(Digest(hex_digest), title, _size(size))
        case ["blobs", hex_digest, size] if _SIZE.fullmatch(size):
            return ResourceName(Digest(hex_digest), "", _size(size))
    return None


def _size(digits: str) -> int:
    size = int(digits)
    if size > _MAX_SIZE:
        raise InvalidRequest("the size in the resource name is beyond 2^63-1")
    return size


def _gob(name: str) -> ResourceName:
    """Form 3. The gob's size is not taken: senders leave it at 0 or stale, and the digest decides anyway."""
    try:
        kind, value = gob.decode_struct(base64.b64decode(name, validate=True))
    except (binascii.Error, ValueError) as error:  # GobError and non-ASCII text are ValueErrors
        raise _undecodable("it is neither a digest, nor a Remote Execution name, nor a base64 gob") from error
    types = dict(kind.fields)
    if any(types.get(field, wanted) != wanted for field, wanted in _CAS_RESOURCE.items()):
        raise _undecodable("its gob is not a CASResource")
    return ResourceName(Digest(str(value.get("Digest", ""))), check_file_name(str(value.get("FileName", ""))))


def _undecodable(why: str) -> InvalidResourceName:
    return InvalidResourceName(f"resourceName must be set: {why}")
