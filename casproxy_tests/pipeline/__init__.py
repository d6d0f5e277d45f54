"""Tests of ``casproxy.pipeline``."""
