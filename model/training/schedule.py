"""Learning rates and optimisers.

The invariant: the rate is a function of the phase and the step alone.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from model.method import Phase

if TYPE_CHECKING:
    from model.recipe import Optimiser


def learning_rate(phase: Phase, step: int) -> float:
    """Return the learning rate of a step, counted from 0 in its phase."""
    if phase.schedule == "staircase":
        return phase.lr * phase.decay ** (step // phase.decay_every)
    if step < phase.warmup:
        return phase.lr * (step + 1) / phase.warmup
    progress = min((step - phase.warmup) / max(phase.steps - phase.warmup, 1), 1.0)
    return phase.lr * (phase.lr_end + (1 - phase.lr_end) * (1 + math.cos(math.pi * progress)) / 2)


def make_optimiser(settings: "Optimiser", network: nn.Module) -> torch.optim.Optimizer:
    """Return a fresh optimiser; weight decay spares biases and batch norm."""
    matrices = [value for value in network.parameters() if value.ndim > 1]
    vectors = [value for value in network.parameters() if value.ndim <= 1]
    if settings.kind == "rmsprop":
        return torch.optim.RMSprop([*matrices, *vectors], alpha=settings.rho, eps=settings.epsilon)
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, lr=1e-3, momentum=settings.momentum)
    if settings.kind == "adam":
        return torch.optim.Adam(groups, eps=settings.epsilon, amsgrad=settings.amsgrad)
    fused = all(value.is_cuda for value in network.parameters())
    return torch.optim.AdamW(groups, eps=settings.epsilon, fused=fused or None)
