"""Cancellation at every await: run a scenario again and again, cancelled after its 1st, 2nd, 3rd … task step.

``cancel_everywhere(scenario, check)`` is all that a test needs; see ``harness`` for what it promises.
"""

from casproxy_tests.cancellation.harness import Run, cancel_everywhere, open_files

__all__ = ["Run", "cancel_everywhere", "open_files"]
