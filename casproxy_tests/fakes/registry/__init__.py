"""A registry in this process, with scripted faults and the peculiarities of real ones. Start reading in ``app``."""

from casproxy_tests.fakes.registry.app import FakeRegistry, serve_registry
from casproxy_tests.fakes.registry.auth import Account, Anonymous, Auth, Basic, Bearer
from casproxy_tests.fakes.registry.faults import Answer, Fault, Hangup, Phase
from casproxy_tests.fakes.registry.profiles import PROFILES, Profile, without_streaming

__all__ = [
    "PROFILES",
    "Account",
    "Anonymous",
    "Answer",
    "Auth",
    "Basic",
    "Bearer",
    "FakeRegistry",
    "Fault",
    "Hangup",
    "Phase",
    "Profile",
    "serve_registry",
    "without_streaming",
]
