"""Parts become pieces: nothing lost, nothing too large, nothing copied that need not be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.pipeline.pieces import PieceAssembler, split
from casproxy.storage.api import MAX_PIECE_BYTES, Piece

PIECE = 256 * 1024


def assemble(parts: list[Piece], piece_size: int) -> list[Piece]:
    assembler = PieceAssembler(piece_size)
    pieces = [piece for part in parts for piece in assembler.add(part)]
    if assembler.pending:
        pieces.append(assembler.flush())
    return pieces


@given(st.lists(st.binary(max_size=40), max_size=40), st.integers(1, 64))
def test_nothing_is_lost_and_no_piece_is_empty(parts: list[Piece], piece_size: int) -> None:
    pieces = assemble(parts, piece_size)
    assert b"".join(pieces) == b"".join(parts)
    assert all(pieces)


@given(st.lists(st.integers(0, 3 * 1024 * 1024), max_size=8), st.sampled_from([1, PIECE, MAX_PIECE_BYTES, 2**30]))
def test_no_piece_is_larger_than_a_mebibyte(sizes: list[int], piece_size: int) -> None:
    pieces = assemble([bytes(size) for size in sizes], piece_size)
    assert sum(map(len, pieces)) == sum(sizes)
    assert all(len(piece) <= MAX_PIECE_BYTES for piece in pieces)


def test_small_parts_are_joined_into_full_pieces() -> None:
    pieces = assemble([bytes(16 * 1024)] * 40, PIECE)
    assert [len(piece) for piece in pieces] == [PIECE, PIECE, 128 * 1024]


def test_a_large_part_is_passed_on_as_it_is() -> None:
    part = bytes(PIECE)
    (piece,) = assemble([part], PIECE)
    assert piece is part


def test_a_part_larger_than_a_piece_is_cut_without_copying() -> None:
    part = bytes(2 * MAX_PIECE_BYTES + 1)
    pieces = assemble([part], PIECE)
    assert [len(piece) for piece in pieces] == [MAX_PIECE_BYTES, MAX_PIECE_BYTES, 1]
    assert all(isinstance(piece, memoryview) and piece.obj is part for piece in pieces)


def test_a_short_view_is_copied_out_of_the_buffer_it_points_into() -> None:
    (piece,) = assemble([memoryview(bytes(PIECE))[:10]], PIECE)
    assert isinstance(piece, bytes)


def test_order_is_kept_between_small_and_large_parts() -> None:
    parts: list[Piece] = [b"a" * 10, b"b" * PIECE, b"c" * 10, b"d" * 10, b"e" * PIECE]
    assert b"".join(assemble(parts, PIECE)) == b"".join(parts)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 25])
def test_split(size: int) -> None:
    part = bytes(range(size))
    runs = list(split(part, 10))
    assert b"".join(runs) == part
    assert all(0 < len(run) <= 10 for run in runs)
