"""The wire, sans-io: HTTP/2 and gRPC as bytes in and events out. No trio, no clock, no sockets; imports h2 and the standard library only."""
