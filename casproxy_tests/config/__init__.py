"""Tests of casproxy.config."""
