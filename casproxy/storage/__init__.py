"""Stores: one contract (``api``), many backends, composed by ``stack``."""
