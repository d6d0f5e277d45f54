"""Tests of ``casproxy.storage``."""
