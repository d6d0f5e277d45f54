"""Owns the order of samples: targets take turns, A B A B, so that a busy minute hits all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from casproxy.bench.artifact import Pattern
from casproxy.bench.load import Load, Target
from casproxy.bench.runner import OnTick, Sample, measure

OnSample = Callable[[str, Sample, float], None]
"""Told now and then: which run it is, the sample so far, and how much of the whole campaign is done, 0 to 1."""


@dataclass
class Campaign:
    """``rounds`` samples of ``load`` for each target, in turn. ``samples``: what there is, also when cancelled."""

    load: Load
    targets: Sequence[Target]
    rounds: int = 3
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    async def run(self, on_sample: OnSample | None = None) -> None:
        """Take all samples. Errors: see ``runner.measure``."""
        self.samples = {target.name: [] for target in self.targets}
        pattern = Pattern(self.load.size)
        total = self.rounds * len(self.targets)
        for number in range(total):
            target = self.targets[number % len(self.targets)]
            current = [Sample(target.name)]
            try:
                current[0] = await measure(target, self.load, pattern, self._tick(current, number, total, on_sample))
            finally:
                if current[0].operations or current[0].errors:
                    self.samples[target.name].append(current[0])

    def _tick(self, current: list[Sample], number: int, total: int, on_sample: OnSample | None) -> OnTick:
        def tick(sample: Sample, done: float) -> None:
            current[0] = sample
            if on_sample is not None:
                on_sample(f"{self.load.scenario} {sample.target}", sample, (number + done) / total)

        return tick
