"""The synthetic scenes: windows agree with the whole, the truth obeys the law of the stack, objects overlap."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets.synthetic import scenes as synthetic
from pipeline.datasets.synthetic import shapes
from pipeline.datasets.synthetic.backdrop import clouds, noise
from pipeline.datasets.synthetic.scenes import KINDS, scene
from pipeline.errors import BadArgument
from pipeline.stack import check_stack

SHAPE = (530, 610)
LEAST_OVERLAP = {"worms": 0.35, "cells": 0.2, "filaments": 0.5}
"""Measured over 2,048 x 2,048 px: .56, .37 and .76 of the objects share a pixel."""


@cache
def whole(kind):
    return scene(kind, SHAPE, seed=5).render(0, SHAPE[0], 0, SHAPE[1])


@st.composite
def windows(draw):
    y0, x0 = draw(st.integers(0, SHAPE[0] - 1)), draw(st.integers(0, SHAPE[1] - 1))
    return y0, draw(st.integers(y0 + 1, SHAPE[0])), x0, draw(st.integers(x0 + 1, SHAPE[1]))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(window=windows())
def test_a_window_shows_what_the_whole_shows(kind, window):
    y0, y1, x0, x1 = window
    image, truth = scene(kind, SHAPE, seed=5).render(*window)
    assert image.dtype == np.uint16 and truth.dtype == np.uint32
    np.testing.assert_array_equal(image, whole(kind)[0][:, y0:y1, x0:x1])
    np.testing.assert_array_equal(truth, whole(kind)[1][:, y0:y1, x0:x1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_does_not_depend_on_what_was_drawn_before(kind):
    synthetic._settled.cache_clear()
    image, truth = scene(kind, SHAPE, seed=5).render(300, 420, 200, 330)
    np.testing.assert_array_equal(image, whole(kind)[0][:, 300:420, 200:330])
    np.testing.assert_array_equal(truth, whole(kind)[1][:, 300:420, 200:330])


@pytest.mark.parametrize("kind", KINDS)
def test_truth_obeys_the_law_and_overlaps(kind):
    _, truth = whole(kind)
    assert truth.shape[0] == scene(kind, SHAPE).layers
    check_stack(truth)
    shared = (truth > 0).sum(axis=0) > 1
    ids = np.unique(truth[truth > 0])
    overlapping = np.unique(truth[:, shared])
    assert len(ids) > 15
    assert np.count_nonzero(overlapping) / len(ids) > LEAST_OVERLAP[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_no_object_paints_over_another_on_its_layer(kind):
    """Each object keeps all the pixels of its mask, whatever else lies on its layer."""
    assert count_whole_objects(scene(kind, SHAPE, seed=5), whole(kind)[1]) > 15


def count_whole_objects(this, truth):
    """Count the objects in a truth after checking that each has exactly the pixels of its mask."""
    height, width, checked = *this.shape, 0
    for row, column in this._cells_near(0, height, 0, width):
        for placed in synthetic._settled(this.kind, this.seed, this.density, row, column):
            shape, label = placed.shape, this._label(row, column, placed.index)
            y, x = np.nonzero(shape.mask)
            y, x = y + shape.y0, x + shape.x0
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            assert (truth[placed.layer, y[inside], x[inside]] == label).all()
            checked += bool(inside.any())
    return checked


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_stay_within_the_reach_of_their_kind(kind):
    reach = KINDS[kind].halo_px
    for seed in range(150):
        shape = KINDS[kind].draw(np.random.default_rng(seed))
        y1, x1 = shape.y0 + shape.mask.shape[0], shape.x0 + shape.mask.shape[1]
        assert -reach <= shape.y0 and -reach <= shape.x0 and y1 - 1 <= reach and x1 - 1 <= reach
        assert shape.light.shape == shape.mask.shape and shape.mask.any()
        assert not (shape.mask[0].any() or shape.mask[-1].any())


def test_objects_that_use_their_whole_reach_are_neither_cut_nor_painted_over(monkeypatch):
    """Many frames as large as the reach of their kind allows: looking one pixel less far would lose an edge."""
    crowd = replace(KINDS["cells"], draw=frame, per_cell=20, layers=48, shared_max=1.0, patchy=0.0)
    monkeypatch.setitem(KINDS, "cells", crowd)
    frames = scene("cells", (92, 100), seed=77)
    _, truth = frames.render(0, 92, 0, 100)
    for y in range(92):
        np.testing.assert_array_equal(frames.render(y, y + 1, 0, 100)[1], truth[:, y : y + 1])
    for x in range(100):
        np.testing.assert_array_equal(frames.render(0, 92, x, x + 1)[1], truth[:, :, x : x + 1])
    assert count_whole_objects(frames, truth) > 100


def frame(rng):
    reach = 22
    mask = np.ones((2 * reach + 1, 2 * reach + 1), bool)
    mask[1:-1, 1:-1] = False
    return shapes.Shape(y0=-reach, x0=-reach, mask=mask, light=mask.astype(np.float32))


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_cells_of_one_colour_never_meet(kind):
    last_of_one, first_of_next = kind.cell_px - 1, 2 * kind.cell_px
    assert last_of_one + kind.halo_px < first_of_next - kind.halo_px


def test_smudges_are_light_without_an_object():
    smudges = [shapes.smudge(np.random.default_rng(seed)) for seed in range(20)]
    assert not any(smudge.mask.any() for smudge in smudges)
    assert all(smudge.light.max() > 0 for smudge in smudges)
    assert max(max(smudge.mask.shape) for smudge in smudges) <= 2 * KINDS["worms"].halo_px


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_is_another_scene(kind):
    first, second = (scene(kind, (64, 64), seed=seed).render(0, 64, 0, 64)[0] for seed in (1, 2))
    assert (first != second).mean() > 0.9


def test_density_adds_objects():
    def count(density):
        return len(np.unique(scene("cells", (300, 300), density=density).render(0, 300, 0, 300)[1])) - 1

    assert count(0) == 0
    assert 0 < count(0.5) < count(1) < count(2)


def test_objects_stand_out_where_the_truth_says():
    for kind, darker in (("worms", True), ("cells", False), ("filaments", False)):
        image, truth = whole(kind)
        inside, outside = image[0][truth.max(axis=0) > 0], image[0][truth.max(axis=0) == 0]
        assert (np.median(inside) < 0.8 * np.median(outside)) == darker
        assert (np.median(inside) > 1.5 * np.median(outside)) == (not darker)


def test_worms_are_as_wide_as_real_ones():
    from scipy.ndimage import distance_transform_edt

    drawn = [shapes.worm(np.random.default_rng(seed)).mask for seed in range(40)]
    widths = [2 * distance_transform_edt(mask).max() for mask in drawn]
    assert 8 <= np.median(widths) <= 10.5
    assert 800 <= np.median([mask.sum() for mask in drawn]) <= 1200


def test_a_larger_scene_starts_with_the_same_pixels():
    small = scene("cells", (90, 70), seed=3).render(0, 90, 0, 70)[0]
    large = scene("cells", (300, 400), seed=3).render(0, 90, 0, 70)[0]
    np.testing.assert_array_equal(small, large)


def test_far_away_windows_of_a_huge_scene_cost_no_memory():
    huge = scene("worms", (1_000_000, 1_000_000), seed=1)
    image, truth = huge.render(999_900, 1_000_000, 500_000, 500_300)
    assert image.shape == (1, 100, 300) and truth.shape == (huge.layers, 100, 300)


def test_sample_has_dense_ids_and_the_same_objects():
    sample = scene("cells", SHAPE, seed=5).sample("cells-5")
    _, truth = whole("cells")
    np.testing.assert_array_equal(sample.truth > 0, truth > 0)
    ids = np.unique(sample.truth[sample.truth > 0])
    np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))
    assert len(ids) == len(np.unique(truth[truth > 0]))
    assert sample.channels == ("nuclei",)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "wurms", "shape": (9, 9)}, "wurms"),
        ({"kind": "worms", "shape": (0, 9)}, "at least 1"),
        ({"kind": "worms", "shape": (9, 9), "seed": -1}, "-1"),
        ({"kind": "worms", "shape": (9, 9), "density": float("nan")}, "nan"),
        ({"kind": "cells", "shape": (10**6, 10**6)}, "uint32"),
    ],
)
def test_what_cannot_be_is_refused(options, words):
    with pytest.raises(BadArgument, match=words):
        scene(**options)


@pytest.mark.parametrize("window", [(0, 0, 0, 5), (0, 11, 0, 5), (-1, 5, 0, 5), (5, 3, 0, 5)])
def test_windows_outside_are_refused(window):
    with pytest.raises(BadArgument, match="10 x 10"):
        scene("worms", (10, 10)).render(*window)


def test_noise_and_clouds_depend_on_the_place_alone():
    np.testing.assert_array_equal(noise(7, 0, 600, 0, 300)[250:520, 30:290], noise(7, 250, 520, 30, 290))
    field = clouds(7, 0, 600, 0, 300, spacing_px=100)
    np.testing.assert_array_equal(field[250:520, 30:290], clouds(7, 250, 520, 30, 290, spacing_px=100))
    assert abs(noise(7, 0, 600, 0, 300).std() - 1) < 0.02
    assert field.min() >= 0 and field.max() <= 1 and field.std() > 0.05
