"""The assignment: exact against all permutations, the same for every solver, and fair at ties."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadArgument
from pipeline.metrics import matching as module
from pipeline.metrics.matching import highest_iou, largest_intersection, match, match_by_total_iou
from pipeline.metrics.overlap import Overlap, overlap
from pipeline.stack import stack_from_masks


def from_table(table: np.ndarray) -> Overlap:
    """One pixel row in which truth i and prediction j share ``table[i, j]`` pixels; all objects overlap none."""
    cells = [(i + 1, j + 1) for i, j in np.ndindex(*table.shape) for _ in range(table[i, j])]
    sides = np.array([(0, 0), *cells], np.uint32).T
    return overlap(sides[0][None, None], sides[1][None, None])


tables = st.builds(
    lambda seed, n, m, top: np.random.default_rng(seed).integers(0, top, (n, m)) + np.eye(n, m, dtype=int),
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 6),
)


def best_by_hand(both: Overlap, threshold: float) -> tuple[int, float]:
    """Largest (number of pairs, total IoU) over all one-to-one choices."""
    iou = np.zeros((both.n_truth, both.n_prediction))
    iou[both.pairs.truth, both.pairs.prediction] = both.pairs.iou
    iou[iou < threshold] = 0
    short, long = sorted(iou.shape)
    iou = iou if iou.shape[0] == short else iou.T
    choices = [iou[range(short), columns] for columns in permutations(range(long), short)]
    return max((int((c > 0).sum()), round(float(c.sum()), 9)) for c in choices)


@settings(max_examples=80, deadline=None)
@given(tables, st.sampled_from([0.001, 0.1, 0.25, 0.5]))
def test_canonical_is_the_best_of_all_choices(table, threshold):
    both = from_table(table)
    found = match(both, threshold)
    assert (found.iou.size, round(float(found.iou.sum()), 9)) == best_by_hand(both, threshold)
    assert np.unique(found.truth).size == np.unique(found.prediction).size == found.iou.size


@settings(max_examples=60, deadline=None)
@given(tables)
def test_total_iou_is_the_best_of_all_choices(table):
    both = from_table(table)
    iou = np.zeros((both.n_truth, both.n_prediction))
    iou[both.pairs.truth, both.pairs.prediction] = both.pairs.iou
    iou = iou if iou.shape[0] <= iou.shape[1] else iou.T
    rows = range(iou.shape[0])
    best = max(iou[rows, columns].sum() for columns in permutations(range(iou.shape[1]), iou.shape[0]))
    assert match_by_total_iou(both).iou.sum() == pytest.approx(best)


@pytest.mark.parametrize("threshold", [0.01, 0.1, 0.2])
def test_solvers_and_shortcuts_agree(threshold, monkeypatch):
    rng = np.random.default_rng(7)
    table = rng.integers(0, 3, (60, 70)) * (rng.random((60, 70)) < 0.08) + 2 * np.eye(60, 70, dtype=int)
    both = from_table(table)
    values = set()
    for cells, rounds in ((1 << 16, 20), (0, 20), (0, 0), (1 << 16, 0)):
        monkeypatch.setattr(module, "DENSE_CELLS", cells)
        monkeypatch.setattr(module, "ROUNDS", rounds)
        for found in (match(both, threshold), match_by_total_iou(both, threshold)):
            assert np.unique(found.prediction).size == np.unique(found.truth).size == found.iou.size
            values.add((found.iou.size, round(float(found.iou.sum()), 6)))
    most, total = max(values), max(values, key=lambda value: value[1])
    assert values == {most, total}


def test_one_more_pair_beats_any_iou():
    # Truth 0 and prediction 0 are equal, but only by parting do both truth objects find a partner.
    row = np.arange(9)[None]
    whole, head, tail = row >= 0, row < 3, row > 5
    both = overlap(stack_from_masks([whole, head], (1, 9)), stack_from_masks([whole, tail], (1, 9)))
    assert both.pairs.iou.tolist() == [1, 1 / 3, 1 / 3]
    assert match(both, 0.3).prediction.tolist() == [1, 0]
    assert match_by_total_iou(both, 0.3).prediction.tolist() == [0]


def test_many_to_one_blocks_keep_the_better_iou():
    both = from_table(np.array([[6, 0], [0, 0], [3, 0]]) + np.array([[0, 0], [0, 2], [0, 0]]))
    found = match(both, 0.1)
    assert list(zip(found.truth.tolist(), found.prediction.tolist())) == [(0, 0), (1, 1)]


def test_threshold_is_inclusive_unless_strict():
    both = from_table(np.array([[2, 2]]))
    assert both.pairs.iou.tolist() == [0.5, 0.5]
    assert match(both, 0.5).iou.size == 1
    assert match(both, 0.5, strict=True).iou.size == 0


@pytest.mark.parametrize("numerator, denominator", [(3, 5), (7, 10), (11, 20), (9, 10), (19, 20), (13, 20)])
def test_iou_on_the_threshold_counts(numerator, denominator):
    truth = np.zeros((1, 1, denominator), np.uint32)
    truth[...] = 1
    prediction = truth.copy()
    prediction[..., numerator:] = 0
    assert match(overlap(truth, prediction), round(numerator / denominator, 2)).iou.size == 1


def test_ties_go_to_the_smaller_id():
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    twins = stack_from_masks([mask, mask, mask], (4, 4))
    both = overlap(mask[None].astype(np.uint32), twins)
    assert match(both).prediction.tolist() == [0]
    assert both.pairs.prediction[highest_iou(both)].tolist() == [0]
    assert both.pairs.prediction[largest_intersection(both)].tolist() == [2]  # the author's stable sort
    same = overlap(twins, twins)
    assert match(same).prediction.tolist() == [0, 1, 2]


def test_author_lets_a_prediction_serve_twice_and_takes_the_largest_intersection():
    large = np.zeros((10, 10), bool)
    large[:] = True
    small = np.zeros((10, 10), bool)
    small[2:5, 2:5] = True
    near = small.copy()
    near[2, 2] = False
    both = overlap(stack_from_masks([large, small], (10, 10)), stack_from_masks([large, near], (10, 10)))
    assert match(both, 0.5).prediction.tolist() == [0, 1]
    author = match(both, 0.05, assignment="author")
    assert author.prediction.tolist() == [0, 0]
    assert match(both, 0.5, assignment="author").truth.tolist() == [0]


def test_no_pairs():
    both = from_table(np.zeros((0, 0), int))
    for found in (match(both), match(both, assignment="author"), match_by_total_iou(both)):
        assert found.iou.size == found.truth.size == found.prediction.size == 0


@pytest.mark.parametrize("threshold", [0, -0.1, 1.5])
def test_bad_threshold(threshold):
    with pytest.raises(BadArgument, match=r"threshold: .*\(0, 1\]"):
        match(from_table(np.eye(2, dtype=int)), threshold)


def test_bad_assignment():
    with pytest.raises(BadArgument, match=r"'canonical', 'author'.*'greedy'"):
        match(from_table(np.eye(2, dtype=int)), assignment="greedy")


def test_blocks_are_solved_apart():
    # 300 blocks of two rivals each: the whole would be a 600 x 600 table, each block is 2 x 2.
    pixels = []
    for block in range(300):
        a, b = 2 * block + 1, 2 * block + 2
        pixels += [(a, a)] * 2 + [(a, b)] + [(b, b)] * 2 + [(b, a)]
    sides = np.array(pixels, np.uint32).T
    found = match(overlap(sides[0][None, None], sides[1][None, None]), 0.1)
    assert np.array_equal(found.truth, found.prediction)
    assert found.iou.tolist() == [0.5] * 600
    assert all(first < second for first, second in combinations(found.truth[:5], 2))
