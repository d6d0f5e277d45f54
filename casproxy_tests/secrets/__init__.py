"""Tests of ``casproxy.secrets``."""
