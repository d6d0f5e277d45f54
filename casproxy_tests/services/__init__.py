"""Tests of ``casproxy.services`` and of ``casproxy.gob``."""
