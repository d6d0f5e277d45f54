"""The Python API of a caller: typed, async, verified."""
