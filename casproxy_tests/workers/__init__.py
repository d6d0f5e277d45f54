"""Several processes as one server: the pure parts one by one, then real processes with live calls."""
