"""The worked case of docs/metrics.md, the examples of the papers, and what empty images score."""

from math import log2

import numpy as np
import pytest

from pipeline.errors import BadArgument
from pipeline.metrics.evaluation import evaluate_dataset, evaluate_image
from pipeline.metrics.overlap import Overlap, overlap, prediction_only, truth_only
from pipeline.metrics.partitions import (
    adapted_rand_error,
    adjusted_rand_index,
    flatten,
    variation_of_information,
)
from pipeline.metrics.precision import (
    best_dice,
    count_difference,
    mean_average_precision,
    sorted_ap,
    sorted_ap_ious,
    symmetric_best_dice,
)
from pipeline.metrics.regions import AJI_VARIANTS, aji, dice, panoptic_quality
from pipeline.stack import stack_from_masks

SHAPE = (12, 24)


def box(y: int, x: int, height: int, width: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y : y + height, x : x + width] = True
    return mask


@pytest.fixture(scope="module")
def case() -> Overlap:
    """Return the worked case: A and B cross, C and D touch, E is alone; a, b, c, s are predicted."""
    a, b = box(2, 1, 2, 10), box(0, 5, 8, 2)
    c, d, e = box(6, 12, 4, 4), box(6, 16, 4, 5), box(0, 16, 3, 4)
    truth = stack_from_masks([a, b, c, d, e], SHAPE)
    prediction = stack_from_masks([a, b & ~a, c | d, box(9, 1, 2, 3)], SHAPE)
    return overlap(truth, prediction)


def test_worked_case_intersections(case):
    assert case.truth_areas.tolist() == [20, 16, 16, 20, 12]
    assert case.truth_unshared_areas.tolist() == [16, 12, 16, 20, 12]
    assert case.prediction_areas.tolist() == [20, 12, 36, 6]
    pairs = case.pairs
    got = dict(zip(zip(pairs.truth.tolist(), pairs.prediction.tolist()), pairs.iou.tolist()))
    assert got == {(0, 0): 1, (1, 0): 4 / 32, (1, 1): 0.75, (2, 2): 16 / 36, (3, 2): 20 / 36}


def test_worked_case_scores(case):
    row = evaluate_image(case)
    together, split, merged, apart = 41_768, 2_520, 5_616, 32_752
    expected_pairs = (together + split) * (split + apart) + (together + merged) * (merged + apart)
    precision = {"AP_0.5": 3 / 6, "AP_0.6": 2 / 7, "AP_0.7": 2 / 7, "AP_0.8": 1 / 8, "AP_0.9": 1 / 8}
    regions = {"AJI": 68 / 126, "AJI_author": 68 / 126, "AJI_used_once": 48 / 110, "AJI_plus": 52 / 106}
    expected = {
        **precision,
        "meanAP": 37 / 140,
        "AP_0.55": 3 / 6,
        "AP_0.75": 2 / 7,
        "AP_0.95": 1 / 8,
        "precision_0.5": 3 / 4,
        "recall_0.5": 3 / 5,
        "F1_0.5": 6 / 9,
        **regions,
        "SQ": (1 + 3 / 4 + 5 / 9) / 3,
        "RQ": 2 / 3,
        "PQ": (1 + 3 / 4 + 5 / 9) / 4.5,
        "dice": 136 / 154,
        "SBD": (1 + 24 / 28 + 32 / 52 + 40 / 56) / 5,
        "DiC": -1,
        "absDiC": 1,
        "sortedAP": 5 / 9 / 2 + (7 / 36) * (1 / 2 + 2 / 7) / 2 + (1 / 4) * (2 / 7 + 1 / 8) / 2,
        "VOI_split": (4 * log2(4) + 12 * log2(4 / 3)) / 80,
        "VOI_merge": (16 * log2(5 / 4) + 4 * log2(5) + 16 * log2(9 / 4) + 20 * log2(9 / 5)) / 80,
        "ARAND": 1 - 1136 / 1568,
        "ARI": 2 * (together * apart - split * merged) / expected_pairs,
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_worked_case_kinds(case):
    result = evaluate_dataset([("case", case, {})])
    assert list(result.matches.itertuples(index=False, name=None)) == [
        ("case", 1, 1, 1.0, "match", "both"),
        ("case", 2, 2, 0.75, "match", "both"),
        ("case", 3, 3, 16 / 36, "merged", "truth"),
        ("case", 4, 3, 20 / 36, "match", "both"),
        ("case", 5, 0, 0.0, "missed", "truth"),
        ("case", 0, 4, 0.0, "spurious", "prediction"),
    ]


def test_single_scores_are_those_of_the_row(case):
    row = evaluate_image(case)
    assert [aji(case, variant=v) for v in AJI_VARIANTS] == [
        row[name] for name in ("AJI", "AJI_author", "AJI_used_once", "AJI_plus")
    ]
    assert panoptic_quality(case) == (row["PQ"], row["SQ"], row["RQ"])
    assert (dice(case), symmetric_best_dice(case), count_difference(case)) == (row["dice"], row["SBD"], -1)
    assert variation_of_information(case) == (row["VOI_split"], row["VOI_merge"])
    assert adapted_rand_error(case) == row["ARAND"]
    assert adjusted_rand_index(flatten(case)) == row["ARI"]
    assert sorted_ap(sorted_ap_ious(case), case.n_truth, case.n_prediction) == row["sortedAP"]
    assert best_dice(case)[1] == pytest.approx((1 + 24 / 28 + 40 / 56 + 0) / 4)


def test_one_blob_over_four_tiles():
    truth = np.kron([[1, 2], [3, 4]], np.ones((5, 5), int))[None]
    row = evaluate_image(overlap(truth, np.ones_like(truth)))
    assert row["AP_0.5"] == row["AP_author_0.5"] == 0
    assert (row["AJI"], row["AJI_author"]) == (0.25, 0.25)
    assert row["AJI_used_once"] == row["AJI_plus"] == pytest.approx(1 / 7)
    assert (row["truth_merged"], row["prediction_merged"]) == (4, 1)


def test_image_sized_blob_over_overlapping_squares():
    shape = (40, 40)
    truth = stack_from_masks([box(5, 5, 20, 20, shape), box(15, 15, 20, 20, shape)], shape)
    near = [box(5, 5, 18, 20, shape), box(17, 15, 18, 20, shape), box(0, 0, 40, 40, shape)]
    row = evaluate_image(overlap(truth, stack_from_masks(near, shape)))
    assert row["AJI_author"] == pytest.approx(0.204, abs=5e-4)
    assert row["AJI"] == pytest.approx(0.300)
    assert row["AP_0.9"] == pytest.approx(2 / 3)
    assert row["AP_author_0.5"] == 0


def test_flattening_gives_the_crossing_to_the_smaller_object():
    wide, narrow = box(2, 1, 2, 10), box(0, 5, 8, 2)
    both = overlap(stack_from_masks([wide, narrow], SHAPE), stack_from_masks([wide, narrow], SHAPE))
    table = flatten(both)
    assert dict(zip(table.truth.tolist(), table.pixels.tolist())) == {0: 288 - 32, 1: 16, 2: 16}
    assert table.truth.tolist() == table.prediction.tolist()


def test_mean_ap_for_training(case):
    stacks = [np.zeros((1, 4, 4), np.uint32), np.ones((1, 4, 4), np.uint32)]
    assert mean_average_precision([(stacks[1], stacks[1])]) == 1
    assert mean_average_precision([(stacks[1], stacks[0]), (stacks[1], stacks[1])]) == 0.5
    assert mean_average_precision([(stacks[0], stacks[1]), (stacks[1], stacks[1])]) == 0.5
    assert mean_average_precision([(stacks[0], stacks[0])]) == 1
    assert mean_average_precision([]) == 1


ONES = ("AP_0.5", "AP_author_0.9", "meanAP", "precision_0.5", "recall_0.5", "F1_0.5", "AJI", "AJI_author")
ONES = (*ONES, "AJI_used_once", "AJI_plus", "PQ", "SQ", "RQ", "dice", "SBD", "sortedAP")


def test_both_empty():
    row = evaluate_image(overlap(*np.zeros((2, 1, 4, 4), np.uint32)))
    assert {name: row[name] for name in (*ONES, "ARI")} == dict.fromkeys((*ONES, "ARI"), 1)
    zeros = ("ARAND", "VOI_split", "VOI_merge", "DiC", "n_truth", "n_prediction")
    assert {name: row[name] for name in zeros} == dict.fromkeys(zeros, 0)


@pytest.mark.parametrize("one_sided", [truth_only, prediction_only])
def test_one_side_empty(one_sided):
    stack = np.zeros((1, 4, 4), np.uint32)
    stack[0, :2, :2] = 1
    row = evaluate_image(one_sided(stack))
    assert {name: row[name] for name in (*ONES, "ARI")} == dict.fromkeys((*ONES, "ARI"), 0)
    # Over truth pixels, one object whose pixels are all unpredicted is one segment on both sides.
    assert row["ARAND"] == (1 if one_sided is prediction_only else 0)
    assert row["DiC"] == (1 if one_sided is prediction_only else -1)


def test_bad_variant(case):
    with pytest.raises(BadArgument, match=r"'kumar'.*'best'"):
        aji(case, variant="best")
