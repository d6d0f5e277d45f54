"""Everything that can go wrong at a registry, and what a caller of the service gets then. ``cases`` is the table."""
