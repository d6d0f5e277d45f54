"""casproxy: a content-addressable storage proxy.

Clients stream artifacts over gRPC; the proxy checks their token, looks up the tenant's storage
credentials, and streams the bytes, verified by sha256, to an artifact store and back.

Five nouns carry the whole program:

``Digest``    names an artifact: 64 lower-case hex digits of its sha256 (``digest.py``).
``Claims``    what a verified token allows: role, secret id, backend, size cap (``auth/claims.py``).
``Secret``    the tenant's storage credentials; it redacts itself (``secrets/api.py``).
``Backend``   one tenant's store: describe, read, ingest … commit (``storage/api.py``).
``ServerCall``  one gRPC call in flight, with its own cancel scope (``rpc/api.py``).

The way of one upload is the way to read the code::

    socket -> rpc.connection          one reader task, one writer task, a nursery per connection
           -> wire.protocol           sans-io HTTP/2: bytes in, events out
           -> rpc.stream              one task per stream; its scope dies with RST_STREAM or deadline
           -> auth.interceptor        token -> Claims, before a body byte is read
           -> services.byte_stream    the contract with callers
           -> pipeline.upload         chunk -> sha256 -> ingest, three tasks, bounded channels
           -> storage.<backend>       ingest -> commit(digest) | abort

``app.py`` is the composition root: the only module that knows every room. ``workers/`` runs it in
several processes. Imports go one way; ``just check`` keeps it so.
"""

__version__ = "0.1.0"
