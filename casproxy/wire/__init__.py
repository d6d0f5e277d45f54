"""The wire, sans-io: HTTP/2 and gRPC as bytes in and events out.

No trio, no clock, no sockets; imports h2 (with its hpack and hyperframe) and the standard library only.
"""
