"""Boxes: anchors, corrections, intersections and non-maximum suppression.

Boxes are float ``(n, 4)`` as ``(y0, x0, y1, x1)`` in pixels, where pixel p covers p to p + 1. It knows no network.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree

MOST_GROWTH = float(np.log(1000 / 16))
"""Largest logarithm by which a correction may stretch a box, as in the authors' code."""


def anchor_boxes(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    *,
    cells: Sequence[float],
    ratios: Sequence[float],
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Return the anchors ``(n, 4)`` of levels with ``sizes`` rows and columns: row by row, cell by cell.

    ``cells``: edges of square anchors in cells of their level; ``ratios``: height over width at the same area.
    """
    edges = torch.tensor([[c * r**0.5, c / r**0.5] for c in cells for r in ratios], device=device)
    levels = []
    for (rows, columns), stride in zip(sizes, strides, strict=True):
        y, x = ((torch.arange(n, device=device) + 0.5) * stride for n in (rows, columns))
        centres = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 1, 2)
        half = edges * stride / 2
        levels.append(torch.cat([centres - half, centres + half], -1).reshape(-1, 4))
    return torch.cat(levels)


def corrections(boxes: torch.Tensor, truth: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Return the corrections ``(n, 4)`` that turn ``boxes`` into ``truth``: shift over edge, logarithm of growth."""
    edges, true_edges = boxes[:, 2:] - boxes[:, :2], truth[:, 2:] - truth[:, :2]
    shift = (truth[:, :2] + true_edges / 2 - boxes[:, :2] - edges / 2) / edges
    return torch.cat([shift, (true_edges / edges).log()], 1) * shift.new_tensor(weights)


def corrected(boxes: torch.Tensor, deltas: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Return the boxes with corrections applied; the inverse of ``corrections``."""
    deltas = deltas / deltas.new_tensor(weights)
    edges = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + edges / 2 + deltas[:, :2] * edges
    half = edges * deltas[:, 2:].clamp(max=MOST_GROWTH).exp() / 2
    return torch.cat([centres - half, centres + half], 1)


def clipped(boxes: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Return the boxes cut to an image of ``shape`` (y, x)."""
    most = boxes.new_tensor([*shape, *shape])
    return torch.minimum(boxes.clamp(min=0), most)


def iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union ``(n, m)`` of boxes ``(n, 4)`` with boxes ``(m, 4)``."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (areas(first)[:, None] + areas(second)[None] - shared).clamp(min=1e-6)


def areas(boxes: torch.Tensor) -> torch.Tensor:
    """Return the areas ``(n,)`` in square pixels."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def suppress_boxes(boxes: np.ndarray, scores: np.ndarray, *, threshold: float) -> np.ndarray:
    """Return the indices of the boxes that remain after non-maximum suppression, best score first.

    In the order of their scores (ties: the lower index), a box that remains removes those whose intersection over
    union with it is larger than ``threshold``.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = boxes[order]
    first, second = close_pairs(ordered, threshold=threshold)
    low = np.maximum(ordered[first, :2], ordered[second, :2])
    high = np.minimum(ordered[first, 2:], ordered[second, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    size = (ordered[:, 2:] - ordered[:, :2]).prod(1)
    alike = shared > threshold * (size[first] + size[second] - shared)
    kept: np.ndarray = order[survivors(len(order), first[alike], second[alike])]
    return kept


def close_pairs(boxes: np.ndarray, *, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (i, j), i < j, among which are all whose intersection over union exceeds ``threshold``.

    Such boxes have longest edges whose ratio is at least t, and along each axis centres no farther apart than
    ``(1 - t) / (1 + t)`` of the longer edge. So boxes are compared by size, or a single large one would have all
    others compared with each other.
    """
    edges = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=1e-6)
    octave, further = np.floor(np.log2(edges)).astype(np.int64), int(np.ceil(-np.log2(threshold)))
    pairs = [np.zeros((0, 2), np.int64)]
    for smallest in np.unique(octave):
        alike = np.flatnonzero((octave >= smallest) & (octave <= smallest + further))
        reach = edges[alike].max() * (1 - threshold) / (1 + threshold) + 1e-3
        centres = (boxes[alike, :2] + boxes[alike, 2:]) / 2
        close = alike[cKDTree(centres).query_pairs(reach, p=np.inf, output_type="ndarray")]
        pairs.append(close[octave[close].min(1) == smallest])
    first, second = np.sort(np.concatenate(pairs), axis=1).T
    return first, second


def survivors(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the indices that remain where i removes j for every pair (i, j), i < j, if i itself remains.

    The answer is that of going through the indices one by one: each round settles at least one more of them.
    """
    alive = np.ones(count, bool)
    while True:
        removed = np.zeros(count, bool)
        removed[second[alive[first]]] = True
        if np.array_equal(~removed, alive):
            return np.flatnonzero(alive)
        alive = ~removed
