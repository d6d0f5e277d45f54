"""Owns the header values of a download that take care to write: names, tags, digests. Pure; refuses to know requests.

A file name comes from whoever uploaded the artifact, or from the link somebody clicked: it is hostile until it left
``content_disposition``, which is total. Sources: RFC 6266 (Content-Disposition), RFC 8187 (``filename*``), RFC 9110
(entity tags), RFC 9530 (``Repr-Digest``).
"""

from __future__ import annotations

import base64
import re
import unicodedata
from urllib.parse import quote

from casproxy.digest import Digest

_MAX_NAME_BYTES = 1024
_PLAIN = re.compile(r"[A-Za-z0-9!#$&+.^_`|~@=,()\[\]{}' ;-]+", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9!#$&+.^_`|~@=,()\[\]{}' ;-]")
_UNSHOWN = re.compile(r"C|Zl|Zp")
"""Unicode's categories of what has no glyph or breaks a line."""
_ATTR_CHARS = "!#$&+-.^_`|~"
"""What RFC 8187 leaves unescaped beside letters and digits."""


def content_disposition(name: str, fallback: str) -> str:
    """``attachment`` with a file name that every recipient reads alike, for any ``name`` whatever.

    The name is cut to its last segment, to printable characters and to 1,024 bytes. What is left of a name such as
    ``..`` gives way to ``fallback``. A name of harmless ASCII is one quoted parameter; any other adds ``filename*``
    with the exact name, and the quoted one shows ``_`` in place of what an old client could misread.
    """
    shown = safe_file_name(name) or fallback
    if _PLAIN.fullmatch(shown):
        return f'attachment; filename="{shown}"'
    return f"attachment; filename=\"{_UNSAFE.sub('_', shown)}\"; filename*=UTF-8''{quote(shown, safe=_ATTR_CHARS)}"


def safe_file_name(name: str) -> str:
    """The part of ``name`` that may be offered as a file name; ``""`` when nothing is left."""
    segment = re.split(r"[/\\]", name)[-1]
    printable = "".join(character for character in segment if not _UNSHOWN.match(unicodedata.category(character)))
    cut = printable.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip()
    return "" if cut in ("", ".", "..") else cut


def entity_tag(digest: Digest) -> str:
    """The strong entity tag of an artifact: its name, for its content never changes."""
    return f'"{digest}"'


def repr_digest(digest: Digest) -> str:
    """The ``Repr-Digest`` value: the sha256 of the whole artifact, whatever range an answer carries."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(digest.hex)).decode()}:"
