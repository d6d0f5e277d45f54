"""Owns what can go wrong between us and a server. Refuses to know what the exchange was for.

::

    OutboundError
    ├── AddressRefused     the guard forbids every address of the host
    ├── ConnectFailed      no address answers, or the name does not resolve
    │   └── TlsFailed      the handshake failed; ``untrusted``: because of the certificate
    ├── TimedOut           nothing moved for as long as the phase allows
    ├── ConnectionBroken   lost in the middle of an exchange
    └── AnswerBroken       an answer came that is not what HTTP or this program allows

Whoever uses ``outbound`` translates these once, by a table (``storage/oci/errors.py``). Texts name hosts, never
addresses, headers or bodies.
"""

from __future__ import annotations


class OutboundError(Exception):
    """Base of the tree."""


class AddressRefused(OutboundError):
    """The guard forbids every address of the host; a retry will not help."""


class ConnectFailed(OutboundError):
    """No address of the host took the connection, or its name does not resolve."""


class TlsFailed(ConnectFailed):
    """The TLS handshake failed. ``untrusted``: the certificate was seen and not believed."""

    def __init__(self, text: str, *, untrusted: bool) -> None:
        super().__init__(text)
        self.untrusted = untrusted


class TimedOut(OutboundError):
    """Nothing moved for as long as the phase allows: ``connect``, ``write``, ``answer`` or ``read``."""

    def __init__(self, phase: str, seconds: float) -> None:
        super().__init__(f"{phase}: nothing for {seconds:g} s")
        self.phase = phase


class ConnectionBroken(OutboundError):
    """The connection was lost in the middle of an exchange. ``answered``: bytes of an answer had come."""

    def __init__(self, text: str, *, answered: bool) -> None:
        super().__init__(text)
        self.answered = answered


class AnswerBroken(OutboundError):
    """Not HTTP, too large, encoded, or otherwise not an answer."""
