"""Owns the bench's server as a worker process: started by the supervisor of ``casproxy.bench.server --workers``."""

from __future__ import annotations

import sys

from casproxy.bench.server import make_app
from casproxy.workers.worker import main

if __name__ == "__main__":
    sys.exit(main(make_app))
