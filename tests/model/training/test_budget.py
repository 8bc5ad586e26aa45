"""Phases shortened to steps or minutes."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from model.recipe import Recipe, read_recipe
from model.training import curves
from model.training.budget import MEASURED_STEPS, Clock, shares, with_steps
from model.training.loop import train


def test_shortened_phases_keep_their_proportions() -> None:
    recipe = with_steps(read_recipe("house"), 64)
    assert [phase.steps for phase in recipe.phases] == [42, 22] and recipe.validate_every == 42
    assert shares([1, 1000], 10) == [1, 9] and shares([5, 5], 2) == [1, 1]
    with pytest.raises(ValueError, match="at least one for each of 2 phases, got 1"):
        with_steps(recipe, 1)


def test_a_clock_without_time_is_refused() -> None:
    with pytest.raises(ValueError, match="positive number, got 0"):
        Clock(minutes=0)


def test_lengths_come_from_the_measured_speed(small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("model.training.budget.time.monotonic", lambda: now)
    clock = Clock(minutes=1, all_minutes=10)
    for step in range(MEASURED_STEPS):
        now += 5.0 if step == 0 else 0.5
        assert clock.tick() == (step == MEASURED_STEPS - 1)
    assert sum(clock.lengths(small_recipe)) == 1116  # 600 s, two steps a second, 93 % of them
    clock.validated(3.0)
    assert not clock.is_over and not clock.may_validate
    now = 57.5
    assert clock.is_over and not clock.may_validate


def test_a_training_ends_with_its_time_and_the_next_call_goes_on(
    crossing: tuple[np.ndarray, np.ndarray],
    small_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock is read twice a step, and goes on by 0.1 s each time: 6 s are 30 steps."""
    readings = count()
    monkeypatch.setattr("model.training.budget.time", SimpleNamespace(monotonic=lambda: 0.1 * next(readings)))
    recipe = replace(small_recipe, validate_every=1000)
    phases = tuple(replace(phase, steps=1000) for phase in recipe.phases)
    recipe = replace(recipe, phases=phases)
    clock = Clock(minutes=0.1, all_minutes=0.2)
    first = train(recipe, [crossing], [crossing], tmp_path, device="cpu", clock=clock)
    assert not first.finished and 25 < first.steps < 32
    assert (first.folder / "card.json").is_file()
    second = train(recipe, [crossing], [crossing], tmp_path, device="cpu", clock=Clock(minutes=5))
    assert second.finished and second.steps == 55
    places = [int(row["total_step"]) for row in curves.read_table(tmp_path)]
    assert places == sorted(places) and places[-1] == second.steps
