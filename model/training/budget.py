"""The length of a training: its phases shortened to a number of steps, or to the available minutes.

The lengths are set once, before the first step or after the speed has been measured, and are kept in the state; so the
learning rate stays a function of the phase and the step.
"""

import time
from dataclasses import dataclass, replace

from model.recipe import Recipe

MEASURED_STEPS = 20
"""Steps after which the speed is known; the first few of them are left out, because they are slow."""
LEFT_OUT = 4
SHARE = 0.93
"""Share of the time that is planned for steps; the rest is for validation and writing."""
VALIDATION_SHARE = 0.05
"""Share of the time that validations may take, not counting those at the ends of phases."""


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """Return a recipe whose phases have ``steps`` steps together, in the proportions they had.

    Raises:
        ValueError: fewer steps than phases.
    """
    lengths = shares([phase.steps for phase in recipe.phases], steps)
    phases = [replace(phase, steps=n) for phase, n in zip(recipe.phases, lengths, strict=True)]
    return replace(recipe, phases=tuple(phases), validate_every=min(recipe.validate_every, max(lengths)))


def shares(lengths: list[int], total: int) -> list[int]:
    """Divide ``total`` steps in the proportions of ``lengths``, at least one for each."""
    if total < len(lengths):
        raise ValueError(f"steps: expected at least one for each of {len(lengths)} phases, got {total}")
    ends, done = [], 0
    for length in lengths:
        done += length
        ends.append(round(total * done / sum(lengths)))
    result = [max(end - start, 1) for start, end in zip([0, *ends], ends)]
    result[result.index(max(result))] -= sum(result) - total
    return result


@dataclass(kw_only=True)
class Clock:
    """The minutes of one call, and of all calls that resume one training."""

    minutes: float
    """Time of this call."""
    all_minutes: float = 0.0
    """Time of all calls together, by which the lengths are set; 0: that of this call."""

    def __post_init__(self) -> None:
        if self.minutes <= 0:
            raise ValueError(f"minutes: expected a positive number, got {self.minutes!r}")
        self._start = time.monotonic()
        self._times: list[float] = []
        self._validating, self._reserve = 0.0, 0.0

    @property
    def is_over(self) -> bool:
        """Whether the time of this call is over, except for one more validation."""
        return time.monotonic() - self._start + self._reserve >= 60 * self.minutes

    @property
    def may_validate(self) -> bool:
        """Whether validations have taken less than their share of the time."""
        return self._validating <= VALIDATION_SHARE * (time.monotonic() - self._start)

    def validated(self, seconds: float) -> None:
        """Count a validation; as much time is kept for the last one."""
        self._validating, self._reserve = self._validating + seconds, seconds

    def tick(self) -> bool:
        """Count a step; return whether the speed is known from now on."""
        self._times.append(time.monotonic())
        return len(self._times) == MEASURED_STEPS

    def lengths(self, recipe: Recipe) -> list[int]:
        """Return the steps of the phases that fit into the time of all calls at the speed that was measured."""
        rate = (MEASURED_STEPS - LEFT_OUT) / (self._times[-1] - self._times[LEFT_OUT - 1])
        seconds = 60 * max(self.all_minutes, self.minutes)
        total = max(int(SHARE * seconds * rate), MEASURED_STEPS * len(recipe.phases))
        return shares([phase.steps for phase in recipe.phases], total)
