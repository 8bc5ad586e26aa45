"""The state of a training run in memory: network, moving average, optimiser, and how far the phases have come."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from model.checkpoint import Checkpoint
from model.devices import placed
from model.method import Phase
from model.recipe import Recipe
from model.training.average import MovingAverage
from model.training.schedule import learning_rate, make_optimiser


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best model of a phase."""

    phase: str
    """Name of the phase, which is also that of the folder with the model."""
    score: float
    """Its validation score, or minus its validation loss where ``chosen_by`` says so."""
    chosen_by: str
    """``score`` or ``loss``."""


class Run:
    """Network, average, optimiser, position in the phases and best scores of a training."""

    def __init__(
        self, recipe: Recipe, *, channels: int, device: torch.device, initial: Checkpoint | None = None
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.network: Any = placed(recipe.method.network(channels), device)
        self.initial, self.initial_score = "", -np.inf
        if initial is not None:
            _check_initial(initial, self.network)
            self.network.load_state_dict(initial.network.state_dict())
            self.initial = initial.card["digest"]
        self.average = MovingAverage(self.network, decay=recipe.ema)
        self.phase_index, self.step, self.total, self.best, self.seconds = 0, 0, 0, -np.inf, 0.0
        self.bests: list[Best] = []
        self.timed = False
        self.optimiser = make_optimiser(recipe.optimiser, self.network)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")

    @property
    def phase(self) -> Phase:
        """The phase that is being trained."""
        return self.recipe.phases[self.phase_index]

    @property
    def place(self) -> dict[str, str | float]:
        """Phase, steps, seconds and learning rate, for a row of the curves."""
        return {
            "phase": self.phase.name,
            "step": self.step,
            "total_step": self.total,
            "seconds": round(self.seconds, 1),
            "lr": learning_rate(self.phase, max(self.step - 1, 0)),
        }

    @property
    def best_of_all(self) -> Best:
        """The model with the best score of all phases, of equal ones the later; that of the last phase by its loss.

        Losses of phases cannot be compared, because their terms have other weights. In a process that does not
        validate: the model of the current phase.
        """
        if not self.bests:
            return Best(phase=self.phase.name, score=self.best, chosen_by=self.phase.best)
        last = self.bests[-1]
        scored = [best for best in self.bests if best.chosen_by == "score"]
        return max(reversed(scored), key=lambda best: best.score) if last.chosen_by == "score" else last

    def keep_best(self, score: float, *, chosen_by: str) -> None:
        """Record the score of the best model of the current phase so far."""
        self.best = score
        done = [best for best in self.bests if best.phase != self.phase.name]
        self.bests = [*done, Best(phase=self.phase.name, score=score, chosen_by=chosen_by)]

    def next_phase(self, start: nn.Module | None) -> None:
        """Go to the next phase, from the weights of ``start`` if given, with a fresh optimiser."""
        self.phase_index, self.step, self.best = self.phase_index + 1, 0, -np.inf
        if start is not None:
            self.network.load_state_dict(start.state_dict())
            self.average.restart(self.network)
        self.optimiser = make_optimiser(self.recipe.optimiser, self.network)

    def set_lengths(self, steps: list[int]) -> None:
        """Change the number of steps of every phase; that of the current one is at least what is done of it."""
        steps = [max(n, self.step) if i == self.phase_index else n for i, n in enumerate(steps)]
        phases = tuple(replace(phase, steps=n) for phase, n in zip(self.recipe.phases, steps, strict=True))
        self.recipe, self.timed = replace(self.recipe, phases=phases), True


def _check_initial(initial: Checkpoint, network: Any) -> None:
    if initial.network.shape != network.shape:
        raise ValueError(
            f"initial model {initial.card['name']!r}: expected the network of the recipe and the samples, "
            f"{network.shape.as_dict()}, got {initial.network.shape.as_dict()}"
        )
