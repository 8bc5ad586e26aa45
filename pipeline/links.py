"""Links between pieces of neighbouring blocks that belong to one object.

`touch` is exact: adjacent pixels of one network layer are the same object, so it needs no overlap and no threshold,
and objects may have any size. `match` is for methods that number objects: neighbouring tiles read the same pixels, on
which their objects are compared. Ambiguous matches are not joined but counted, and so are matches that would bring two
objects of one tile together (`compatible`): the tile has seen both and told them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

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
    scores: np.ndarray
    """IoU of each pair on the shared pixels, float64."""
    ambiguous: np.ndarray
    """Local ids of the first tile whose best partner is not unique."""


def match_links(first: np.ndarray, second: np.ndarray, *, iou: float = MATCH_IOU) -> Matches:
    """Match the objects of two label stacks ``(L, y, x)`` that show the same pixels, by mutual best IoU.

    Layer indices are ignored, because an object may be on different layers in the two tiles. Containment is no
    criterion, because it would merge a small object with a large one below it.
    """
    a, b, score = _scores(first, second)
    if not len(a):
        return Matches(np.zeros((0, 2), np.int64), np.zeros(0), np.zeros(0, np.int64))
    best_a, ties_a = _best(a, score, int(first.max()) + 1)
    best_b, ties_b = _best(b, score, int(second.max()) + 1)
    good = (score >= iou) & (score == best_a[a]) & (score == best_b[b])
    tied = good & (ties_a[a] | ties_b[b])
    clear = good & ~tied
    return Matches(np.stack([a, b], axis=1)[clear], score[clear], np.unique(a[tied]))


def alike(first: np.ndarray, second: np.ndarray, *, iou: float = MATCH_IOU) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of ids of two label stacks ``(L, y, x)`` of the same pixels whose IoU is at least ``iou``.

    An id may be in several pairs.
    """
    a, b, score = _scores(first, second)
    return a[score >= iou], b[score >= iou]


def compatible(links: np.ndarray, scores: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """Return bool ``(n,)``: which links can hold together so that no object has two pieces of one tile.

    Objects a and b of a tile can be linked by a chain through its neighbours: a matches x, x matches y, y matches b.
    The links of such groups are accepted one by one, in descending order of score (ties: in the order of their
    pieces), and those that would complete a chain are refused. The answer does not depend on the order of the links.

    Args:
        links: ``(n, 2)`` pieces that match.
        scores: ``(n,)`` IoU of each match.
        tile: number of the tile of each piece.
    """
    count = len(tile)
    graph = csr_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(count, count))
    number, group = connected_components(graph, directed=False)
    pieces = np.lexsort((tile, group))
    repeated = (np.diff(group[pieces]) == 0) & (np.diff(tile[pieces]) == 0)
    doubtful = np.zeros(number, bool)
    doubtful[group[pieces[1:][repeated]]] = True
    accepted = ~doubtful[group[links[:, 0]]]
    order = np.lexsort((links[:, 1], links[:, 0], -scores))
    order = order[~accepted[order]]
    accepted[order] = _accepted(links[order].tolist(), tile)
    return accepted


def _accepted(links: Sequence[tuple[int, int]], tile: np.ndarray) -> list[bool]:
    """Go through links in order; refuse those between two groups of pieces that have a tile in common."""
    groups: dict[int, dict[int, int]] = {}  # the pieces of each piece's group, by their tiles
    accepted = []
    for pair in links:
        first, second = (groups.setdefault(piece, {int(tile[piece]): piece}) for piece in pair)
        accepted.append(first is second or first.keys().isdisjoint(second))
        if first is not second and accepted[-1]:
            first |= second
            groups |= dict.fromkeys(second.values(), first)
    return accepted


def _scores(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of ids that share pixels, and their IoU."""
    a, b, pixels = _shared(first, second)
    area_a, area_b = np.bincount(first.reshape(-1)), np.bincount(second.reshape(-1))
    return a, b, pixels / (area_a[a] + area_b[b] - pixels)


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
