"""A secret source that does what a test tells it, and counts."""

from __future__ import annotations

import trio

from casproxy.errors import SecretNotFound
from casproxy.secrets.api import Secret


def secret(value: str = "first") -> Secret:
    return Secret({"Password": value})


class ScriptedSource:
    """``answers``: id -> secret or error, missing ids are not found. While held, look-ups wait for ``release``."""

    def __init__(self) -> None:
        self.answers: dict[str, Secret | Exception] = {"a": secret()}
        self.asked: list[str] = []
        self.cancelled = 0
        self._gate = trio.Event()
        self._gate.set()

    def hold(self) -> None:
        """Look-ups that begin from now on do not come back by themselves."""
        self._gate = trio.Event()

    def release(self) -> None:
        self._gate.set()

    async def read(self, secret_id: str) -> Secret:
        self.asked.append(secret_id)
        try:
            await self._gate.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        answer = self.answers.get(secret_id, SecretNotFound("no"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def check(self) -> None:
        await trio.lowlevel.checkpoint()
