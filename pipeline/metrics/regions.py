"""Scores that weigh areas: aggregated Jaccard in four readings, panoptic quality, pixel Dice.

Each gives the sums it is made of, which add over images, and the value of one image. Overlapping objects count
with their whole masks; nothing is flattened here.
"""

import numpy as np

from pipeline.errors import BadArgument
from pipeline.metrics.matching import highest_iou, largest_intersection, match, match_by_total_iou
from pipeline.metrics.overlap import Overlap
from pipeline.metrics.precision import ratio

AJI_VARIANTS = ("kumar", "author", "used_once", "plus")
"""Readings of the aggregated Jaccard index; ``kumar`` is the one we report as AJI."""


def aji(overlap: Overlap, *, variant: str = "kumar") -> float:
    """Aggregated Jaccard index of one image; both empty 1, one empty 0."""
    return float(ratio(*aji_sums(overlap, variant=variant)))


def aji_sums(overlap: Overlap, *, variant: str = "kumar") -> tuple[int, int]:
    """Return the intersection and the union of AJI, pixels that add over images.

    `kumar`: each truth object takes the prediction with the best IoU, which others may take too. `author`: the
    one with the largest intersection, likewise. `used_once`: best IoU among those not yet taken, in order of the
    truth ids. `plus`: one-to-one with the largest total IoU.
    """
    pairs, chosen = overlap.pairs, _partners(overlap, variant)
    shared = int(pairs.pixels[chosen].sum())
    areas = overlap.truth_areas[pairs.truth[chosen]] + overlap.prediction_areas[pairs.prediction[chosen]]
    alone = np.delete(overlap.truth_areas, pairs.truth[chosen]).sum()
    unused = np.delete(overlap.prediction_areas, pairs.prediction[chosen]).sum()
    return shared, int(areas.sum() - shared + alone + unused)


def panoptic_sums(overlap: Overlap) -> tuple[int, float]:
    """Return the matches with IoU strictly above 0.5, and the sum of their IoUs."""
    matching = match(overlap, 0.5, strict=True)
    return matching.iou.size, float(matching.iou.sum())


def panoptic_quality(overlap: Overlap) -> tuple[float, float, float]:
    """PQ, SQ and RQ of one image (one class); both empty 1, no match 0."""
    matched, total = panoptic_sums(overlap)
    objects = overlap.n_truth + overlap.n_prediction
    quality = ratio(total, matched, empty=float(objects == 0))
    recognition = ratio(2 * matched, objects)
    return float(quality * recognition), float(quality), float(recognition)


def dice(overlap: Overlap) -> float:
    """Pixel Dice of the unions of the objects; both empty 1."""
    return float(ratio(2 * overlap.both_pixels, overlap.truth_pixels + overlap.prediction_pixels))


def _partners(overlap: Overlap, variant: str) -> np.ndarray:
    """Return positions in the pairs, at most one per truth object."""
    if variant == "kumar":
        return highest_iou(overlap)
    if variant == "author":
        return largest_intersection(overlap)
    if variant == "used_once":
        return _each_once(overlap)
    if variant == "plus":
        return match_by_total_iou(overlap).pair
    raise BadArgument(f"variant: expected one of {AJI_VARIANTS}, got {variant!r}")


def _each_once(overlap: Overlap) -> np.ndarray:
    pairs = overlap.pairs
    order = np.lexsort((pairs.prediction, -pairs.iou, pairs.truth))
    used, served, chosen = set(), set(), []
    for position, truth, prediction in zip(
        order.tolist(), pairs.truth[order].tolist(), pairs.prediction[order].tolist()
    ):
        if truth not in served and prediction not in used:
            served.add(truth)
            used.add(prediction)
            chosen.append(position)
    return np.array(chosen, np.int64)
