"""Losses of StarDist (Schmidt et al. 2018): cross entropy of probabilities, absolute error of distances."""

import torch
from torch.nn import functional

from model.methods.stardist.targets import Targets

OUTSIDE = 1e-4
"""Weight that pulls distances outside of objects towards 0."""


def probability_loss(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return the mean cross entropy of logits ``(B, 1, rows, columns)`` with soft targets."""
    return functional.binary_cross_entropy_with_logits(logits, targets.probability)


def distance_loss(distances: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return the error in pixels of distances ``(B, rays, rows, columns)``, weighted by the target probability."""
    inside = targets.probability
    error = (inside * (distances - targets.distances).abs()).mean() / (inside.mean() + 1e-7)
    return error + OUTSIDE * ((1 - inside) * distances.abs()).mean()
