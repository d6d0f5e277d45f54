"""Media types are guessed as Go guesses them; the vectors hold the answers of ``DetectContentType`` (Go 1.26)."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from casproxy.storage.media_type import SNIFF_BYTES, sniff_media_type
from casproxy_tests import vectors


def test_every_vector() -> None:
    for case in vectors.load("go_media_types"):
        head = base64.b64decode(case["head_base64"])
        assert sniff_media_type(head) == case["media_type"], head


@given(st.binary(max_size=700))
def test_only_the_first_bytes_count(data: bytes) -> None:
    answer = sniff_media_type(data)
    assert answer == sniff_media_type(data[:SNIFF_BYTES])
    assert ";" not in answer
