"""Mutex watershed and merging against independent implementations."""

import mwatershed
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from model.methods.affinity.offsets import offsets
from model.methods.affinity.segments import large_enough, merged, segmented


@pytest.mark.parametrize("neighbours", [4, 8])
def test_it_is_the_mutex_watershed_of_another_library(neighbours: int) -> None:
    rng = np.random.default_rng(neighbours)
    pairs = offsets((1, 3, 5), neighbours)
    affinity = rng.random((len(pairs), 48, 56))
    everywhere = np.ones((48, 56), bool)
    nearest = neighbours // 2
    found = segmented(affinity, pairs, everywhere, attractive=nearest, repulsive=nearest, stride=1)
    single = affinity.astype(np.float32).astype(np.float64)
    signed = np.where(
        np.arange(len(pairs))[:, None, None] < neighbours // 2,
        np.maximum(single, 1e-6),
        np.minimum(single - 1, -1e-6),
    )
    other = mwatershed.agglom(signed, [list(pair) for pair in pairs])
    assert adjusted_rand_score(found.ravel(), other.ravel()) > 0.999
    assert found.min() == 1 and len(np.unique(found)) == found.max()


def test_pixels_outside_of_the_foreground_are_0() -> None:
    pairs = offsets((1, 3), 4)
    foreground = np.zeros((20, 20), bool)
    foreground[3:10, 4:9] = True
    found = segmented(np.ones((4, 20, 20)), pairs, foreground, attractive=2, repulsive=2, stride=1)
    assert np.array_equal(found, foreground.astype(np.int64))
    nowhere = np.zeros_like(foreground)
    assert not segmented(np.ones((4, 20, 20)), pairs, nowhere, attractive=2, repulsive=2, stride=1).any()


def test_strides_that_divide_the_shift_of_a_window_give_the_same_objects() -> None:
    """The reason why the stride of forbidding pairs must divide that of the network."""
    rng = np.random.default_rng(0)
    pairs = offsets((1, 5), 4)
    affinity = np.clip(rng.normal(0.3, 0.2, (4, 96, 96)), 0, 1)
    everywhere = np.ones((80, 80), bool)
    scores = {}
    for stride in (4, 5):
        whole = segmented(affinity, pairs, np.ones((96, 96), bool), attractive=2, repulsive=2, stride=stride)
        window = segmented(affinity[:, 16:, 16:], pairs, everywhere, attractive=2, repulsive=2, stride=stride)
        scores[stride] = adjusted_rand_score(whole[24:, 24:].ravel(), window[8:, 8:].ravel())
    assert scores[4] > 0.95 and scores[5] < 0.5


def test_small_segments_take_the_label_around_them() -> None:
    labels = np.zeros((20, 20), np.int64)
    labels[2:12, 2:12] = 1
    labels[5:7, 5:7] = 2  # inside 1
    labels[16:18, 16:18] = 3  # alone
    answer = merged(labels, [(5, 5)])
    assert (answer == 1).sum() == 100 and (answer == 2).sum() == 4 and answer.max() == 2
    assert large_enough(answer, 5).max() == 1
    assert np.array_equal(merged(labels, []), labels)
    assert not merged(np.zeros((4, 4), np.int64), [(5, 5)]).any()
