"""Tests of ``casproxy.auth``."""
