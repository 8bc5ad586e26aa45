"""Who is whose partner: truth objects against predictions, by the rule each metric asks for.

`canonical` is one-to-one: as many pairs at or above an IoU as possible, then the largest total IoU. `author` is
the rule of the layering paper's own evaluation: the prediction with the largest intersection, which several truth
objects may share. It works on the sparse pairs, without pixels or scores.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from pipeline.errors import BadArgument
from pipeline.metrics.overlap import Overlap

ASSIGNMENTS = ("canonical", "author")
"""Names of the rules by which a pair counts as a match."""

DENSE_CELLS = 1 << 16
"""Largest block of competing objects (truths times predictions) that is solved as a dense matrix."""

ROUNDS = 20
"""How often the uncontested pairs are taken out before the rest goes to the solver; saves time only."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Matching:
    """Matched pairs in ascending order of the truth index; under ``author`` a prediction may come up twice."""

    truth: np.ndarray
    """``(n,)`` index into ``Overlap.truth_ids``."""
    prediction: np.ndarray
    """``(n,)`` index into ``Overlap.prediction_ids``."""
    iou: np.ndarray
    """``(n,)`` intersection over union."""
    pair: np.ndarray
    """``(n,)`` position in ``Overlap.pairs``."""


def match(
    overlap: Overlap, threshold: float = 0.5, *, assignment: str = "canonical", strict: bool = False
) -> Matching:
    """Match objects whose IoU is at least ``threshold``, or above it if ``strict``; the threshold is above 0."""
    if not 0 < threshold <= 1:
        raise BadArgument(f"threshold: expected an IoU in (0, 1], got {threshold!r}")
    if assignment not in ASSIGNMENTS:
        raise BadArgument(f"assignment: expected one of {ASSIGNMENTS}, got {assignment!r}")
    iou = overlap.pairs.iou
    good = iou > threshold if strict else iou >= threshold
    if assignment == "author":
        chosen = largest_intersection(overlap)
        return _matching(overlap, chosen[good[chosen]])
    edges = np.flatnonzero(good)
    return _matching(overlap, edges[_assigned(overlap, edges, _cardinality_first(iou[edges]))])


def match_by_total_iou(overlap: Overlap, floor: float = 0.0) -> Matching:
    """Match one-to-one so that the sum of the IoUs is largest, over pairs that meet with IoU >= ``floor``."""
    edges = np.flatnonzero(overlap.pairs.iou >= floor)
    return _matching(overlap, edges[_assigned(overlap, edges, _total_first(overlap.pairs.iou[edges]))])


def largest_intersection(overlap: Overlap) -> np.ndarray:
    """Return for each truth object that meets a prediction the pair with most pixels; ties: the largest id."""
    pairs = overlap.pairs
    return _last_by_truth(pairs.truth, np.lexsort((pairs.prediction, pairs.pixels, pairs.truth)))


def highest_iou(overlap: Overlap) -> np.ndarray:
    """Return for each truth object that meets a prediction the pair with the best IoU; ties: the smallest id."""
    pairs = overlap.pairs
    return _last_by_truth(pairs.truth, np.lexsort((-pairs.prediction, pairs.iou, pairs.truth)))


def _matching(overlap: Overlap, chosen: np.ndarray) -> Matching:
    pairs = overlap.pairs
    return Matching(
        truth=pairs.truth[chosen], prediction=pairs.prediction[chosen], iou=pairs.iou[chosen], pair=chosen
    )


def _last_by_truth(truth: np.ndarray, order: np.ndarray) -> np.ndarray:
    return order[np.flatnonzero(np.diff(truth[order], append=-1))]


def _total_first(iou: np.ndarray) -> np.ndarray:
    """Weights under which the total IoU decides, and among equal totals more and evener pairs.

    Without the square the IoUs found could depend on the order of the ids.
    """
    return iou - 1e-6 * iou**2


def _cardinality_first(iou: np.ndarray) -> np.ndarray:
    """Weights under which one more pair outweighs any gain in IoU, and the total IoU decides between the rest."""
    return 1 + _total_first(iou) / (4 * max(iou.size, 1))


def _assigned(overlap: Overlap, edges: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return ascending positions in ``edges`` of the one-to-one choice with the largest total weight."""
    truth, prediction = overlap.pairs.truth[edges], overlap.pairs.prediction[edges]
    chosen, left = _without_rival(truth, prediction, weight)
    for block in _blocks(truth[left], prediction[left]):
        inside = left[block]
        chosen.append(inside[_solve(truth[inside], prediction[inside], weight[inside])])
    return np.sort(np.concatenate(chosen))


def _without_rival(
    truth: np.ndarray, prediction: np.ndarray, weight: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Take the edges that outweigh the best other edges of both ends together: no optimum is lost by that.

    Such an edge displaces at most one edge at each end. Nearly all edges of a fair prediction go this way, so
    that what is left falls into small blocks. Returns (chosen positions, positions still open).
    """
    chosen, left = [np.zeros(0, np.int64)], np.arange(weight.size)
    for _ in range(ROUNDS):
        ends = truth[left], prediction[left]
        unrivalled = weight[left] > _best_other(ends[0], weight[left]) + _best_other(ends[1], weight[left])
        if not unrivalled.any():
            break
        chosen.append(left[unrivalled])
        left = left[~(np.isin(ends[0], ends[0][unrivalled]) | np.isin(ends[1], ends[1][unrivalled]))]
    return chosen, left


def _best_other(end: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return for each edge the largest weight among the other edges at this end, 0 if it is alone."""
    order = np.lexsort((weight, end))
    heads = np.flatnonzero(np.diff(end[order], append=-1))
    sorted_weight = weight[order]
    has_second = heads > np.concatenate([[-1], heads[:-1]]) + 1
    second = np.where(has_second, sorted_weight[np.maximum(heads - 1, 0)], 0.0)
    best = np.repeat(sorted_weight[heads], np.diff(heads, prepend=-1))
    best[heads] = second
    other = np.empty_like(best)
    other[order] = best
    return other


def _blocks(truth: np.ndarray, prediction: np.ndarray) -> list[np.ndarray]:
    """Split edges into connected blocks: positions by block, ascending."""
    if not truth.size:
        return []
    n_truth = int(truth.max()) + 1
    size = n_truth + int(prediction.max()) + 1
    graph = coo_array((np.ones(truth.size), (truth, n_truth + prediction)), shape=(size, size))
    block = connected_components(graph, directed=False)[1][truth]
    order = np.argsort(block, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(block[order])) + 1)


def _solve(truth: np.ndarray, prediction: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Solve one block exactly; dense where small, sparse (Jonker-Volgenant) where large."""
    rows, row = np.unique(truth, return_inverse=True)
    columns, column = np.unique(prediction, return_inverse=True)
    shape = rows.size, columns.size
    if rows.size * columns.size > DENSE_CELLS:
        first, second = _sparse_assignment(row, column, weight, shape)
        chosen = np.isin(row * columns.size + column, first * columns.size + second)
        return np.flatnonzero(chosen)
    gain = np.zeros(shape)
    gain[row, column] = weight
    first, second = linear_sum_assignment(gain, maximize=True)
    edge = np.full(shape, -1)
    edge[row, column] = np.arange(weight.size)
    picked = edge[first, second]
    return picked[picked >= 0]


def _sparse_assignment(
    row: np.ndarray, column: np.ndarray, weight: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Assign rows to columns; a private spare column per row lets a row go without, at the highest cost."""
    spare = np.arange(shape[0])
    highest = float(weight.max()) + 1.0
    cost = coo_array(
        (
            np.concatenate([highest - weight, np.full(shape[0], highest)]),
            (np.concatenate([row, spare]), np.concatenate([column, shape[1] + spare])),
        ),
        shape=(shape[0], shape[1] + shape[0]),
    ).tocsr()
    first, second = min_weight_full_bipartite_matching(cost)
    real = second < shape[1]
    return first[real], second[real]
