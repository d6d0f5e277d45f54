"""Sources of the credentials of tenants: one contract (``api``), a cache in front."""
