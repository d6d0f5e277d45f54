"""Calls over connections: in memory, on virtual time, with a raw HTTP/2 peer at the other end."""
