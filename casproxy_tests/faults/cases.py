"""The table of faults: at which request, what goes wrong, and what the caller of the service is owed then.

``matrix.py`` makes each row happen and holds the service to it; ``page.py`` writes the same rows down for people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from casproxy.digest import Digest
from casproxy.wire.status import StatusCode
from casproxy_tests.conformance.traffic import MIB, content
from casproxy_tests.fakes.registry import Answer, Bearer, FakeRegistry, Fault, Hangup, Phase

DATA = content(3 * MIB + 17, seed=4)
"""Larger than what is sent whole: it goes up in one streaming PATCH."""
DIGEST = Digest.of(DATA)
HALF = len(DATA) // 2
OK, UNAVAILABLE, INTERNAL = StatusCode.OK, StatusCode.UNAVAILABLE, StatusCode.INTERNAL
DATA_LOSS, REFUSED = StatusCode.DATA_LOSS, StatusCode.FAILED_PRECONDITION

UPLOAD_STEPS = {
    "POST, begin": "post",
    "PATCH, half way": "patch",
    "PUT, the layer's end": "put",
    "manifest PUT": "manifest-put",
}
DOWNLOAD_STEPS = {"manifest GET": "manifest-get", "GET, half way": "blob-get"}

FAULTS = (
    "connection reset",
    "connection reset, for ever",
    "done, but reset before the answer",
    "black hole",
    "black hole, for ever",
    "401, token expired",
    "429, Retry-After: 2",
    "429, Retry-After a date that has passed",
    "429, Retry-After nonsense",
    "429, Retry-After: 86400, for ever",
    "500 once",
    "500, for ever",
)
LIES = ("201 for other bytes", "201 with another digest")
BAD_ANSWERS = (
    "closed early",
    "closed early, for ever",
    "a byte flipped",
    "another size",
    "gzip, though identity was asked for",
)

ANSWERS = {
    "429, Retry-After: 2": Answer(429, {"retry-after": "2"}),
    "429, Retry-After a date that has passed": Answer(429, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "429, Retry-After nonsense": Answer(429, {"retry-after": "soon; -1"}, b"\n"),
    "429, Retry-After: 86400": Answer(429, {"retry-after": "86400"}),
    "500 once": Answer(500),
    "500": Answer(500),
}

NEVER_HEALS = {
    "connection reset, for ever",
    "black hole, for ever",
    "429, Retry-After: 86400, for ever",
    "500, for ever",
    "closed early, for ever",
}
NOT_REPLAYED = {
    "connection reset",
    "done, but reset before the answer",
    "black hole",
    "401, token expired",
    "429, Retry-After: 2",
    "429, Retry-After a date that has passed",
    "429, Retry-After nonsense",
    "500 once",
}
"""In the middle of a body that streams through: nobody has its beginning any more, so the caller sends it again."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row. ``within`` in seconds, of Trio's clock. ``orphan``: a session that only the registry knows of stays."""

    operation: str
    step: str
    fault: str
    code: StatusCode
    within: float
    orphan: bool = False
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.operation}, {self.step}, {self.fault}"

    @property
    def heals(self) -> bool:
        return self.fault not in NEVER_HEALS


def cases() -> Iterator[Case]:
    """Every row, in the order of the page."""
    for step in UPLOAD_STEPS:
        for fault in (*FAULTS, *(LIES if step.startswith("PUT") else ())):
            yield _upload(step, fault)
    for step in DOWNLOAD_STEPS:
        for fault in (*FAULTS, *BAD_ANSWERS):
            if not (step == "GET, half way" and fault == "done, but reset before the answer"):
                yield _download(step, fault)


def _upload(step: str, fault: str) -> Case:
    orphan = step == "POST, begin" and fault == "done, but reset before the answer"
    code, note = OK, ""
    if fault in NEVER_HEALS or (step == "PATCH, half way" and fault in NOT_REPLAYED):
        code = UNAVAILABLE
    if fault == "201 for other bytes":
        note = "the registry keeps other bytes than it was given: a read ends in DATA_LOSS"
    if fault == "201 with another digest":
        code = INTERNAL
    if orphan:
        note = "a session that only the registry knows of; its own purge takes it"
    return Case("upload", step, fault, code, _bound(fault), orphan, note)


def _download(step: str, fault: str) -> Case:
    code, note = UNAVAILABLE if fault in NEVER_HEALS else OK, ""
    if fault == "a byte flipped":
        code = DATA_LOSS if step == "GET, half way" else INTERNAL
    if fault == "another size":
        code = INTERNAL
    if fault.startswith("gzip"):
        code = INTERNAL
    return Case("download", step, fault, code, _bound(fault), note=note)


def _bound(fault: str) -> float:
    if fault.startswith("black hole"):
        return 300.0 if fault in NEVER_HEALS else 120.0
    return 60.0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the faults of a row happen. ``half``: in the middle of the body that the request or the answer has."""

    step: str
    half: Phase | None

    @classmethod
    def of(cls, case: Case) -> _Place:
        step = {**UPLOAD_STEPS, **DOWNLOAD_STEPS}[case.step]
        return cls(step, {"patch": Phase.BODY, "blob-get": Phase.ANSWER_BODY}.get(step))

    def hang_up(self, how: Hangup, times: float) -> Fault:
        """In the middle of the body, where there is a large one."""
        after = HALF if self.half else 0
        if times > 1 and self.half is Phase.ANSWER_BODY:
            after = 100_000  # of each answer: what is resumed breaks as well
        return Fault(self.step, how, self.half or Phase.HEAD, after, times=times, only=self._only)

    def answer(self, answer: Answer, times: float = 1) -> Fault:
        """In place of the registry's own; in the middle of the request's body, where there is a large one."""
        early = self.half is Phase.BODY
        phase = Phase.BODY if early else Phase.HEAD
        return Fault(self.step, answer, phase, HALF if early else 0, times=times, only=self._only)

    def spoil(
        self,
        *,
        headers: Mapping[str, str] | None = None,
        flip: int | None = None,
        effect: Callable[[], None] | None = None,
    ) -> Fault:
        """Let the registry answer, but not quite."""
        return Fault(self.step, headers=headers or {}, flip=flip, effect=effect, only=self._only)

    @property
    def _only(self) -> str:
        """The config has a PUT of its own, which is not meant."""
        return DIGEST.hex if self.step == "put" else ""


def script(case: Case, registry: FakeRegistry) -> Fault:
    """The fault that makes the row happen."""
    place, times = _Place.of(case), 1 if case.heals else math.inf
    plain = case.fault.removesuffix(", for ever")
    hangups = {"connection reset": Hangup.RESET, "black hole": Hangup.BLACK_HOLE}
    if plain in hangups:
        return place.hang_up(hangups[plain], times)
    if plain in ANSWERS:
        return place.answer(ANSWERS[plain], times)

    def lie() -> None:
        registry.lies.add(str(DIGEST))

    challenge = ""
    if isinstance(registry.auth, Bearer):
        challenge = f'Bearer realm="{registry.auth.realm}",service="{registry.auth.service}",error="invalid_token"'
    cut_at = 100 if place.half is None else HALF if case.heals else 100_000
    end = Fault(place.step, Hangup.CLOSE, Phase.ANSWER_BODY, cut_at, times=times)
    return {
        "401, token expired": place.answer(Answer(401, {"www-authenticate": challenge})),
        "done, but reset before the answer": Fault(place.step, Hangup.RESET, Phase.ANSWER, only=place._only),
        "201 for other bytes": place.spoil(effect=lie),
        "201 with another digest": place.spoil(headers={"docker-content-digest": f"sha256:{'0' * 64}"}),
        "closed early": end,
        "a byte flipped": place.spoil(flip=HALF if place.half else 20),
        "another size": place.spoil(headers={"content-length": "100"}),
        "gzip, though identity was asked for": place.spoil(headers={"content-encoding": "gzip"}),
    }[plain]
