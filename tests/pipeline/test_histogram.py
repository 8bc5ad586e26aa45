"""Histograms of intensities and noise: exact over any cut, robust against outliers and flat regions."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadArgument, BadStore
from pipeline.histogram import CELL_PX, Bins, Histogram, count_codes, histogram, make_bins, needs_codes

SIDE = 12 * CELL_PX


def whole(image: np.ndarray) -> Histogram:
    """Histogram of an image taken in one piece."""
    return histogram(image, bins_of([image], image.dtype))


def bins_of(blocks: list[np.ndarray], dtype: np.dtype) -> Bins:
    """Bins from the codes of all blocks."""
    codes = sum(count_codes(block) for block in blocks) if needs_codes(dtype) else None
    return make_bins(dtype, codes)


def gaussian(
    sigma: float, *, offset: float = 100.0, shape: tuple[int, int] = (400, 400), seed: int = 0
) -> np.ndarray:
    """Camera noise, one channel, rounded to 16-bit integers."""
    values = np.random.default_rng(seed).normal(offset, sigma, (1, *shape))
    return np.clip(np.rint(values), 0, 65535).astype(np.uint16)


@settings(max_examples=20, deadline=None)
@given(
    rows=st.sets(st.integers(1, SIDE // CELL_PX), max_size=2),
    columns=st.sets(st.integers(1, SIDE // CELL_PX), max_size=2),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]),
    seed=st.integers(0, 100),
)
def test_blocks_add_up_to_the_whole(rows, columns, dtype, seed):
    image = np.random.default_rng(seed).gamma(2.0, 20.0, (2, SIDE + 5, SIDE + 3))
    image = (image - (50 if np.dtype(dtype).kind in "if" else 0)).astype(dtype)
    ys, xs = (sorted({0, *(CELL_PX * cut for cut in cuts)}) for cuts in (rows, columns))
    blocks = [
        image[:, y0:y1, x0:x1]
        for y0, y1 in pairwise([*ys, image.shape[1]])
        for x0, x1 in pairwise([*xs, image.shape[2]])
    ]
    bins = bins_of(blocks, image.dtype)
    first, *rest = [histogram(block, bins) for block in blocks]
    found, expected = sum(rest, first), whole(image)
    assert np.array_equal(found.counts, expected.counts)
    assert np.array_equal(found.differences, expected.differences)
    assert (found.noise(0), found.noise(1)) == (expected.noise(0), expected.noise(1))


@pytest.mark.parametrize("sigma", [1, 3, 10, 30])
@pytest.mark.parametrize("offset", [100, 1000])
def test_gaussian_noise(sigma, offset):
    assert whole(gaussian(sigma, offset=offset)).noise(0) == pytest.approx(
        np.hypot(sigma, 12**-0.5), rel=0.05
    )


@pytest.mark.parametrize("mean", [0.5, 4, 200])
def test_poisson_noise(mean):
    image = np.random.default_rng(0).poisson(mean, (1, 400, 400)).astype(np.uint16)
    assert whole(image).noise(0) == pytest.approx(mean**0.5, rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("factor", [1, 1e5])
def test_noise_of_wide_types_does_not_know_the_range(dtype, factor):
    image = (np.random.default_rng(0).normal(10_000, 30, (1, 256, 256))).astype(dtype)
    image[0, 40, 40] = 1e4 * factor
    assert whole(image).noise(0) == pytest.approx(30, rel=0.05)


@pytest.mark.parametrize("flat", [0, 65535])
def test_flat_regions_do_not_hide_the_noise_of_the_rest(flat):
    image = gaussian(10)
    image[:, 60:, :] = flat
    assert whole(image).noise(0) == pytest.approx(10, rel=0.1)


def test_a_tilted_background_is_no_noise():
    ramp = np.arange(400)[:, None] * 7 + np.arange(400) * 3
    assert whole((gaussian(5) + ramp).astype(np.uint16)).noise(0) == pytest.approx(5, rel=0.05)
    assert whole(ramp[None].astype(np.uint16)).noise(0) == 0


def test_outlines_of_drawn_objects_are_no_noise():
    y, x = np.mgrid[:320, :320] % 32 - 16
    distance = np.hypot(y, x)
    for drawn in (distance < 12, np.clip(12.5 - distance, 0, 1)):
        assert whole((drawn * 3000).astype(np.uint16)[None]).noise(0) == 0


def test_a_small_or_constant_image_has_no_noise():
    assert whole(gaussian(10, shape=(5, 7))).noise(0) == 0
    assert whole(np.full((1, 64, 64), 7, np.uint16)).noise(0) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_percentiles_of_wide_types_survive_a_hot_pixel(dtype):
    image = np.random.default_rng(0).normal(10_000, 300, (1, 300, 300)).astype(dtype)
    image[0, 7, 9] = 1e9
    found = whole(image)
    cumulated = np.cumsum(found.counts[0])
    for percent in (1, 50, 99.8):
        value = found.bins.centres(0, np.searchsorted(cumulated, percent / 100 * image.size))
        assert value == pytest.approx(np.percentile(image, percent), abs=1)


def test_bins_keep_order_sign_and_extremes():
    image = np.array([-3e38, -1e5, -2.5, -1.0, -0.0, 0.0, 1e-30, 1.0, 2.5, 1e5, 3e38], np.float64)[None, None]
    bins = bins_of([image], image.dtype)
    index = bins.index(image[0], 0)[0]
    assert np.all(np.diff(index) >= 0) and index[4] == index[5]
    assert bins.centres(0, index) == pytest.approx(image[0, 0], rel=1 / 128, abs=1e-29)


def test_integers_have_their_own_bins():
    for dtype in (np.uint8, np.int8, np.uint16, np.int16):
        info = np.iinfo(dtype)
        image = np.array([[[info.min, 5, info.max]]], dtype)
        bins = bins_of([image], image.dtype)
        assert np.array_equal(bins.centres(0, bins.index(image[0], 0)), image[0])


def test_values_that_are_not_finite_are_named():
    image = np.zeros((2, 3, 16, 16), np.float32)
    image[1, 2, 4, 5] = np.nan
    with pytest.raises(BadStore, match="nan in channel 1 at y=104, x=205"):
        count_codes(image, origin=(100, 200))


def test_histograms_of_different_bins_are_refused():
    small, wide = (whole(np.zeros((1, 8, 8), dtype)) for dtype in ("uint8", "uint16"))
    with pytest.raises(BadArgument, match="different bins"):
        small + wide
