"""Links between pieces of neighbouring blocks that belong to one object.

`touch` is exact: adjacent pixels of one network layer are the same object, so it needs no overlap and no threshold,
and objects may have any size. `match` is for methods that number objects: neighbouring tiles read the same pixels, on
which their objects are compared. Ambiguous matches are not joined but counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.spans import Spans, below_each_other, touching

MATCH_IOU = 0.5
"""Least IoU of two matching objects on the pixels that both tiles read."""


def touch_links(border: Sequence[tuple[Spans, np.ndarray]], offsets: np.ndarray) -> np.ndarray:
    """Pairs of pieces ``(n, 2)``, numbered over all blocks, that are 8-adjacent on one layer across a border."""
    if len(border) < 2:  # A single block has no neighbours.
        return np.zeros((0, 2), np.int64)
    piece = np.concatenate([pieces + offset for (_, pieces), offset in zip(border, offsets)])
    spans = below_each_other([spans_of_block for spans_of_block, _ in border])
    order = np.lexsort((spans.x0, spans.y, spans.layer))
    graph = touching(spans.take(order)).tocoo()
    piece = piece[order]
    pairs = np.stack([piece[graph.coords[0]], piece[graph.coords[1]]], axis=1)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)


@dataclass(frozen=True)
class Matches:
    """Matching objects of two tiles, and ambiguous ones."""

    pairs: np.ndarray
    """``(n, 2)`` local ids (of the first tile, of the second)."""
    ambiguous: np.ndarray
    """Local ids of the first tile whose best partner is not unique."""


def match_links(first: np.ndarray, second: np.ndarray, *, iou: float = MATCH_IOU) -> Matches:
    """Match the objects of two label stacks ``(L, y, x)`` that show the same pixels, by mutual best IoU.

    Layer indices are ignored, because an object may be on different layers in the two tiles. Containment is no
    criterion, because it would merge a small object with a large one below it.
    """
    a, b, pixels = _shared(first, second)
    if not len(a):
        return Matches(np.zeros((0, 2), np.int64), np.zeros(0, np.int64))
    area_a, area_b = np.bincount(first.reshape(-1)), np.bincount(second.reshape(-1))
    score = pixels / (area_a[a] + area_b[b] - pixels)
    best_a, ties_a = _best(a, score, len(area_a))
    best_b, ties_b = _best(b, score, len(area_b))
    good = (score >= iou) & (score == best_a[a]) & (score == best_b[b])
    tied = good & (ties_a[a] | ties_b[b])
    return Matches(np.stack([a, b], axis=1)[good & ~tied], np.unique(a[tied]))


def _shared(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of ids that share pixels, over all pairs of layers, and the number of shared pixels."""
    width = int(second.max(initial=0)) + 1
    codes = [
        one[both].astype(np.int64) * width + other[both]
        for one in first
        for other in second
        if (both := (one > 0) & (other > 0)).any()
    ]
    pairs, pixels = np.unique(np.concatenate(codes or [np.zeros(0, np.int64)]), return_counts=True)
    a, b = np.divmod(pairs, width)
    return a, b, pixels


def _best(ids: np.ndarray, score: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Best score of each id, and whether more than one partner reaches it."""
    best = np.zeros(count)
    np.maximum.at(best, ids, score)
    return best, np.bincount(ids[score == best[ids]], minlength=count) > 1
