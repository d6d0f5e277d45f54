"""What ``casproxy dev`` adds to a server: a place with everything in it (``place``) and a first trip (``trial``).

Nothing here is used by ``casproxy serve``; the server that runs is the same one, with a configuration made on the spot.
"""
