"""The gRPC services of api.md, on ``rpc``, ``pipeline`` and ``storage.api``."""
