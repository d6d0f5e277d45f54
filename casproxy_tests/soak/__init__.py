"""What only shows at size: memory over gigabytes, cancellations by the thousand. Long in ``just soak``, else short."""

from __future__ import annotations

import os

LONG = os.environ.get("CASPROXY_SOAK") == "1"
