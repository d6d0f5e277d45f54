"""Owns DATA on its way out, past h2: buffers become frames, and are not copied. Refuses to know what they carry.

h2 copies a body three times and looks at its stream's state for each frame. Here the header is packed, both windows go
down by the length (``H2.data_header``), and the body follows as the views it came in. END_STREAM is never set: trailers
end a server's stream, and an empty frame of h2's own a client's.
"""

from __future__ import annotations

from collections.abc import Sequence

from casproxy.wire.framing import Buffer
from casproxy.wire.h2_seam import H2
from casproxy.wire.inbound import HEADER_SIZE


def data_frames(h2: H2, stream_id: int, buffers: Sequence[Buffer], size: int) -> tuple[list[Buffer], int]:
    """Frames for ``buffers``, of ``size`` bytes in all and within both windows; they are accounted. And their size."""
    most = h2.max_outbound_frame_size
    if size <= most:
        return [h2.data_header(stream_id, size), *buffers], HEADER_SIZE + size
    frames: list[Buffer] = []
    unframed, left = size, 0  # left of the frame at hand
    for buffer in buffers:
        view = memoryview(buffer)
        while view:
            if not left:
                left = min(most, unframed)
                unframed -= left
                frames.append(h2.data_header(stream_id, left))
            taken, view = view[:left], view[left:]
            frames.append(taken)
            left -= len(taken)
    return frames, size + HEADER_SIZE * -(-size // most)
