"""Owns the way from a request's token to claims and to the tenant's store. Refuses to know how tokens are checked."""

from __future__ import annotations

from casproxy.auth.claims import Claims, Role
from casproxy.auth.verifier import Verifier, bearer_token
from casproxy.auth.verify import require_role
from casproxy.storage.api import Backend, BackendResolver, Tenant
from casproxy.web.exchange import Exchange


class Access:
    """Who may do what, for all handlers of the HTTP port."""

    def __init__(self, verifier: Verifier, backends: BackendResolver) -> None:
        self._verifier = verifier
        self._backends = backends

    async def admit(self, exchange: Exchange, role: Role) -> Claims:
        """The claims of the request's token: ``?t=``, else ``Authorization: Bearer``. ``AuthError`` for any other."""
        request = exchange.request
        token = request.query.get("t") or bearer_token(request.headers.get("authorization", ""))
        claims = await self._verifier.verify(token)
        exchange.claims = claims
        require_role(claims, frozenset({role}))
        return claims

    async def backend(self, claims: Claims) -> Backend:
        """The tenant's store. Errors: see ``BackendResolver.resolve``."""
        return await self._backends.resolve(Tenant(claims.backend, claims.secret_id, claims.org_id))
