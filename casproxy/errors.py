"""Owns every error that crosses a room's door. Refuses to know gRPC, HTTP or any backend.

An error carries facts; it is translated to a status exactly once per boundary, by a table:
``services/errors.py`` for gRPC, ``web/errors.py`` for HTTP, ``cli/errors.py`` for exit codes.

::

    CasproxyError
    ├── ConfigError                 a setting, file or environment is wrong; the text says what to do
    ├── AuthError                   the token does not entitle to this call
    ├── RequestError                the caller's fault
    │   ├── InvalidRequest          a rule of the API is broken
    │   │   ├── InvalidDigest       not 64 lower-case hex digits
    │   │   └── InvalidResourceName cannot be read as any of the three forms
    │   ├── DigestMismatch          the bytes that arrived are not the bytes that were named
    │   ├── OffsetOutOfRange        a read starts outside the artifact
    │   └── SizeLimitExceeded       more bytes than the token allows
    ├── PeerError                   the other end of the stream
    │   ├── PeerGone                it reset the stream or the connection died
    │   └── PeerTooSlow             it held credit and made no progress
    ├── MemoryShort                 this process holds as much as it may; a retry may help
    ├── StorageError                the tenant's store
    │   ├── ArtifactNotFound        nothing stored under this digest
    │   ├── BackendNotFound         the token names a backend type this process does not have
    │   ├── BackendRefused          the store understood and said no; a retry will not help
    │   │   └── LookupRefused       … when asked whether it has an artifact; it may take one all the same
    │   ├── BackendUnavailable      the store is down or busy; a retry may help
    │   ├── BackendBroken           the store answered nonsense, or local storage failed
    │   ├── AlreadyStored           no failure: another upload has just stored the same artifact
    │   ├── StorageFull             no room for the bytes
    │   └── ArtifactCorrupt         the stored bytes do not match their name
    └── SecretError                 the tenant's credentials
        ├── SecretNotFound, SecretDenied, SecretMalformed
        └── SecretUnavailable       the source is down; a retry may help

``wire`` has errors of its own for broken frames (``wire/errors.py``) and ``rpc`` has ``RpcError``, a
status on its way to or from a peer (``rpc/errors.py``): neither knows this module.

Texts that reach a caller never hold a token, a secret, a path of this machine or a backend's raw
answer; those go to the log as ``__cause__``.
"""

from __future__ import annotations


class CasproxyError(Exception):
    """Base of the tree. ``str()`` is one sentence fit for a caller."""


class ConfigError(CasproxyError):
    """A setting, file or environment is wrong. The text names it and says what to do."""


class AuthError(CasproxyError):
    """The token is missing, invalid or of the wrong role. Clients match on the texts; ``auth/verify.py`` has them all.

    ``cause``: a short machine-readable reason, for ErrorInfo's metadata (its reason is ``UNAUTHORIZED``) and the log.
    """

    def __init__(self, text: str, *, cause: str = "invalid") -> None:
        super().__init__(text)
        self.cause = cause


class RequestError(CasproxyError):
    """The caller's fault."""


class InvalidRequest(RequestError):
    """A rule of the API is broken; the text names the rule."""


class InvalidDigest(InvalidRequest):
    """A digest is not 64 lower-case hex digits. The text shows at most 80 characters of it."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid digest {text[:80]!r}: want sha256: and 64 lower-case hex digits")


class InvalidResourceName(InvalidRequest):
    """A resource name is none of the three accepted forms."""


class DigestMismatch(RequestError):
    """The sha256 of the received bytes differs from the named one; nothing was stored."""

    def __init__(self, *, got: str, want: str) -> None:
        super().__init__(f"digest mismatch: got={got}, want={want}")
        self.got = got
        self.want = want


class OffsetOutOfRange(RequestError):
    """A read starts below 0 or beyond the end. Units: bytes."""

    def __init__(self, *, offset: int, size: int) -> None:
        super().__init__(f"read_offset {offset} is outside the artifact of {size} bytes")
        self.offset = offset
        self.size = size


class SizeLimitExceeded(RequestError):
    """More bytes than ``maxbytes`` allows. Units: bytes; ``want`` is what has been seen so far."""

    def __init__(self, *, want: int, max_bytes: int) -> None:
        super().__init__(f"max size of upload exceeded: want={want}, max={max_bytes}")
        self.want = want
        self.max_bytes = max_bytes


class MemoryShort(CasproxyError):
    """The memory budget has no room for another transfer of this tenant."""

    def __init__(self) -> None:
        super().__init__("too many transfers wait for their clients or stores; try again later")


class PeerError(CasproxyError):
    """The other end of the stream."""


class PeerGone(PeerError):
    """The peer reset the stream, or its connection died."""


class PeerTooSlow(PeerError):
    """The peer held credit and made no progress for the configured time."""


class StorageError(CasproxyError):
    """The tenant's store. The raw answer of a store is ``__cause__``, never text."""


class ArtifactNotFound(StorageError):
    """Nothing is stored under this digest, or what is there is not ours."""

    def __init__(self, digest: object) -> None:
        super().__init__(f"artifact {digest} not found")
        self.digest = str(digest)


class BackendNotFound(StorageError):
    """The token names a backend type that this process does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(f'backend "{name[:80]}" not found')
        self.name = name


class BackendRefused(StorageError):
    """The store understood the request and said no; a retry will not help."""


class LookupRefused(BackendRefused):
    """The store does not say whether it has an artifact; some do not until a first upload has made a place for it."""


class BackendUnavailable(StorageError):
    """The store is down, busy or unreachable; a retry may help."""


class BackendBroken(StorageError):
    """The store answered nonsense, or an unexpected failure happened on the way."""


class AlreadyStored(StorageError):
    """Another upload has just stored the artifact that this one was about to send; nothing needs to be sent."""

    def __init__(self, digest: object, file_name: str, size: int) -> None:
        super().__init__(f"artifact {digest} is stored already")
        self.file_name = file_name
        self.size = size


class StorageFull(StorageError):
    """No room for the bytes, in the store or in staging."""


class ArtifactCorrupt(StorageError):
    """The stored bytes do not match their name; no caller has been given all of them."""

    def __init__(self, *, got: str, want: str) -> None:
        super().__init__(f"checksum mismatch: got={got}, want={want}")
        self.got = got
        self.want = want


class SecretError(CasproxyError):
    """The tenant's credentials. Never confused with a missing artifact."""


class SecretNotFound(SecretError):
    """The source has no secret of this id."""


class SecretDenied(SecretError):
    """The source refuses this process the secret."""


class SecretMalformed(SecretError):
    """The secret exists but is not the JSON object a backend needs. The text never shows its values."""


class SecretUnavailable(SecretError):
    """The source is down, sealed or too slow; a retry may help."""
