"""Artifacts are what their names say, and the check finds one wrong byte wherever it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.bench.artifact import TAIL_SIZE, Pattern, WrongBytes
from casproxy.digest import Digest

MIB = 1 << 20
SIZES = st.one_of(
    st.integers(0, 3 * TAIL_SIZE), st.sampled_from([MIB - 1, MIB, MIB + 1, MIB + TAIL_SIZE, MIB + TAIL_SIZE + 1])
)
PIECES = st.sampled_from([7, 1000, 65536, MIB, 4 * MIB])


def _bytes(pattern: Pattern, size: int, piece: int) -> tuple[Digest, bytes]:
    artifact = pattern.next()
    assert artifact.size == size
    return artifact.digest, b"".join(pattern.pieces(artifact, piece))


@given(SIZES, PIECES)
def test_the_digest_is_that_of_the_bytes(size: int, piece: int) -> None:
    if size // piece > 5000:
        piece = 65536
    digest, content = _bytes(Pattern(size, b"seed"), size, piece)
    assert len(content) == size
    assert Digest.of(content) == digest


def test_artifacts_differ_from_each_other_and_between_runs() -> None:
    ours, other = Pattern(100), Pattern(100)
    digests = [pattern.next().digest for pattern in (ours, ours, other)]
    assert len(set(digests)) == 3


def test_a_seed_makes_two_runs_alike() -> None:
    assert Pattern(100, b"a").next() == Pattern(100, b"a").next()


@given(SIZES, st.sampled_from([16, 1000, 65536, 2 * MIB]), st.integers(0, 30))
def test_the_check_takes_what_was_made(size: int, piece: int, start: int) -> None:
    pattern = Pattern(size, b"seed")
    artifact = pattern.next()
    if size // piece > 5000:
        piece = 65536
    offset = 0
    for part in pattern.pieces(artifact, piece):
        offset = pattern.check(artifact, offset, b"h" * start + bytes(part), start)
    assert offset == size


@given(st.integers(0, 10**9), st.sampled_from([1, 17, 5000, MIB + 20, 5 * MIB]))
def test_the_check_finds_one_wrong_byte(where: int, size: int) -> None:
    pattern = Pattern(size, b"seed")
    artifact = pattern.next()
    content = bytearray(b"".join(pattern.pieces(artifact, MIB)))
    content[where % size] ^= 1
    with pytest.raises(WrongBytes):
        pattern.check(artifact, 0, bytes(content), 0)


def test_the_check_finds_bytes_too_many() -> None:
    pattern = Pattern(100, b"seed")
    artifact = pattern.next()
    content = b"".join(pattern.pieces(artifact, 100))
    with pytest.raises(WrongBytes):
        pattern.check(artifact, 0, content + b"x", 0)
