"""Losses of the pixel-embedded affinity method (Huang et al. 2022): affinities at all offsets, and the foreground."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch.nn import functional

from model.methods.affinity.offsets import Offset, affinities, inside, shifted

Scale = Literal["author", "mean"]


def affinity_loss(
    first: torch.Tensor, second: torch.Tensor, ids: torch.Tensor, pairs: Sequence[Offset], *, scale: Scale
) -> torch.Tensor:
    """Return the weighted squared error of the affinities of unit embeddings, summed over the offsets.

    ``first``, ``second``: ``(B, D, y, x)``; ``ids``: int64 ``(B, y, x)``, 0 is background and counts as an object. A
    pair of one object should be 1, any other 0; pairs that leave the image count as fulfilled. ``scale="author"``
    divides the sum over a batch by B times the width, as the authors' code does; ``"mean"`` by the number of pixels.
    """
    predicted = affinities(first, second, pairs)
    height, width = ids.shape[-2:]
    total = predicted.new_zeros(())
    for channel, offset in enumerate(pairs):
        valid = inside((height, width), offset, ids.device)
        same = (ids == shifted(ids, offset)) | ~valid
        error = (predicted[:, channel] - same.float()).square() * valid
        total = total + (balance(same) * error).sum()
    return total / (len(ids) * width * (height if scale == "mean" else 1))


def balance(same: torch.Tensor) -> torch.Tensor:
    """Return the weight of each pair, ``(B, y, x)``: the rarer kind of pair is weighted up, image by image."""
    share = same.float().mean((1, 2), keepdim=True)
    clipped = share.clamp(0.05, 0.99)
    positive = torch.where(clipped > 0.5, 1.0, (1 - clipped) / clipped)
    negative = torch.where(clipped > 0.5, clipped / (1 - clipped), 1.0)
    return torch.where((share == 0) | (share == 1), 1.0, torch.where(same, positive, negative))


def foreground_loss(logits: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of logits ``(B, 2, y, x)``: background and foreground count the same in total.

    ``foreground``: bool ``(B, y, x)``. Where a batch has no foreground, or nothing else, it is a plain mean.
    """
    inside_count = foreground.sum().clamp(min=1).float()
    outside_count = (~foreground).sum().clamp(min=1).float()
    return functional.cross_entropy(
        logits.float(), foreground.long(), weight=torch.stack([inside_count, outside_count])
    )
