"""Run a registry for trying things by hand: the tests' own, as peculiar and as faulty as you like, or docker-registry.

::

    python -m contrib.registry --profile ACR --auth bearer
    python -m contrib.registry --fault patch:reset:1000000 --fault manifest-put:500
    python -m contrib.registry --real --auth basic

Prints the secret that leads to it and then each request with its answer. A fault is ``step:what[:after bytes]``, what
being ``reset``, ``close``, ``blackhole`` or a status; it happens every time. Loopback only; nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from casproxy_tests.fakes.registry import (
    PROFILES,
    Account,
    Anonymous,
    Answer,
    Auth,
    Basic,
    Bearer,
    FakeRegistry,
    Fault,
    Hangup,
    Phase,
    Profile,
    serve_registry,
)
from casproxy_tests.real.registry import Access, running_registry

_ACCOUNTS = {"alice": Account("alices-password")}
_AUTH: Mapping[str, Callable[[], Auth]] = {
    "none": Anonymous,
    "basic": lambda: Basic(_ACCOUNTS),
    "bearer": lambda: Bearer(_ACCOUNTS),
}
_ACCESS = {"none": Access.ANONYMOUS, "basic": Access.BASIC, "bearer": Access.BEARER_TLS}
_HANGUPS = {"reset": Hangup.RESET, "close": Hangup.CLOSE, "blackhole": Hangup.BLACK_HOLE}


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Run a registry for trying things by hand.")
    parser.add_argument("--profile", choices=sorted(PROFILES), help="a registry to behave like")
    parser.add_argument("--auth", choices=sorted(_AUTH), default="none", help="how it knows alice (default: none)")
    parser.add_argument("--fault", type=_fault, action="append", default=[], help="step:what[:after bytes]")
    parser.add_argument("--real", action="store_true", help="docker-registry instead of the tests' own")
    options = parser.parse_args()
    try:
        if options.real:
            trio.run(_serve_real, _ACCESS[options.auth])
        else:
            trio.run(_serve_fake, _AUTH[options.auth](), PROFILES.get(options.profile), options.fault)
    except KeyboardInterrupt:
        print("ended")


def _fault(text: str) -> Fault:
    step, what, *after = text.split(":")
    action = _HANGUPS[what] if what in _HANGUPS else Answer(int(what))
    phase = Phase.HEAD if not after else Phase.ANSWER_BODY if step.endswith("-get") else Phase.BODY
    return Fault(step, action, phase, int(after[0]) if after else 0, times=math.inf)


async def _serve_real(access: Access) -> None:
    with tempfile.TemporaryDirectory(prefix="registry-") as directory:
        async with running_registry(Path(directory) / "registry", access) as registry:
            _tell(registry.host)
            await trio.sleep_forever()


async def _serve_fake(auth: Auth, profile: Profile | None, faults: list[Fault]) -> None:
    async with serve_registry(auth=auth, profile=profile) as registry:
        registry.script(*faults)
        _tell(registry.host)
        await _show_requests(registry)


def _tell(host: str) -> None:
    secret = {"Repo": f"{host}/acme/cas", "Username": "alice", "Password": "alices-password"}
    print(f"secret: {json.dumps(secret)}", flush=True)


async def _show_requests(registry: FakeRegistry) -> None:
    while True:
        for asked in registry.asked:
            print(f"{asked.status or 'nothing':>7}  {asked.method:<6} {asked.target}", flush=True)
        registry.asked.clear()
        await trio.sleep(0.2)


if __name__ == "__main__":
    main()
