"""The laws of the scores on overlapping stacks, and the same scores counted on dense masks."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from pipeline.metrics.evaluation import evaluate_image
from pipeline.metrics.overlap import Overlap, merge, overlap
from pipeline.metrics.precision import DENSE_THRESHOLDS, mean_average_precision
from pipeline.stack import masks_of, stack_from_masks

SHAPE = (14, 16)
ERRORS = ("VOI_split", "VOI_merge", "ARAND", "DiC", "absDiC")


def scene(seed: int, count: int) -> np.ndarray:
    """Random rectangles that overlap."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        mask = np.zeros(SHAPE, bool)
        y, x = rng.integers(0, SHAPE[0]), rng.integers(0, SHAPE[1])
        mask[y : y + rng.integers(2, 8), x : x + rng.integers(2, 8)] = True
        masks.append(mask)
    return stack_from_masks(masks, SHAPE)


def noisy(stack: np.ndarray, seed: int) -> np.ndarray:
    """Move every object a little and lose some, so that IoUs of all sizes come up."""
    rng = np.random.default_rng(seed)
    masks = [
        np.roll(mask, rng.integers(-1, 2, 2), (0, 1)) for _, mask in masks_of(stack) if rng.random() > 0.2
    ]
    return stack_from_masks(masks, SHAPE)


scenes = st.builds(scene, st.integers(0, 10**6), st.integers(0, 7))
pairs = st.one_of(
    st.tuples(scenes, scenes),
    st.builds(lambda stack, seed: (stack, noisy(stack, seed)), scenes, st.integers(0, 10**6)),
)


def dense(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Count every score on one boolean mask per object, by the book."""
    g = [mask for _, mask in masks_of(truth)]
    p = [mask for _, mask in masks_of(prediction)]
    shape = len(g), len(p)
    inter = np.array([(a & b).sum() for a, b in product(g, p)], int).reshape(shape)
    union = np.array([(a | b).sum() for a, b in product(g, p)], int).reshape(shape)
    iou = inter / np.maximum(union, 1)
    area_g, area_p = (np.array([m.sum() for m in side], int) for side in (g, p))
    found = {"n_truth": len(g), "n_prediction": len(p)}
    for t in DENSE_THRESHOLDS:
        cost = -(iou >= t).astype(float) - iou / (2 * max(min(shape), 1))
        tp = (iou[linear_sum_assignment(cost)] >= t).sum()
        found[f"AP_{t}"] = tp / (sum(shape) - tp) if sum(shape) else 1.0
        best = [int(row.size - 1 - row[::-1].argmax()) for row in inter] if p else []
        good = [(i, j) for i, j in enumerate(best) if iou[i, j] >= t]
        used = len({j for _, j in good})
        found[f"AP_author_{t}"] = len(good) / (sum(shape) - used) if sum(shape) else 1.0
    found["meanAP"] = np.mean([found[f"AP_{t}"] for t in (0.5, 0.6, 0.7, 0.8, 0.9)])
    found |= dense_jaccard(inter, union, area_g, area_p)
    found |= dense_quality(iou)
    total = np.add.outer(area_g, area_p) if all(shape) else np.ones(shape)
    score = 2 * inter / np.maximum(total, 1)
    found["SBD"] = min(score.max(1).mean(), score.max(0).mean()) if all(shape) else float(not sum(shape))
    some_g, some_p = (truth > 0).any(0), (prediction > 0).any(0)
    pixels = some_g.sum() + some_p.sum()
    found["dice"] = 2 * (some_g & some_p).sum() / pixels if pixels else 1.0
    found["sortedAP"] = dense_sorted_ap(iou)
    return found


def dense_jaccard(inter, union, area_g, area_p) -> dict[str, float]:
    iou = inter / np.maximum(union, 1)
    kumar = {i: int(row.argmax()) for i, row in enumerate(iou) if row.any()}
    author = {i: int(row.size - 1 - row[::-1].argmax()) for i, row in enumerate(inter) if row.any()}
    plus = {i: j for i, j in zip(*linear_sum_assignment(-iou)) if inter[i, j]}
    once: dict[int, int] = {}
    for i, row in enumerate(iou):
        free = [j for j in range(row.size) if j not in once.values() and row[j] > 0]
        if free:
            once[i] = max(free, key=lambda j: row[j])
    found = {}
    for name, choice in (("", kumar), ("_author", author), ("_plus", plus), ("_used_once", once)):
        top = sum(inter[i, j] for i, j in choice.items())
        low = sum(union[i, j] for i, j in choice.items())
        low += sum(a for i, a in enumerate(area_g) if i not in choice)
        low += sum(a for j, a in enumerate(area_p) if j not in choice.values())
        found[f"AJI{name}"] = top / low if low else 1.0
    return found


def dense_quality(iou: np.ndarray) -> dict[str, float]:
    count = sum(iou.shape)
    # The usual cost lets pairs below the threshold take part in the tie-break; a match must not depend on them.
    above = np.where(iou > 0.5, iou, 0)
    cost = -(above > 0).astype(float) - above / (2 * max(min(iou.shape), 1))
    good = [v for v in iou[linear_sum_assignment(cost)] if v > 0.5]
    quality = float(np.mean(good)) if good else float(count == 0)
    recognition = 2 * len(good) / count if count else 1.0
    return {"SQ": quality, "RQ": recognition, "PQ": quality * recognition}


def dense_sorted_ap(iou: np.ndarray) -> float:
    count = sum(iou.shape)
    if not count:
        return 1.0
    kept = np.where(iou >= 0.001, iou, 0)
    evenly = kept - 1e-6 * kept**2  # two pairs rather than one with the same total
    good = sorted(v for v in kept[linear_sum_assignment(-evenly)] if v > 0)
    if not good:
        return 0.0
    m = len(good)
    height = [(m - k) / (count - m + k) for k in range(m)]
    x = [0.0, *good, 1.0]
    y = [height[0], *height, 0.0]
    return float(sum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(m + 1)))


@settings(max_examples=80, deadline=None)
@given(pairs)
def test_sparse_equals_dense(pair):
    row = evaluate_image(overlap(*pair))
    expected = dense(*pair)
    if tied(overlap(*pair)):  # several assignments are best, and AJI+ is not the same for all of them
        del expected["AJI_plus"]
    assert {name: row[name] for name in expected} == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(scenes)
def test_identity_is_perfect(stack):
    # Two truth objects with the same mask may be taken for each other; every score is still perfect but
    # AJI, where both would take the same prediction.
    masks = [mask.tobytes() for _, mask in masks_of(stack)]
    assume(len(set(masks)) == len(masks))
    row = evaluate_image(overlap(stack, stack))
    perfect = ("AP_", "meanAP", "precision", "recall", "F1", "AJI", "PQ", "SQ", "RQ", "dice", "SBD", "sorted")
    values = {name: value for name, value in row.items() if name.startswith((*perfect, "ARI"))}
    # The author's largest intersection may go to a prediction that contains the object.
    values = {name: value for name, value in values.items() if "author" not in name}
    assert values == pytest.approx(dict.fromkeys(values, 1.0))
    assert {name: row[name] for name in ERRORS} == pytest.approx(dict.fromkeys(ERRORS, 0.0), abs=1e-12)
    assert row["truth_match"] == row["prediction_match"] == row["n_truth"] == row["n_prediction"]


@settings(max_examples=60, deadline=None)
@given(pairs, st.randoms(use_true_random=False))
def test_order_of_ids_and_layers_does_not_matter(pair, random):
    before = evaluate_image(overlap(*pair))
    moved = []
    for stack in pair:
        ids = list(range(1, int(stack.max()) + 1))
        random.shuffle(ids)
        layers = list(range(len(stack)))
        random.shuffle(layers)
        moved.append(np.array([0, *ids], np.uint32)[stack][layers])
    after = evaluate_image(overlap(*moved))
    free = {
        name
        for name in before
        if not name.startswith(("AJI", "AP_author", "meanAP_author", "meanAP_dense_a"))
    }
    free = {name for name in free if not name.startswith(("truth_", "prediction_", "VOI", "AR"))}
    if not tied(overlap(*pair)):
        free |= {"AJI", "AJI_author", "AJI_plus", "AP_author_0.5", "truth_missed", "prediction_spurious"}
    assert {name: after[name] for name in free} == pytest.approx({name: before[name] for name in free})


def tied(both: Overlap) -> bool:
    """Say whether a truth object has two equally good predictions; then the smaller id decides."""
    keys = [both.pairs.iou, both.pairs.pixels]
    twins = [len(set(zip(both.pairs.truth, key))) < key.size for key in keys]
    return any(twins) or len(set(both.pairs.iou)) < both.pairs.iou.size


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_a_higher_threshold_never_finds_more(pair):
    row = evaluate_image(overlap(*pair))
    for name in ("AP", "AP_author", "precision", "recall", "F1"):
        values = [row[f"{name}_{t}"] for t in DENSE_THRESHOLDS]
        assert values == sorted(values, reverse=True)
        assert all(0 <= value <= 1 for value in values)


@settings(max_examples=40, deadline=None)
@given(pairs)
def test_canonical_never_counts_a_prediction_twice(pair):
    row = evaluate_image(overlap(*pair))
    assert row["truth_match"] == row["prediction_match"] <= min(row["n_truth"], row["n_prediction"])
    assert row["AJI_plus"] <= 1
    assert 0 <= row["AJI_author"] <= 1
    assert 0 <= row["sortedAP"] <= 1


@settings(max_examples=30, deadline=None)
@given(pairs, st.integers(3, 15), st.integers(3, 17))
def test_tiles_give_the_scores_of_the_whole(pair, height, width):
    tiles = [
        overlap(*(stack[:, y : y + height, x : x + width] for stack in pair))
        for y, x in product(range(0, SHAPE[0], height), range(0, SHAPE[1], width))
    ]
    assert evaluate_image(merge(tiles)) == evaluate_image(overlap(*pair))


@settings(max_examples=25, deadline=None)
@given(st.lists(pairs, min_size=1, max_size=4))
def test_pooled_mean_ap_is_of_the_summed_counts(cases):
    # Images side by side, with ids of their own, are one image.
    depth = max(len(stack) for pair in cases for stack in pair)
    sides: list[list[np.ndarray]] = [[], []]
    for number, pair in enumerate(cases):
        for side, stack in zip(sides, pair):
            full = np.zeros((depth, *SHAPE), np.uint32)
            full[: len(stack)] = np.where(stack > 0, stack + 100 * number, 0)
            side.append(full)
    whole = evaluate_image(overlap(*(np.concatenate(side, axis=2) for side in sides)))
    assert mean_average_precision(cases) == pytest.approx(whole["meanAP"])
