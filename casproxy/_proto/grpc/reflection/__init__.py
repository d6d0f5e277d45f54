"""Generated from ``proto/`` by ``just proto``; checked in, never edited.

``google.rpc`` is not here: ``from google.rpc import status_pb2, error_details_pb2`` (googleapis-common-protos).
"""
