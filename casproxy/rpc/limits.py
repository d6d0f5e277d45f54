"""Owns the names of the limits that a peer of the gRPC port can run into: the label of their counter.

The page docs/explanation/abuse.md says what each is for.
"""

from __future__ import annotations

LIMITS = (
    "concurrent_streams",
    "connections",
    "dead_peer",
    "frame_size",
    "glitches",
    "header_block",
    "header_list",
    "idle",
    "max_age",
    "memory_budget",
    "pings",
    "protocol_error",
    "replies",
    "resets",
    "slow_greeting",
    "slow_headers",
    "slow_reader",
    "slow_request",
    "table_size_updates",
    "tls_handshake",
)
