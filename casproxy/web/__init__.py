"""The HTTP door: an ASGI application for Hypercorn."""
