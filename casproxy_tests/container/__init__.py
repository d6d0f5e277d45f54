"""The image: built from the ``Containerfile`` with buildah, and run by runc with what the chart gives its container.

Building takes a minute and a half, most of it Debian's and Python's packages: ``just image-test`` runs these, and the
tests of every day do not. ``CASPROXY_IMAGE`` is a directory where the image has been built already.
"""

from __future__ import annotations

import os

from casproxy_tests.soak import LONG

BUILT = os.environ.get("CASPROXY_IMAGE", "")
ASKED_FOR = os.environ.get("CASPROXY_IMAGE_TEST") == "1"
SLOWEST_SECONDS = 3600 if LONG else 1200
"""For a test with the building of the image before it."""
