"""Each kind of error on the smallest picture that shows it; every object gets exactly one kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.overlap import overlap, prediction_only, truth_only
from pipeline.metrics.taxonomy import PREDICTION_KINDS, TRUTH_KINDS, Taxonomy, classify, kind_counts
from pipeline.stack import stack_from_masks

SHAPE = (24, 24)
Box = tuple[int, int, int, int]


def draw(*objects: Box | list[Box]) -> np.ndarray:
    """Each object is a box (y, x, height, width) or a list of them."""
    masks = []
    for boxes in objects:
        mask = np.zeros(SHAPE, bool)
        for y, x, height, width in boxes if isinstance(boxes, list) else [boxes]:
            mask[y : y + height, x : x + width] = True
        masks.append(mask)
    return stack_from_masks(masks, SHAPE)


def kinds(truth: np.ndarray, prediction: np.ndarray) -> tuple[list[str], list[str]]:
    found = classify(overlap(truth, prediction))
    return found.truth_kind.tolist(), found.prediction_kind.tolist()


LYING, STANDING = (11, 0, 2, 20), (4, 9, 16, 2)
CUT = [(11, 0, 2, 9), (11, 11, 2, 9)]

CASES = {
    "match": ([(2, 2, 6, 6)], [(2, 3, 6, 6)], ["match"], ["match"]),
    "missed and spurious": ([(2, 2, 6, 6)], [(14, 14, 6, 6)], ["missed"], ["spurious"]),
    "a neighbour's edge does not count": ([(2, 2, 6, 6)], [(2, 7, 6, 6)], ["missed"], ["spurious"]),
    "two neighbours as one": (
        [(2, 2, 6, 6), (2, 8, 6, 6)],
        [[(1, 1, 8, 14)]],
        ["merged", "merged"],
        ["merged"],
    ),
    "a small neighbour swallowed by a match": (
        [(2, 2, 10, 10), (2, 12, 3, 3)],
        [[(2, 2, 10, 10), (2, 12, 3, 3)]],
        ["match", "merged"],
        ["match"],
    ),
    "a crossing glued": (
        [(11, 0, 2, 16), (4, 9, 16, 2)],
        [[(11, 0, 2, 16), (4, 9, 16, 2)]],
        ["match", "merged"],
        ["match"],
    ),
    "cut at the crossing": (
        [LYING, STANDING],
        [STANDING, *CUT],
        ["overlap", "match"],
        ["match"] + ["overlap"] * 2,
    ),
    "crossing left out of both": (
        [LYING, STANDING],
        [*CUT, (4, 9, 7, 2), (13, 9, 7, 2)],
        ["overlap", "overlap"],
        ["overlap"] * 4,
    ),
    "hidden in a larger object": (
        [(2, 2, 12, 12), (5, 5, 5, 5)],
        [(2, 2, 12, 12)],
        ["match", "overlap"],
        ["match"],
    ),
    "hidden, and the larger one is missed as well": (
        [(2, 2, 12, 12), (5, 5, 5, 5)],
        [(20, 20, 2, 2)],
        ["missed", "missed"],
        ["spurious"],
    ),
    "in three pieces": (
        [(2, 2, 4, 18)],
        [(2, 2, 4, 6), (2, 8, 4, 6), (2, 14, 4, 6)],
        ["split"],
        ["split"] * 3,
    ),
    "pieces elsewhere than at the crossing": (
        [LYING, STANDING],
        [STANDING, (11, 0, 2, 6), (11, 6, 2, 8), (11, 14, 2, 6)],
        ["split", "match"],
        ["match"] + ["split"] * 3,
    ),
    "a fragment beside a match": (
        [(2, 2, 6, 6)],
        [(2, 2, 6, 4), (2, 6, 6, 2)],
        ["match"],
        ["match", "split"],
    ),
    "twice": ([(2, 2, 6, 6)], [(2, 2, 6, 6), (2, 2, 6, 5)], ["match"], ["match", "split"]),
    "too large": ([(5, 5, 6, 6)], [(2, 2, 12, 12)], ["inaccurate"], ["inaccurate"]),
    "too small": ([(2, 2, 12, 12)], [(4, 4, 6, 6)], ["inaccurate"], ["inaccurate"]),
    "shifted": ([(2, 2, 8, 8)], [(2, 6, 8, 8)], ["inaccurate"], ["inaccurate"]),
    "a speck is no attempt": ([(2, 2, 12, 12)], [(4, 4, 2, 2)], ["missed"], ["spurious"]),
}


@pytest.mark.parametrize("name", CASES)
def test_kind(name):
    truth, prediction, truth_kinds, prediction_kinds = CASES[name]
    assert kinds(draw(*truth), draw(*prediction)) == (truth_kinds, prediction_kinds)


def test_partners_say_why():
    found = classify(overlap(draw(LYING, STANDING, (0, 18, 3, 3)), draw(STANDING, *CUT, (20, 20, 3, 3))))
    assert found.truth_kind.tolist() == ["overlap", "match", "missed"]
    assert found.truth_partner.tolist() == [1, 0, -1]
    assert found.truth_iou.tolist() == [18 / 40, 1, 0]
    assert found.prediction_partner.tolist() == [1, 0, 0, -1]
    assert found.prediction_iou.tolist() == [1, 18 / 40, 18 / 40, 0]


def test_partner_of_a_merged_object_is_what_swallowed_it():
    found = classify(overlap(draw((2, 2, 6, 6), (2, 8, 6, 8)), draw((2, 2, 6, 14))))
    assert found.truth_kind.tolist() == ["merged", "match"]
    assert found.truth_partner.tolist() == [0, 0]


def test_one_side_or_none():
    stack = draw((2, 2, 6, 6), (4, 4, 6, 6))
    missed, spurious = classify(truth_only(stack)), classify(prediction_only(stack))
    assert (missed.truth_kind.tolist(), missed.prediction_kind.size) == (["missed"] * 2, 0)
    assert (spurious.prediction_kind.tolist(), spurious.truth_kind.size) == (["spurious"] * 2, 0)
    empty = classify(overlap(draw(), draw()))
    assert empty.truth_kind.size == empty.prediction_partner.size == 0


def check_consistent(found: Taxonomy, sizes: tuple[int, int]) -> None:
    counts = kind_counts(found)
    assert sum(counts[f"truth_{kind}"] for kind in TRUTH_KINDS) == sizes[0]
    assert sum(counts[f"prediction_{kind}"] for kind in PREDICTION_KINDS) == sizes[1]
    assert counts["truth_match"] == counts["prediction_match"]
    assert (found.truth_iou[found.truth_kind == "match"] >= 0.5).all()
    lonely = found.truth_partner < 0
    assert set(found.truth_kind[lonely]) <= {"missed", "overlap"}
    assert (found.truth_iou[lonely] == 0).all()
    assert ((found.prediction_partner < 0) == (found.prediction_kind == "spurious")).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 9), st.integers(0, 9))
def test_every_object_has_one_kind_whatever_the_layers(seed, n_truth, n_prediction):
    rng = np.random.default_rng(seed)
    stacks = [
        draw(*(tuple(map(int, (*rng.integers(0, 20, 2), *rng.integers(1, 12, 2)))) for _ in range(count)))
        for count in (n_truth, n_prediction)
    ]
    both = overlap(*stacks)
    found = classify(both)
    check_consistent(found, (both.n_truth, both.n_prediction))
    again = classify(overlap(stacks[0][::-1], stacks[1][::-1]))
    assert found.truth_kind.tolist() == again.truth_kind.tolist()
    assert found.prediction_kind.tolist() == again.prediction_kind.tolist()
