"""Owns the guess of a media type from an artifact's first bytes. Refuses to look at names or at more than 512 bytes.

The WHATWG MIME Sniffing Standard (https://mimesniff.spec.whatwg.org/) as Go's ``net/http.DetectContentType`` implements
it, because the layers that Chainloop writes carry that function's answer. Go's deviations are kept on purpose: gzip is
``application/x-gzip``, RAR follows RAR Labs' note, an MP3 is known by its ID3 tag only, ``LP`` at byte 34 makes a font.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

SNIFF_BYTES: Final = 512
"""How much of an artifact is looked at."""

UNKNOWN: Final = "application/octet-stream"


def sniff_media_type(head: bytes) -> str:
    """The media type, without parameters, of an artifact that begins with ``head`` (of which 512 bytes count)."""
    head = head[:SNIFF_BYTES]
    text = head.lstrip(_WHITESPACE)
    if _HTML.match(text):
        return "text/html"
    if text.startswith(b"<?xml"):
        return "text/xml"
    for matches, media_type in _SIGNATURES:
        if matches(head):
            return media_type
    return UNKNOWN if _BINARY.search(text) else "text/plain"


def _is_mp4(head: bytes) -> bool:
    """Section 6.2.1: a box ``ftyp`` that lies within ``head`` and names a brand ``mp4?``, its version aside."""
    box_size = int.from_bytes(head[:4], "big")
    if len(head) < 12 or box_size > len(head) or box_size % 4 or head[4:8] != b"ftyp":
        return False
    return any(head[at : at + 3] == b"mp4" for at in range(8, box_size, 4) if at != 12)


def _starts(pattern: bytes) -> Callable[[bytes], object]:
    return re.compile(pattern, re.DOTALL).match


_WHITESPACE: Final = b"\t\n\x0c\r "
_BINARY: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
"""Bytes that no text holds (section 3, "binary data byte")."""

_HTML: Final = re.compile(
    rb"<(?:!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P|!--)[ >]", re.IGNORECASE
)

_SIGNATURES: Final[tuple[tuple[Callable[[bytes], object], str], ...]] = (
    (_starts(rb"%PDF-"), "application/pdf"),
    (_starts(rb"%!PS-Adobe-"), "application/postscript"),
    (_starts(rb"(?:\xfe\xff.|\xff\xfe.|\xef\xbb\xbf)."), "text/plain"),  # byte order marks
    (_starts(rb"\x00\x00[\x01\x02]\x00"), "image/x-icon"),
    (_starts(rb"BM"), "image/bmp"),
    (_starts(rb"GIF8[79]a"), "image/gif"),
    (_starts(rb"RIFF....WEBPVP"), "image/webp"),
    (_starts(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (_starts(rb"\xff\xd8\xff"), "image/jpeg"),
    (_starts(rb"FORM....AIFF"), "audio/aiff"),
    (_starts(rb"ID3"), "audio/mpeg"),
    (_starts(rb"OggS\x00"), "application/ogg"),
    (_starts(rb"MThd\x00\x00\x00\x06"), "audio/midi"),
    (_starts(rb"RIFF....AVI "), "video/avi"),
    (_starts(rb"RIFF....WAVE"), "audio/wave"),
    (_is_mp4, "video/mp4"),
    (_starts(rb"\x1a\x45\xdf\xa3"), "video/webm"),
    (_starts(rb".{34}LP"), "application/vnd.ms-fontobject"),
    (_starts(rb"\x00\x01\x00\x00"), "font/ttf"),
    (_starts(rb"OTTO"), "font/otf"),
    (_starts(rb"ttcf"), "font/collection"),
    (_starts(rb"wOFF"), "font/woff"),
    (_starts(rb"wOF2"), "font/woff2"),
    (_starts(rb"\x1f\x8b\x08"), "application/x-gzip"),
    (_starts(rb"PK\x03\x04"), "application/zip"),
    (_starts(rb"Rar!\x1a\x07(?:\x00|\x01\x00)"), "application/x-rar-compressed"),
    (_starts(rb"\x00asm"), "application/wasm"),
)
"""In the order in which Go tries them."""
