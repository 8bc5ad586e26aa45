"""What training and inference ask of a segmentation method, and the phases it is trained in.

A method is a frozen value with five functions; phases are values too, so that a method with two of them needs
no exception in the training loop. It knows no network in particular and no optimiser.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with its own length, learning rate and weights of the loss terms."""

    name: str
    """How the phase is called in curves and cards."""
    steps: int
    """Optimiser steps."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Weight of every loss term that counts; terms that are not named are not computed."""
    lr: float = 1e-3
    """Learning rate at the top of the schedule."""
    schedule: Literal["cosine", "staircase"] = "cosine"
    """``cosine``: linear warm-up, then half a cosine down to ``lr * lr_end``; ``staircase``: x decay."""
    warmup: int = 0
    """Steps of linear warm-up of the cosine schedule."""
    lr_end: float = 0.01
    """Fraction of ``lr`` that the cosine schedule ends at."""
    decay: float = 0.9
    """Factor of the staircase."""
    decay_every: int = 10_000
    """Steps between two stairs."""
    start: Literal["last", "best"] = "best"
    """Continue from the last weights of the phase before, or from its best."""

    best: Literal["score", "loss"] = "score"
    """What the best model is chosen by: the validation score where there is one, or the validation loss."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or self.decay_every < 1:
            raise ValueError(
                f"phase {self.name!r}: expected steps and decay_every of at least 1 and a positive lr, "
                f"got {self.steps!r}, {self.decay_every!r}, {self.lr!r}"
            )
        if self.best not in ("score", "loss"):
            raise ValueError(f"phase {self.name!r}: expected best 'score' or 'loss', got {self.best!r}")
        if self.schedule not in ("cosine", "staircase") or self.start not in ("last", "best"):
            raise ValueError(
                f"phase {self.name!r}: expected schedule 'cosine' or 'staircase' and start 'last' or 'best', "
                f"got {self.schedule!r} and {self.start!r}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a card."""
        return asdict(self) | {"weights": dict(self.weights)}


class Method(Protocol):
    """Five functions that make a network segment: see ``model.methods.layering`` for one."""

    def network(self, channels: int) -> nn.Module:
        """Return the untrained network for images of that many channels."""

    def encode(self, stacks: Sequence[np.ndarray]) -> Any:
        """Return the targets of a batch of label stacks ``(L, y, x)`` of one size."""

    def losses(
        self, network: nn.Module, images: torch.Tensor, targets: Any, phase: Phase
    ) -> dict[str, torch.Tensor]:
        """Return the unweighted loss terms the phase asks for."""

    def outputs(self, network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the probabilities that ``decode`` takes."""

    def decode(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the label stack of one image from its outputs."""
