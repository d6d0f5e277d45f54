"""The copies of a payload byte, as ``docs/explanation/copies.md`` counts them: a view tells whose memory it sees."""

from __future__ import annotations

import trio.testing

from casproxy._proto.google.bytestream.bytestream_pb2 import WriteRequest
from casproxy.pipeline.pieces import PieceAssembler
from casproxy.rpc.connection import Connection
from casproxy.rpc.patience import ConnectionTimeouts
from casproxy.rpc.transport import Transport
from casproxy.services.messages import read_response_prefix
from casproxy.services.write_request import WriteRequestReader
from casproxy.storage.api import Piece
from casproxy.wire import events
from casproxy.wire.budget import Budget
from casproxy.wire.framing import MessageDecoder, encode_message
from casproxy.wire.protocol import Protocol, WireSettings
from casproxy_tests.wire.peer import request_fields

KIB = 1024
FRAME = 16 * KIB


def ends() -> tuple[Protocol, Protocol]:
    settings = WireSettings(initial_window=4 << 20, max_frame=FRAME)
    client, server = (Protocol(client_side=side, settings=settings, budget=Budget(1 << 30)) for side in (True, False))
    for _ in range(2):
        server.receive(b"".join(client.take_output()), 0)
        client.receive(b"".join(server.take_output()), 0)
    return client, server


def data_of(artifact: bytes) -> tuple[bytes, list[Piece]]:
    """What the server read from its socket, and the views of ``WriteRequest.data`` it made of it."""
    client, server = ends()
    stream_id = client.start_request(request_fields())
    views = [memoryview(b"".join(encode_message([WriteRequest(data=artifact).SerializeToString()])))]
    while views[0]:
        client.send_data(stream_id, [views[0][:FRAME]], len(views[0][:FRAME]))
        views[0] = views[0][FRAME:]
    read = b"".join(client.take_output())
    decoder, reader, data = MessageDecoder(1 << 30), WriteRequestReader(), list[Piece]()
    reader.resource_name = "named"
    for event in server.receive(read, 0):
        if isinstance(event, events.DataReceived):
            for chunk in event.chunks:
                decoder.push(chunk)
    for part in decoder.pull(1 << 30):
        reader.feed(part, data)
    return read, data


def test_an_upload_is_not_copied_before_it_becomes_pieces() -> None:
    artifact = bytes(range(256)) * 200
    read, data = data_of(artifact)
    assert b"".join(data) == artifact
    assert len(data) >= len(artifact) // FRAME
    assert all(isinstance(piece, memoryview) and piece.obj is read for piece in data)


def test_an_upload_is_copied_once_into_a_piece_and_not_at_all_when_its_frames_are_large() -> None:
    read, data = data_of(bytes(56 * KIB))
    small = PieceAssembler(256 * KIB)
    assert [piece for part in data for piece in small.add(part)] == []
    assert type(small.flush()) is bytes
    large = PieceAssembler(FRAME)
    pieces = [piece for part in data for piece in large.add(part)]
    assert sum(len(piece) for piece in pieces if isinstance(piece, memoryview) and piece.obj is read) > 32 * KIB


async def test_a_download_is_not_copied_at_all() -> None:
    client, server = ends()
    stream_id = client.start_request(request_fields())
    server.receive(b"".join(client.take_output()), 0)
    near, _ = trio.testing.memory_stream_pair()
    stream = Connection(Transport(near), server, ConnectionTimeouts()).open_stream(stream_id)
    piece = bytes(56 * KIB)
    await stream.send_message([read_response_prefix(piece), piece])
    views = [part for part in server.take_output() if isinstance(part, memoryview)]
    assert sum(len(view) for view in views if view.obj is piece) == len(piece)
