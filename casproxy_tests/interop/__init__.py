"""Our server and client against gRPC's own implementation, in a process of its own."""
