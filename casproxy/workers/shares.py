"""Owns dividing what is allowed to a server among its workers. Pure: refuses to know processes.

A limit of the server as a whole is divided, rounded up; what one peer, one connection or one call may do is not.
"""

from __future__ import annotations

from msgspec.structs import replace

from casproxy.config import Config
from casproxy.config.memory import memory_budget


def share_of(config: Config, workers: int) -> Config:
    """The configuration of one of so many workers; the memory budget is worked out if it was not set."""

    def share(whole: int) -> int:
        return -(-whole // workers)

    server, grpc, http = config.server, config.server.grpc, config.server.http
    limits, http_limits = grpc.limits, http.limits
    return replace(
        config,
        server=replace(
            server,
            memory_budget=max(1, memory_budget(server.memory_budget) // workers),
            grpc=replace(grpc, limits=replace(limits, max_connections=share(limits.max_connections))),
            http=replace(
                http,
                limits=replace(
                    http_limits,
                    max_connections=share(http_limits.max_connections),
                    max_transfers=share(http_limits.max_transfers),
                ),
            ),
        ),
        staging=replace(config.staging, quota=share(config.staging.quota)),
    )
