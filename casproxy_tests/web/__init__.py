"""Tests of casproxy.web, over real sockets."""
