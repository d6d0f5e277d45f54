"""The same port as in the tests of casproxy_tests/web, and its log is kept in the same way."""

from casproxy_tests.web.conftest import log_lines

__all__ = ["log_lines"]
