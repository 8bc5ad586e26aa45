"""Losses of DCME: a regression whose gradients are clipped by a translated logistic, and grid classes.

The regression error enters as its potential ``A log cosh(x / 2)``, whose derivative is the clipped gradient of
Watanabe and Wolf (2019), equation 4: ``A (1 / (1 + exp(-x)) - 1 / 2) = A / 2 tanh(x / 2)``.
"""

import math

import torch
from torch.nn import functional

from model.methods.dcme.targets import Targets


def vector_loss(vectors: torch.Tensor, targets: Targets, *, amplitude: float) -> torch.Tensor:
    """Return the mean over all N = 2 B y x values (equation 3) of the clipped regression error.

    ``vectors``: float32 ``(B, 2, y, x)`` in pixels. ``amplitude``: A; no gradient is larger than A / 2 / N.
    """
    error = vectors - targets.vectors
    # log cosh(x / 2) = softplus(x) - x / 2 - log 2, which does not overflow.
    return amplitude * (functional.softplus(error) - error / 2 - math.log(2)).mean()


def grid_loss(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return the mean cross entropy of block classes, from logits ``(B, classes + 1, rows, columns)``."""
    return functional.cross_entropy(logits, targets.grid)
