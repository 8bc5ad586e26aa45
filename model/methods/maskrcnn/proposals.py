"""Proposals: the anchors that most resemble objects, corrected, clipped and without duplicates.

Limits are per block of 256 x 256 pixels, so that a large tile may propose as densely as a small one.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from model.methods.maskrcnn.boxes import anchor_boxes, clipped, corrected, suppress_boxes
from model.networks.regions import Proposed, RegionShape

BLOCK_PX = 256
"""Edge of the square for which a limit holds."""
PLAIN = (1.0, 1.0, 1.0, 1.0)
"""Weights of the corrections of anchors."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many proposals there may be, and how alike."""

    before: int
    """Anchors of each level that are corrected, per block."""
    after: int
    """Proposals in all, per block."""
    iou: float
    """Proposals of a level with a larger intersection over union are duplicates."""


def per_block(count: int, shape: tuple[int, int]) -> int:
    """Return a limit for an image of ``shape`` (y, x) from one per block of 256 x 256 pixels."""
    return max(count, math.ceil(count * shape[0] * shape[1] / BLOCK_PX**2))


def anchors_of(shape: RegionShape, proposed: Proposed) -> torch.Tensor:
    """Return the anchors ``(n, 4)`` in the order of what the network says of them."""
    return anchor_boxes(
        proposed.sizes,
        shape.strides,
        cells=shape.anchor_cells,
        ratios=shape.anchor_ratios,
        device=proposed.objectness.device,
    )


@torch.no_grad()
def propose(
    shape: RegionShape, proposed: Proposed, *, size: tuple[int, int], limits: Limits
) -> list[torch.Tensor]:
    """Return the proposals ``(n, 4)`` of every image of ``size`` (y, x), the likeliest first."""
    anchors = anchors_of(shape, proposed)
    counts = [rows * columns * shape.anchors for rows, columns in proposed.sizes]
    return [
        _of_image(objectness, deltas, anchors, counts, size, limits)
        for objectness, deltas in zip(proposed.objectness, proposed.deltas, strict=True)
    ]


def _of_image(
    objectness: torch.Tensor,
    deltas: torch.Tensor,
    anchors: torch.Tensor,
    counts: list[int],
    size: tuple[int, int],
    limits: Limits,
) -> torch.Tensor:
    boxes, scores, first = [], [], 0
    for count in counts:
        best = objectness[first : first + count].topk(min(per_block(limits.before, size), count))
        index = first + best.indices
        kept_boxes = clipped(corrected(anchors[index], deltas[index], PLAIN), size)
        wide = (kept_boxes[:, 2:] - kept_boxes[:, :2]).amin(1) >= 1
        kept_boxes, score = kept_boxes[wide], best.values[wide]
        kept = torch.from_numpy(_kept(kept_boxes, score, limits.iou)).to(kept_boxes.device)
        boxes.append(kept_boxes[kept])
        scores.append(score[kept])
        first += count
    every, of_all = torch.cat(boxes), torch.cat(scores)
    order = of_all.argsort(descending=True, stable=True)
    return every[order[: per_block(limits.after, size)]]


def _kept(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> np.ndarray:
    return suppress_boxes(boxes.double().cpu().numpy(), scores.cpu().numpy(), threshold=threshold)
