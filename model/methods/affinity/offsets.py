"""Offsets between pixels, and the affinities of embeddings at them.

The affinity at pixel p and offset o belongs to the pair p, p + o.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

Offset = tuple[int, int]
"""Rows and columns from a pixel to its partner."""


def offsets(ranges: Sequence[int], neighbours: int) -> list[Offset]:
    """Return two offsets per range r, (-r, 0) and (0, -r), and with 8 ``neighbours`` the diagonal ones too."""
    steps: list[Offset] = []
    for r in ranges:
        steps += [(-r, 0), (0, -r)]
        steps += [(-r, -r), (-r, r)] if neighbours == 8 else []
    return steps


def unit(embeddings: torch.Tensor) -> torch.Tensor:
    """Return embeddings ``(B, D, y, x)`` of length 1 (0 where they are 0), float32."""
    return functional.normalize(embeddings.float(), dim=1)


def shifted(maps: torch.Tensor, offset: Offset) -> torch.Tensor:
    """Return maps ``(..., y, x)`` whose value at p is that at p + offset; it wraps around at the border."""
    return torch.roll(maps, shifts=(-offset[0], -offset[1]), dims=(-2, -1))


def inside(shape: Sequence[int], offset: Offset, device: torch.device) -> torch.Tensor:
    """Return bool ``(y, x)``: whether p + offset lies in the image."""
    axes = []
    for size, step in zip(shape, offset, strict=True):
        place = torch.arange(size, device=device) + step
        axes.append((place >= 0) & (place < size))
    return axes[0][:, None] & axes[1][None, :]


def affinities(first: torch.Tensor, second: torch.Tensor, pairs: Sequence[Offset]) -> torch.Tensor:
    """Return ``(B, offsets, y, x)``: cosine between ``first`` at p and ``second`` at p + offset, both unit embeddings.

    Pairs that leave the image are 0.
    """
    bands = []
    for offset in pairs:
        valid = inside(first.shape[-2:], offset, first.device)
        bands.append((first * shifted(second, offset)).sum(1) * valid)
    return torch.stack(bands, dim=1)
