"""Tokens: ``verify`` is pure, ``verifier`` gives it keys and a clock and remembers, ``interceptor`` guards calls.

Keys: ``keys`` says what one is and reads PEM, ``jwks`` reads JWK Sets; ``resolve`` turns settings into ``key_parts``
(``key_files``, ``key_url``) and ``key_ring`` keeps them current. ``mint`` makes tokens and keys, for the command line
and the tests; the server never signs.
"""
