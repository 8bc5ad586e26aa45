"""Loss functions that several methods share."""

import math

import torch
from torch.nn import functional

LEAST = 1e-7
"""Probabilities are clipped to this and to 1 minus it, as in the framework of the layering paper."""


def clipped_entropy(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the binary cross entropy of logits with a truth of the same shape, mean over all elements.

    Probabilities are clipped, so that a pixel that is certain and wrong costs 16.1 and no more.
    """
    loss = functional.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none")
    return loss.clamp(max=-math.log(LEAST)).mean()
