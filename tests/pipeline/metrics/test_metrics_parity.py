"""The same numbers as independent implementations, where these can express the case at all."""

import numpy as np
import pytest
from elf.evaluation import symmetric_best_dice_score
from pycocotools import mask as coco
from skimage.metrics import adapted_rand_error as skimage_rand_error
from skimage.metrics import variation_of_information as skimage_voi
from sklearn.metrics import adjusted_rand_score, f1_score
from stardist.matching import matching, matching_dataset

from pipeline.metrics.evaluation import evaluate_dataset, evaluate_image
from pipeline.metrics.overlap import overlap
from pipeline.metrics.partitions import adjusted_rand_index, flatten
from pipeline.metrics.precision import DENSE_THRESHOLDS, best_dice
from pipeline.metrics.regions import dice
from pipeline.stack import masks_of, stack_from_masks

SIDE = 64

ABOVE_HALF = 0.5 + 1e-6
"""Panoptic quality asks for an IoU above 0.5; the oracle's threshold is inclusive."""


def label_image(seed: int) -> np.ndarray:
    """Blocks painted over each other, at least one object, ids with gaps."""
    rng = np.random.default_rng(seed)
    image = np.zeros((SIDE, SIDE), np.int32)
    for label in rng.permutation(np.arange(1, 40))[:12]:
        y, x = rng.integers(0, SIDE - 12, 2)
        image[y : y + rng.integers(3, 18), x : x + rng.integers(3, 18)] = label
    return image


def shaken(image: np.ndarray, seed: int) -> np.ndarray:
    """Shift, drop, merge and split some of the objects, to give all kinds of IoU."""
    rng = np.random.default_rng(seed + 1000)
    found = np.zeros_like(image)
    for label in np.unique(image[image > 0]):
        fate = rng.random()
        mask = np.roll(image == label, rng.integers(-1, 2, 2), axis=(0, 1))
        if fate < 0.1:
            continue
        found[mask] = 3 if fate < 0.2 else label
        if fate > 0.9:
            found[mask & (np.arange(SIDE) > np.argwhere(mask)[:, 1].mean())] = 50 + label
    return found


CASES = [(label_image(seed), shaken(label_image(seed), seed)) for seed in range(8)]
LOOSE = [(label_image(seed), label_image(seed + 100)) for seed in range(3)]


@pytest.mark.parametrize("truth, prediction", CASES + LOOSE)
def test_image_against_stardist(truth, prediction):
    row = evaluate_image(overlap(truth[None], prediction[None]))
    for t in DENSE_THRESHOLDS:
        oracle = matching(truth, prediction, thresh=t)
        assert row[f"AP_{t}"] == pytest.approx(oracle.accuracy, abs=1e-6)
        assert row[f"precision_{t}"] == pytest.approx(oracle.precision, abs=1e-6)
        assert row[f"recall_{t}"] == pytest.approx(oracle.recall, abs=1e-6)
        assert row[f"F1_{t}"] == pytest.approx(oracle.f1, abs=1e-6)
    oracle = matching(truth, prediction, thresh=ABOVE_HALF)
    assert row["PQ"] == pytest.approx(oracle.panoptic_quality, abs=1e-6)
    assert row["SQ"] == pytest.approx(oracle.mean_matched_score, abs=1e-6)


def test_pooled_dataset_against_stardist():
    items = [(str(i), overlap(t[None], p[None]), {}) for i, (t, p) in enumerate(CASES)]
    result = evaluate_dataset(items, resamples=0)
    truths, predictions = zip(*CASES)
    for by_image, values in ((False, result.summary), (True, result.summary["image_mean"])):
        oracle = matching_dataset(
            truths, predictions, thresh=DENSE_THRESHOLDS, by_image=by_image, show_progress=False
        )
        for t, found in zip(DENSE_THRESHOLDS, oracle):
            assert values["AP_dense"][str(t)] == pytest.approx(found.accuracy, abs=1e-6)
        oracle = matching_dataset(
            truths, predictions, thresh=ABOVE_HALF, by_image=by_image, show_progress=False
        )
        assert values["PQ"] == pytest.approx(oracle.panoptic_quality, abs=1e-6)


def test_iou_of_overlapping_masks_against_pycocotools():
    rng = np.random.default_rng(1)
    masks = []
    for _ in range(60):
        mask = np.zeros((SIDE, SIDE), bool)
        y, x = rng.integers(0, SIDE - 10, 2)
        mask[y : y + rng.integers(5, 30), x : x + rng.integers(5, 30)] = True
        masks.append(mask)
    stacks = [stack_from_masks(part, (SIDE, SIDE)) for part in (masks[:30], masks[30:])]
    assert min(len(stack) for stack in stacks) > 3
    truth, prediction = (
        [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for _, mask in masks_of(stack)]
        for stack in stacks
    )
    pairs = overlap(*stacks).pairs
    ours = np.zeros((30, 30))
    ours[pairs.truth, pairs.prediction] = pairs.iou
    np.testing.assert_array_equal(ours, coco.iou(truth, prediction, [0] * 30))


@pytest.mark.parametrize("truth, prediction", CASES + LOOSE)
def test_partitions_against_scikit_image_and_scikit_learn(truth, prediction):
    both = overlap(truth[None], prediction[None])
    row = evaluate_image(both)
    split, merge = skimage_voi(truth, prediction, ignore_labels=(0,))
    assert (row["VOI_split"], row["VOI_merge"]) == (pytest.approx(split), pytest.approx(merge))
    assert row["ARAND"] == pytest.approx(skimage_rand_error(truth, prediction)[0])
    assert row["ARI"] == pytest.approx(adjusted_rand_score(truth.ravel(), prediction.ravel()))
    inside = truth > 0
    assert adjusted_rand_index(flatten(both), foreground=True) == pytest.approx(
        adjusted_rand_score(truth[inside], prediction[inside])
    )
    assert dice(both) == pytest.approx(f1_score((truth > 0).ravel(), (prediction > 0).ravel()))


@pytest.mark.parametrize("truth, prediction", CASES + LOOSE)
def test_symmetric_best_dice_against_elf(truth, prediction):
    both = overlap(truth[None], prediction[None])
    oracle = symmetric_best_dice_score(prediction, truth, impl="numpy")
    assert min(best_dice(both)) == pytest.approx(oracle, abs=1e-6)


def test_split_example_of_voi_and_rand():
    truth = np.ones((1, 2, 6), int)
    halves = np.repeat([[1, 2]], 3, axis=1)[None].repeat(2, axis=1)
    row = evaluate_image(overlap(truth, halves))
    assert (row["VOI_split"], row["VOI_merge"]) == (1.0, 0.0)
    assert row["ARAND"] == pytest.approx(0.375)
