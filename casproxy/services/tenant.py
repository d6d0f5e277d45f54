"""Owns the step from a verified token to the tenant whose store a call may use."""

from __future__ import annotations

from casproxy.auth.claims import Claims
from casproxy.storage.api import Tenant


def tenant_of(claims: Claims) -> Tenant:
    """Whom a call with these claims works for."""
    return Tenant(backend_type=claims.backend, secret_id=claims.secret_id, org_id=claims.org_id)
