"""File names cannot break out of their header, and every header reads back, whatever somebody named a file."""

from __future__ import annotations

import re
from email.message import Message
from urllib.parse import unquote

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from casproxy.digest import Digest
from casproxy.web.headers import content_disposition, repr_digest, safe_file_name
from casproxy.web.ranges import Range, Unsatisfiable, none_match, requested_range
from casproxy_tests.web.world import bearer, world

_NASTY = st.sampled_from(
    ["\r\n", "\n", "\r", '"', "\\", ";", "/", "..", "%0d%0a", "\x00", "\u202e", "\ud800", "é", "🚀", " "]
)
_NAMES = st.lists(st.one_of(_NASTY, st.text(max_size=8)), max_size=12).map("".join)
_HEADER = re.compile(r'attachment; filename="([\x20-\x7e]*)"(?:; filename\*=UTF-8\'\'([A-Za-z0-9!#$&+.^_`|~%-]+))?')


@given(_NAMES)
@example("x" * 10_240)
@example("é" * 10_240)
@example("../../x")
@example('a "b";c.bin')
@example("x\r\nSet-Cookie: a=b")
@example("..")
@example("")
@example("100%25.txt")
def test_the_header_always_parses_back(name: str) -> None:
    header = content_disposition(name, "fallback")
    shown = safe_file_name(name) or "fallback"
    match = _HEADER.fullmatch(header)
    assert match is not None
    quoted, extended = match.groups()
    assert '"' not in quoted and "\\" not in quoted and "/" not in quoted
    assert (unquote(extended, errors="strict") if extended is not None else quoted) == shown
    assert len(quoted) == len(shown)


@given(_NAMES)
def test_other_peoples_parsers_agree(name: str) -> None:
    header = content_disposition(name, "fallback")
    h11.Response(status_code=200, headers=[("content-disposition", header)])  # refuses what breaks a header
    message = Message()
    message["Content-Disposition"] = header
    assert message.get_content_disposition() == "attachment"
    match = _HEADER.fullmatch(header)
    assert match is not None and message.get_filename() == match[1]
    parameters = message.get_params(header="content-disposition")
    assert parameters is not None and {key for key, _ in parameters} <= {"attachment", "filename", "filename*"}


@given(_NAMES)
def test_what_is_offered_as_a_name_is_one(name: str) -> None:
    shown = safe_file_name(name)
    assert "/" not in shown and "\\" not in shown and shown not in (".", "..")
    assert all(character.isprintable() or character.isspace() for character in shown)
    assert len(shown.splitlines()) <= 1
    assert len(shown.encode()) <= 1024


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.tar.gz", 'attachment; filename="a.tar.gz"'),
        ("two words; one.bin", 'attachment; filename="two words; one.bin"'),
        ('a "b";c.bin', "attachment; filename=\"a _b_;c.bin\"; filename*=UTF-8''a%20%22b%22%3Bc.bin"),
        ("../../x", 'attachment; filename="x"'),
        ("日本.txt", "attachment; filename=\"__.txt\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.txt"),
    ],
)
def test_content_disposition(name: str, header: str) -> None:
    assert content_disposition(name, "fallback") == header


async def test_hostile_names_through_the_port() -> None:
    """Stored names, and names in the query, end in one header of one line."""
    async with world() as server:
        for number, name in enumerate(['a "b";c.bin', "señal-日本語-🚀.tar.gz", "../../x", "x" * 1000, "a\u2028b"]):
            digest = await server.put(b"%d" % number, name)
            stored = await server.get(f"/download/{digest}", bearer())
            assert stored.headers.get_list("content-disposition") == [content_disposition(name, digest.hex)]
        for encoded in ["x%0d%0aSet-Cookie:%20a=b", "%22;%20filename=evil", "%ff%fe", "..", "x" * 10_240]:
            answer = await server.get(f"/download/{digest}?filename={encoded}", bearer())
            assert answer.status_code == 200
            assert "set-cookie" not in answer.headers
            [header] = answer.headers.get_list("content-disposition")
            assert _HEADER.fullmatch(header)


def test_repr_digest_is_the_base64_of_the_sha256() -> None:
    assert repr_digest(Digest.of(b"")) == "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"


# -- ranges ------------------------------------------------------------------------------------------


@given(st.text(max_size=20) | st.from_regex(r"bytes=[0-9]{0,3}-[0-9]{0,3}", fullmatch=True), st.integers(0, 500))
def test_a_range_lies_in_the_artifact(header: str, size: int) -> None:
    try:
        found = requested_range(header, "", '"t"', size)
    except Unsatisfiable:
        return
    if found is not None:
        assert found.start >= 0 and found.length >= 1 and found.start + found.length <= size


@given(st.integers(0, 99), st.integers(1, 100))
def test_what_content_range_says(start: int, length: int) -> None:
    text = Range(start, length).content_range(500)
    first, last = text.removeprefix("bytes ").removesuffix("/500").split("-")
    assert int(last) - int(first) + 1 == length


@given(st.text())
def test_none_match_reads_anything(header: str) -> None:
    assert none_match(header, '"no such tag"') == (header.strip() == "*" or '"no such tag"' in header)
