"""RoIAlign (He et al. 2017) by bilinear sampling: boxes of any size to maps of one size, without rounding.

Boxes are ``(y0, x0, y1, x1)`` in pixels of the image, where pixel p covers p to p + 1.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

SAMPLES = 2
"""Samples per cell along each axis, of which the mean is taken."""
CANONICAL_CELLS = 14
"""A box takes the level on which it is at least this many cells wide, as in the feature pyramid paper."""


def pyramid_align(
    levels: Sequence[torch.Tensor], strides: Sequence[int], boxes: Sequence[torch.Tensor], *, size: int
) -> torch.Tensor:
    """Return the maps of all boxes, float ``(R, C, size, size)``, image after image.

    ``levels``: maps ``(B, C, h, w)`` from fine to coarse with their ``strides``; ``boxes``: ``(n, 4)`` for each image.
    """
    out = levels[0].new_zeros((sum(len(regions) for regions in boxes), levels[0].shape[1], size, size))
    first = 0
    for image, regions in enumerate(boxes):
        level = level_of(regions, strides)
        for number, (maps, stride) in enumerate(zip(levels, strides, strict=True)):
            chosen = torch.nonzero(level == number)[:, 0]
            if len(chosen):
                aligned = roi_align(maps[image], regions[chosen], stride=stride, size=size)
                out = out.index_copy(0, first + chosen, aligned)
        first += len(regions)
    return out


def level_of(boxes: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """Return the level int64 ``(n,)`` that suits the size of each box."""
    sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=1e-6).sqrt()
    cells = sides / (CANONICAL_CELLS * strides[0])
    return cells.log2().floor().long().clamp(0, len(strides) - 1)


def roi_align(maps: torch.Tensor, boxes: torch.Tensor, *, stride: int, size: int) -> torch.Tensor:
    """Return ``(n, C, size, size)`` for boxes ``(n, 4)`` in the maps ``(C, h, w)`` of one image."""
    y, x = sample_places(boxes, size=size * SAMPLES)
    height, width = maps.shape[-2] * stride, maps.shape[-1] * stride
    grid = torch.stack(
        [
            (2 * x / width - 1)[:, None, :].expand(-1, size * SAMPLES, -1),
            (2 * y / height - 1)[:, :, None].expand(-1, -1, size * SAMPLES),
        ],
        dim=-1,
    )
    flat = grid.reshape(1, -1, size * SAMPLES, 2).to(maps.dtype)
    sampled = functional.grid_sample(maps[None], flat, padding_mode="border", align_corners=False)[0]
    cells = sampled.reshape(len(maps), len(boxes), size, SAMPLES, size, SAMPLES)
    return cells.mean((3, 5)).transpose(0, 1)


def sample_places(boxes: torch.Tensor, *, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return y ``(n, size)`` and x ``(n, size)``: the centres of ``size`` equal parts of each box along each axis."""
    parts = (torch.arange(size, device=boxes.device) + 0.5) / size
    low, extent = boxes[:, :2, None], (boxes[:, 2:] - boxes[:, :2])[:, :, None]
    places = low + extent * parts
    return places[:, 0], places[:, 1]
