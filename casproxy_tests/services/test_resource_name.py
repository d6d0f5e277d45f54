"""The three forms of a resource name, and the order in which they are tried."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy.errors import InvalidDigest, InvalidRequest, InvalidResourceName
from casproxy.gob import encode_resource_name
from casproxy.services.resource_name import ResourceName, parse
from casproxy.storage.api import check_file_name
from casproxy_tests import vectors

VECTORS: list[dict[str, Any]] = vectors.load("gob_resource_names")
HEX = EMPTY_DIGEST.hex
DIGESTS = st.binary(max_size=8).map(Digest.of)
FILE_NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=256)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_names_written_by_go(vector: dict[str, Any]) -> None:
    if not vector["digest"]:
        with pytest.raises(InvalidDigest):
            parse(vector["resource_name"])
        return
    expected = ResourceName(Digest(vector["digest"]), vector["file_name"], None)
    assert parse(vector["resource_name"]) == expected


@pytest.mark.parametrize("name", [HEX, f"sha256:{HEX}"])
def test_a_plain_digest(name: str) -> None:
    assert parse(name) == ResourceName(EMPTY_DIGEST)


def test_an_artifact_without_a_name_is_titled_by_its_digest() -> None:
    assert parse(HEX).title == HEX
    assert parse(f"uploads/u/blobs/{HEX}/0/a.txt").title == "a.txt"


@pytest.mark.parametrize("instance", ["", "main/", "a/b/c/"])
@pytest.mark.parametrize(
    ("rest", "file_name", "size"),
    [
        (f"uploads/7d2f/blobs/{HEX}/12", "", 12),
        (f"uploads/7d2f/blobs/{HEX}/12/", "", 12),
        (f"uploads/7d2f/blobs/{HEX}/12/a b.txt", "a b.txt", 12),
        (f"uploads/7d2f/blobs/{HEX}/12/blobs/x", "blobs/x", 12),
        (f"blobs/{HEX}/0", "", 0),
        (f"blobs/{HEX}/9223372036854775807", "", 2**63 - 1),
    ],
)
def test_remote_execution_names(instance: str, rest: str, file_name: str, size: int) -> None:
    assert parse(instance + rest) == ResourceName(EMPTY_DIGEST, file_name, size)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x",
        "x" * 8193,
        "/",
        "blobs",
        f"blobs/{HEX}",
        f"blobs/{HEX}/",
        f"blobs/{HEX}/-1",
        f"blobs/{HEX}/1x",
        f"blobs/{HEX}/١",
        f"blobs/{HEX}/1/name",
        f"uploads//blobs/{HEX}/1",
        f"uploads/u/blob/{HEX}/1",
        f"uploads/u/blobs/{HEX}",
        HEX.upper(),
        HEX[:-1],
        HEX + "0",
        HEX + "\n",
        "日本語",
        base64.b64encode(b"\x01").decode(),
        base64.urlsafe_b64encode(b"\xff" * 30).decode(),
    ],
)
def test_undecodable_names(name: str) -> None:
    with pytest.raises(InvalidResourceName, match=r"^resourceName must be set"):
        parse(name)


@pytest.mark.parametrize(
    "name",
    [
        "sha256:",
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX[:-1]}",
        f"sha256:sha256:{HEX}",
        f"uploads/u/blobs/{HEX.upper()}/1",
        "uploads/u/blobs/../1",
        "blobs/../1",
        f"blobs/{HEX}\n/1",
    ],
)
def test_a_form_with_another_digest_than_64_lower_case_hex_digits(name: str) -> None:
    with pytest.raises(InvalidDigest):
        parse(name)


@pytest.mark.parametrize(
    "name",
    [f"main/compressed-blobs/zstd/{HEX}/1", f"uploads/u/compressed-blobs/zstd/{HEX}/1"],
)
def test_compressed_blobs_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="compressed-blobs"):
        parse(name)


def test_a_size_beyond_64_bits_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="size"):
        parse(f"blobs/{HEX}/{2**63}")


@given(digest=DIGESTS)
def test_64_hex_digits_are_a_digest_although_they_are_base64(digest: Digest) -> None:
    assert base64.b64decode(digest.hex, validate=True)
    assert parse(digest.hex) == ResourceName(digest)


@given(file_name=FILE_NAMES, digest=DIGESTS, size=st.integers(-(2**63), 2**63 - 1))
def test_what_our_client_writes_is_read_back(file_name: str, digest: Digest, size: int) -> None:
    assert parse(encode_resource_name(file_name, digest, size)) == ResourceName(digest, file_name, None)


@pytest.mark.parametrize(
    "file_name",
    ["a\x00", "a\nb", "\x1f", "\x7f", "\x80", "\x9f", "n" * 1025, "é" * 513, "\ud800"],
)
def test_file_names_that_are_refused(file_name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_file_name(file_name)
    with pytest.raises(InvalidRequest):
        parse(f"uploads/u/blobs/{HEX}/1/{file_name}")


@pytest.mark.parametrize("file_name", ["", "n" * 1024, "é" * 512, 'a "b";c.bin', "señal-日本語-🚀.tar.gz", "..", "a/b"])
def test_file_names_that_are_taken(file_name: str) -> None:
    assert check_file_name(file_name) == file_name
    assert parse(encode_resource_name(file_name, EMPTY_DIGEST)).file_name == file_name


@given(st.text())
def test_any_text_is_a_name_or_our_own_error(name: str) -> None:
    _parse_or_refuse(name)


@given(st.sampled_from([vector["resource_name"] for vector in VECTORS]), st.data())
def test_a_damaged_name_is_a_name_or_our_own_error(name: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(name)))
    _parse_or_refuse(name[:position] + data.draw(st.text(max_size=4)) + name[data.draw(st.integers(position)) :])


def _parse_or_refuse(name: str) -> None:
    """An exception of another kind leaves, and fails the test."""
    try:
        parsed = parse(name)
    except InvalidRequest:
        return
    assert isinstance(parsed.digest, Digest)
