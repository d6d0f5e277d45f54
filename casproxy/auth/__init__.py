"""Tokens: ``verify`` is pure, ``keys`` loads keys, ``verifier`` joins both and remembers, ``interceptor`` guards calls.

``mint`` makes tokens and keys, for the command line and the tests; the server never signs.
"""
