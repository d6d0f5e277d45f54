"""The way out, tested: guard, dialler, connection, pool."""
