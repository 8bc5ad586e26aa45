"""Scores that compare partitions of the pixels: variation of information and the Rand family.

They are defined on label images, so overlaps are flattened first: a pixel that several objects of one side hold
goes to the smallest of them (ties: the smallest id), because the larger one survives the loss. Areas decide that,
so it needs the whole image and not a tile of it.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.metrics.overlap import Overlap
from pipeline.metrics.precision import ratio


@dataclass(frozen=True, kw_only=True, eq=False)
class Contingency:
    """How many pixels each truth segment shares with each predicted segment, after flattening."""

    truth: np.ndarray
    """``(n,)`` 0 for background, else 1 + index into ``Overlap.truth_ids``."""
    prediction: np.ndarray
    """``(n,)`` the same for predictions."""
    pixels: np.ndarray
    """``(n,)`` int64, positive."""


def flatten(overlap: Overlap) -> Contingency:
    """Return the contingency of the two label images that are left when overlaps go to the smallest object."""
    truth = _smallest(overlap.truth_atoms, overlap.truth_ids, overlap.truth_areas)
    prediction = _smallest(overlap.prediction_atoms, overlap.prediction_ids, overlap.prediction_areas)
    width = overlap.n_prediction + 1
    keys, index = np.unique(truth * width + prediction, return_inverse=True)
    pixels = np.bincount(index, weights=overlap.pixels, minlength=keys.size).astype(np.int64)
    return Contingency(truth=keys // width, prediction=keys % width, pixels=pixels)


def information_sums(table: Contingency) -> tuple[float, float, int]:
    """Return (bits x pixels of VOI split, the same of VOI merge, pixels): over the pixels of the truth objects.

    Truth background is left out; predicted background is one ordinary segment (as in scikit-image).
    """
    table = _on_truth(table)
    joint = table.pixels.astype(float)
    by_truth = np.bincount(table.truth, joint)[table.truth] if joint.size else joint
    by_prediction = np.bincount(table.prediction, joint)[table.prediction] if joint.size else joint
    split = float(np.sum(joint * np.log2(by_truth / joint)))
    merge = float(np.sum(joint * np.log2(by_prediction / joint)))
    return split, merge, int(table.pixels.sum())


def variation_of_information(overlap: Overlap) -> tuple[float, float]:
    """VOI split H(prediction | truth) and VOI merge H(truth | prediction), bits; both 0 without truth."""
    split, merge, pixels = information_sums(flatten(overlap))
    return float(ratio(split, pixels, empty=0.0)), float(ratio(merge, pixels, empty=0.0))


def rand_sums(table: Contingency) -> tuple[float, float]:
    """Return the sums whose quotient is 1 - ARAND: ordered pixel pairs joined in both, and mean of either."""
    table = _on_truth(table)
    pixels = int(table.pixels.sum())
    both = _squares(table.pixels) - pixels
    either = sum(
        _squares(np.bincount(side, table.pixels)) - pixels for side in (table.truth, table.prediction)
    )
    return float(both), either / 2


def adapted_rand_error(overlap: Overlap) -> float:
    """ARAND, 1 - F-score of the joined pixel pairs over truth pixels; without truth 0 if nothing is predicted."""
    both, either = rand_sums(flatten(overlap))
    return float(rand_error(both, either, overlap.truth_pixels, overlap.n_prediction))


def rand_error(both: float, either: float, truth_pixels: float, n_prediction: float) -> float:
    """ARAND from its sums, numbers or arrays."""
    nothing_right = np.equal(truth_pixels, 0) & np.greater(n_prediction, 0)
    return 1 - ratio(both, either, empty=np.where(nothing_right, 0.0, 1.0))


def adjusted_rand_index(table: Contingency, *, foreground: bool = False) -> float:
    """ARI over all pixels, background being one segment, or over truth pixels only; 1 for equal partitions."""
    table = _on_truth(table) if foreground else table
    total = int(table.pixels.sum())
    joint = _squares(table.pixels)
    truth = _squares(np.bincount(table.truth, table.pixels))
    prediction = _squares(np.bincount(table.prediction, table.pixels))
    split, merged = truth - joint, prediction - joint
    if split == 0 and merged == 0:
        return 1.0
    together, apart = joint - total, total * total - truth - prediction + joint
    expected = (together + split) * (split + apart) + (together + merged) * (merged + apart)
    return 2 * (together * apart - split * merged) / expected


def _smallest(atoms: np.ndarray, ids: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Return for each atom 1 + index of the smallest object that holds it, 0 for none."""
    chosen = np.zeros(atoms.shape[1], np.int64)
    least = np.full(atoms.shape[1], np.iinfo(np.int64).max)
    for row in atoms:  # ids descend, so <= leaves ties to the smallest id
        held = np.flatnonzero(row)
        index = np.searchsorted(ids, row[held])
        better = areas[index] <= least[held]
        least[held[better]] = areas[index[better]]
        chosen[held[better]] = index[better] + 1
    return chosen


def _on_truth(table: Contingency) -> Contingency:
    inside = table.truth > 0
    return Contingency(
        truth=table.truth[inside], prediction=table.prediction[inside], pixels=table.pixels[inside]
    )


def _squares(counts: np.ndarray) -> int:
    """Sum of squares as a Python integer: products of these pass 64 bits in a large image."""
    values = np.asarray(counts).astype(np.int64)
    return int((values * values).sum())
