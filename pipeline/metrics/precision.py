"""Scores that count objects: average precision and its kin, sorted AP, best Dice, difference in count.

Every formula takes sums, so one image and a whole dataset go through the same line: the pooled value is the formula
of the added sums. Nothing to find and nothing found is 1; only one side empty is 0.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline.metrics.matching import match, match_by_total_iou
from pipeline.metrics.overlap import Overlap, overlap

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The IoU thresholds of the paper's tables; ``meanAP`` is the mean over them."""

DENSE_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""The IoU thresholds of COCO and of the author's validation; ``meanAP_dense`` is the mean over them."""

SORTED_AP_FLOOR = 0.001
"""Least IoU of a pair that takes part in sorted AP."""


def ratio(numerator: Any, denominator: Any, *, empty: Any = 1.0) -> Any:
    """Divide numbers or arrays; ``empty`` where the denominator is 0."""
    nothing = np.equal(denominator, 0)
    return np.where(nothing, empty, np.divide(numerator, np.where(nothing, 1, denominator)))[()]


def average_precision(truth_matched: Any, prediction_matched: Any, n_truth: Any, n_prediction: Any) -> Any:
    """TP / (TP + FP + FN) from counts; the two matched counts differ only where predictions are reused."""
    return ratio(truth_matched, n_truth + n_prediction - prediction_matched)


def precision(matched: Any, n_truth: Any, n_prediction: Any) -> Any:
    """Share of the predictions that are matched; without predictions 1 if there is no truth either, else 0."""
    return ratio(matched, n_prediction, empty=np.where(np.equal(n_truth, 0), 1.0, 0.0))


def recall(matched: Any, n_truth: Any, n_prediction: Any) -> Any:
    """Share of the truth objects that are matched; without truth 1 if nothing is predicted, else 0."""
    return ratio(matched, n_truth, empty=np.where(np.equal(n_prediction, 0), 1.0, 0.0))


def f1(matched: Any, n_truth: Any, n_prediction: Any) -> Any:
    """Harmonic mean of precision and recall."""
    return ratio(2 * matched, n_truth + n_prediction)


def matched_counts(
    overlap: Overlap, threshold: float = 0.5, *, assignment: str = "canonical"
) -> tuple[int, int]:
    """Return how many truth objects and how many distinct predictions are matched at an IoU."""
    matching = match(overlap, threshold, assignment=assignment)
    return matching.truth.size, np.unique(matching.prediction).size


def mean_average_precision(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
    assignment: str = "canonical",
) -> float:
    """Return meanAP of (truth, prediction) label stacks, counts pooled over all of them."""
    overlaps = [overlap(truth, prediction) for truth, prediction in pairs]
    objects = [sum(o.n_truth for o in overlaps), sum(o.n_prediction for o in overlaps)]
    values = []
    for threshold in thresholds:
        matched = [matched_counts(o, threshold, assignment=assignment) for o in overlaps]
        values.append(average_precision(sum(m[0] for m in matched), sum(m[1] for m in matched), *objects))
    return float(np.mean(values))


def sorted_ap_ious(overlap: Overlap) -> np.ndarray:
    """Return the ascending IoUs of the one-to-one matching that sorted AP is made of."""
    return np.sort(match_by_total_iou(overlap, SORTED_AP_FLOOR).iou)


def sorted_ap(ious: np.ndarray, n_truth: Any, n_prediction: Any, *, copies: np.ndarray | None = None) -> Any:
    """Area under AP as a function of the IoU threshold, exact instead of sampled (Chen et al., ICCVW 2023).

    Args:
        ious: ascending IoUs of the matched pairs, ``(m,)``.
        n_truth: number of truth objects, a number or ``(b,)``.
        n_prediction: number of predictions, the same shape.
        copies: how often each pair counts, ``(m,)`` or ``(b, m)``; once if left out.
    """
    weights = np.ones(ious.size) if copies is None else np.asarray(copies, float)
    objects = np.asarray(n_truth + n_prediction, float)[..., None]
    matched = weights.sum(axis=-1, keepdims=True)
    lost = np.concatenate([np.zeros_like(matched), np.cumsum(weights, axis=-1)], axis=-1)
    # AP just before a pair is lost (k pairs lost so far), at each corner of the curve.
    before = _ap_after(lost, matched, objects)
    last = _ap_after(np.maximum(lost - 1, 0), matched, objects)
    width = np.diff(np.concatenate([[0.0], ious, [1.0]]))
    area = (width * (before + last) / 2).sum(axis=-1)
    return np.where(objects[..., 0] == 0, 1.0, np.where(matched[..., 0] == 0, 0.0, area))[()]


def _ap_after(lost: np.ndarray, matched: np.ndarray, objects: np.ndarray) -> np.ndarray:
    return (matched - lost) / np.maximum(objects - matched + lost, 1)


def best_dice(overlap: Overlap) -> tuple[float, float]:
    """Mean best Dice of the truth objects, and of the predictions; 0 for an object that meets nothing."""
    pairs = overlap.pairs
    total = overlap.truth_areas[pairs.truth] + overlap.prediction_areas[pairs.prediction]
    dice = 2 * pairs.pixels / total
    sides = ((pairs.truth, overlap.n_truth), (pairs.prediction, overlap.n_prediction))
    if not overlap.n_truth and not overlap.n_prediction:
        return 1.0, 1.0
    best = []
    for index, size in sides:
        values = np.zeros(max(size, 1))
        np.maximum.at(values, index, dice)
        best.append(float(values.mean()))
    return best[0], best[1]


def symmetric_best_dice(overlap: Overlap) -> float:
    """SBD: the smaller of the two mean best Dice values; both empty 1, one empty 0."""
    return min(best_dice(overlap))


def count_difference(overlap: Overlap) -> int:
    """DiC: predictions minus truth objects."""
    return overlap.n_prediction - overlap.n_truth
