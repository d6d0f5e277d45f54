"""Owns the order of things at the door of a call: token first, then role, then the handler.

No body byte is read from a call whose token is missing, invalid or of the wrong role. Refuses to know how tokens are
checked and which status an ``AuthError`` becomes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from casproxy.auth.claims import Role
from casproxy.auth.verifier import Verifier, bearer_token
from casproxy.auth.verify import require_role
from casproxy.errors import AuthError
from casproxy.rpc.api import Handler, Interceptor, ServerCall
from casproxy.wire.metadata import Metadata


def auth_interceptor(verifier: Verifier, roles: Mapping[str, frozenset[Role]], public: Collection[str]) -> Interceptor:
    """An interceptor that lets a call in with its ``Claims`` attached, or raises ``AuthError``.

    ``roles``: method path (``/package.Service/Method``) -> the roles that may call it. ``public``: names of services
    that need no token. A method in neither is closed to everybody.
    """

    async def authenticate(call: ServerCall, handler: Handler) -> None:
        if call.info.service not in public:
            claims = await verifier.verify(_token_of(call.metadata))
            require_role(claims, roles.get(call.info.path, frozenset()))
            call.attach(claims)
        await handler(call)

    return authenticate


def _token_of(metadata: Metadata) -> str:
    values = metadata.get_all("authorization")
    if len(values) > 1:  # two readers could choose differently
        raise AuthError("Token is invalid", cause="malformed_header")
    return bearer_token(metadata.text("authorization"))
