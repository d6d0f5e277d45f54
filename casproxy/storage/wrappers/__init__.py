"""Complete wrappers around a ``Backend``: each spells out every method, and changes what it is named for only."""
