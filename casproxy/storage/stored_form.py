"""Owns the stored form of an artifact: which bytes describe it in an OCI repository or layout. Does no I/O.

One artifact is one image: a config, a manifest with exactly one layer (the raw artifact), the author and the file name
as annotations. ``describe_artifact`` writes these documents byte for byte as Chainloop does (Go: fixed order of fields,
no spaces, ``<``, ``>`` and ``&`` escaped); ``parse_manifest`` reads what anybody wrote.

Schema: https://github.com/opencontainers/image-spec, manifest.md, config.md, image-layout.md and annotations.md.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Final, TypeAlias

from casproxy.digest import Digest
from casproxy.errors import InvalidDigest
from casproxy.storage.api import AUTHOR, Resource
from casproxy.storage.media_type import sniff_media_type

INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
TAG: Final = "latest"

MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""The largest manifest or index that is read: the distribution specification's advice for manifests."""

OCI_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
"""The content of a layout's file ``oci-layout``."""

_AUTHORS: Final = "org.opencontainers.image.authors"
_TITLE: Final = "org.opencontainers.image.title"
_REF_NAME: Final = "org.opencontainers.image.ref.name"
_NO_TIME: Final = "0001-01-01T00:00:00Z"
_MAX_FILE_NAME_BYTES: Final = 1024

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


class NotOurs(Exception):
    """A document is not the description of an artifact of ours; the text says which rule it breaks (for the log)."""


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document as stored: its bytes, named by their digest like any blob."""

    data: bytes
    digest: Digest

    @classmethod
    def of(cls, value: Json) -> Document:
        """Serialise as Go does."""
        data = _as_go_writes(value)
        return cls(data, Digest.of(data))


@dataclass(frozen=True, slots=True)
class StoredForm:
    """Every document of one artifact."""

    config: Document
    manifest: Document
    index: bytes
    """``index.json`` of an image layout that holds this artifact alone, tagged ``latest``."""


def describe_artifact(resource: Resource, head: bytes) -> StoredForm:
    """The documents of ``resource``, whose first bytes (512, or all of them) are ``head``."""
    digest = str(resource.digest)
    config = Document.of(
        {
            "architecture": "",
            "created": _NO_TIME,
            "history": [{"created": _NO_TIME}],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [digest]},
            "config": {},
        }
    )
    manifest = Document.of(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(CONFIG_TYPE, len(config.data), config.digest),
            "layers": [_descriptor(sniff_media_type(head), resource.size, resource.digest)],
            "annotations": {_AUTHORS: AUTHOR, _TITLE: resource.file_name},
        }
    )
    entry = _descriptor(MANIFEST_TYPE, len(manifest.data), manifest.digest) | {"annotations": {_REF_NAME: TAG}}
    index = _as_go_writes({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]})
    return StoredForm(config, manifest, index)


def parse_manifest(data: bytes, digest: Digest) -> Resource:
    """What a manifest says about the artifact ``digest``; raises ``NotOurs`` for another author, layer or form.

    A title that is missing or breaks today's rules for file names gives way to the digest's hex, as in a write without
    a name: older writers had no rules, and their artifacts stay readable.
    """
    manifest = _parse_object(data)
    annotations = manifest.get("annotations")
    if not isinstance(annotations, dict) or annotations.get(_AUTHORS) != AUTHOR:
        raise NotOurs("another author")
    layers = manifest.get("layers")
    layer = layers[0] if isinstance(layers, list) and len(layers) == 1 else None
    if not isinstance(layer, dict) or layer.get("digest") != str(digest):
        raise NotOurs("not exactly one layer of this digest")
    title = annotations.get(_TITLE)
    file_name = title if isinstance(title, str) and _is_file_name(title) else digest.hex
    return Resource(digest, file_name, _size_of(layer))


def parse_index(data: bytes) -> tuple[Digest, int]:
    """Digest and size (bytes) of the manifest that ``index.json`` names: tagged ``latest``, or the only one."""
    entries = _parse_object(data).get("manifests")
    manifests = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    tagged = [entry for entry in manifests if _tag_of(entry) == TAG]
    if len(tagged or manifests) != 1:
        raise NotOurs("the index names no single manifest")
    entry = (tagged or manifests)[0]
    text = entry.get("digest")
    if not isinstance(text, str) or not text.startswith("sha256:"):
        raise NotOurs("the index names a manifest without a sha256 digest")
    try:
        return Digest.parse(text), _size_of(entry)
    except InvalidDigest as error:
        raise NotOurs("the index names a malformed digest") from error


def _descriptor(media_type: str, size: int, digest: Digest) -> dict[str, Json]:
    return {"mediaType": media_type, "size": size, "digest": str(digest)}


def _size_of(descriptor: dict[str, Json]) -> int:
    size = descriptor.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise NotOurs("a descriptor without a size")
    return size


def _tag_of(descriptor: dict[str, Json]) -> Json:
    annotations = descriptor.get("annotations")
    return annotations.get(_REF_NAME) if isinstance(annotations, dict) else None


def _is_file_name(name: str) -> bool:
    """Storage's rule: valid UTF-8 of 1 to 1,024 bytes without C0 or C1 control characters."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < length <= _MAX_FILE_NAME_BYTES and not any(unicodedata.category(char) == "Cc" for char in name)


def _parse_object(data: bytes) -> dict[str, Json]:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise NotOurs("a document of more than 4 MiB")
    try:
        value: Json = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotOurs("not JSON") from error
    if not isinstance(value, dict):
        raise NotOurs("not a JSON object")
    return value


def _as_go_writes(value: Json) -> bytes:
    """``json.Marshal``: no spaces; HTML's special characters and JavaScript's line separators escaped, nothing else."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_GO_ESCAPES).encode()


_GO_ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
