"""Whom this process believes: the store itself, and each of its clients against a server that one CA vouches for."""
