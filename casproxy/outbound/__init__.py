"""The way out: HTTP/1.1 to places that tenants name, through one dialler that knows where nobody may connect to.

::

    pool         one exchange after another on kept connections      -> Pool, open_pool
    connection   one request and its answer, bodies uncopied         -> Connection, Request, Response
    dial         name -> checked address -> connected stream         -> Dial, guarded_dial
    guard        which addresses are refused, always or by default   -> Guard
    address      origins and URLs, parsed strictly                   -> Origin, Url
    errors       what can go wrong on the way                        -> OutboundError

What an HTTP client usually does for its user is absent here on purpose, for its user is many tenants: no cookies, no
netrc, no proxy variables, no redirects followed, no decompression. Heads are h11's; bodies pass by it untouched.
"""
