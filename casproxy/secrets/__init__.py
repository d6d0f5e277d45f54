"""The credentials of tenants: one contract (``api``), its sources, a ``cache`` in front; ``resolve`` picks one."""
