"""The additive sums every score is a formula of: per image, added up over a dataset, resampled by the bootstrap.

``image_sums`` measures one image; ``scores`` turns sums into scores, whether they are numbers or arrays. So a pooled
value, a per-image value and a resampled value cannot disagree about a definition.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.metrics import partitions, precision, regions
from pipeline.metrics.overlap import Overlap
from pipeline.metrics.precision import DENSE_THRESHOLDS, THRESHOLDS, ratio
from pipeline.metrics.taxonomy import Taxonomy, classify, kind_counts

Sums = Mapping[str, Any]
"""Name to number, or to an array with one entry per resample."""


def image_sums(overlap: Overlap, taxonomy: Taxonomy | None = None) -> dict[str, float]:
    """Measure one image; the taxonomy is computed if it is not given."""
    table = partitions.flatten(overlap)
    split, merge, truth_pixels = partitions.information_sums(table)
    both, either = partitions.rand_sums(table)
    matched, quality = regions.panoptic_sums(overlap)
    difference = precision.count_difference(overlap)
    return {
        "images": 1,
        "n_truth": overlap.n_truth,
        "n_prediction": overlap.n_prediction,
        **_match_sums(overlap),
        **_aji_sums(overlap),
        "pq_matched": matched,
        "pq_iou": quality,
        "dice_both": overlap.both_pixels,
        "dice_total": overlap.truth_pixels + overlap.prediction_pixels,
        "sbd": precision.symmetric_best_dice(overlap),
        "dic": difference,
        "abs_dic": abs(difference),
        "voi_split": split,
        "voi_merge": merge,
        "truth_pixels": truth_pixels,
        "rand_both": both,
        "rand_either": either,
        "ari": partitions.adjusted_rand_index(table),
        **kind_counts(taxonomy or classify(overlap)),
    }


def scores(sums: Sums) -> dict[str, Any]:
    """Return every score but sorted AP (which needs the IoUs) under its column name; arrays give arrays."""
    matched, total = sums["pq_matched"], sums["n_truth"] + sums["n_prediction"]
    quality = ratio(sums["pq_iou"], matched, empty=np.where(np.equal(total, 0), 1.0, 0.0))
    recognition = ratio(2 * matched, total)
    return {
        **_precision_scores(sums),
        **{name: ratio(sums[f"{name}_i"], sums[f"{name}_u"]) for name in AJI_COLUMNS.values()},
        "PQ": quality * recognition,
        "SQ": quality,
        "RQ": recognition,
        "dice": ratio(2 * sums["dice_both"], sums["dice_total"]),
        "SBD": ratio(sums["sbd"], sums["images"]),
        "DiC": ratio(sums["dic"], sums["images"]),
        "absDiC": ratio(sums["abs_dic"], sums["images"]),
        "VOI_split": ratio(sums["voi_split"], sums["truth_pixels"], empty=0.0),
        "VOI_merge": ratio(sums["voi_merge"], sums["truth_pixels"], empty=0.0),
        "ARAND": partitions.rand_error(
            sums["rand_both"], sums["rand_either"], sums["truth_pixels"], sums["n_prediction"]
        ),
        "ARI": ratio(sums["ari"], sums["images"]),
    }


AJI_COLUMNS = {"kumar": "AJI", "author": "AJI_author", "used_once": "AJI_used_once", "plus": "AJI_plus"}
"""Variant of AJI to its column; plain AJI is ``kumar``."""


def _match_sums(overlap: Overlap) -> dict[str, int]:
    sums = {}
    for threshold in DENSE_THRESHOLDS:
        sums[f"tp_{threshold}"], _ = precision.matched_counts(overlap, threshold)
        truth, used = precision.matched_counts(overlap, threshold, assignment="author")
        sums[f"author_tp_{threshold}"], sums[f"author_used_{threshold}"] = truth, used
    return sums


def _aji_sums(overlap: Overlap) -> dict[str, int]:
    sums = {}
    for variant, name in AJI_COLUMNS.items():
        sums[f"{name}_i"], sums[f"{name}_u"] = regions.aji_sums(overlap, variant=variant)
    return sums


def _precision_scores(sums: Sums) -> dict[str, Any]:
    objects = sums["n_truth"], sums["n_prediction"]
    by_author = {t: (sums[f"author_tp_{t}"], sums[f"author_used_{t}"]) for t in DENSE_THRESHOLDS}
    canonical = {t: (sums[f"tp_{t}"], sums[f"tp_{t}"]) for t in DENSE_THRESHOLDS}
    scores: dict[str, Any] = {}
    for suffix, matched in (("", canonical), ("_author", by_author)):
        values = {t: precision.average_precision(*pair, *objects) for t, pair in matched.items()}
        scores |= {f"AP{suffix}_{t}": value for t, value in values.items()}
        scores[f"meanAP{suffix}"] = np.mean([values[t] for t in THRESHOLDS], axis=0)
        scores[f"meanAP_dense{suffix}"] = np.mean(list(values.values()), axis=0)
    formulas = (("precision", precision.precision), ("recall", precision.recall), ("F1", precision.f1))
    for name, formula in formulas:
        scores |= {f"{name}_{t}": formula(sums[f"tp_{t}"], *objects) for t in DENSE_THRESHOLDS}
    return scores
