"""Normalisation limits of empty, sparse, drawn and ordinary images."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.normalise import NOISE_RANGE, Limits, Normalise, limits_of, normalised

PERCENTILE, OTSU, MEANSTD = (Normalise(kind=kind) for kind in ("percentile", "otsu", "meanstd"))
SHAPE = (512, 512)


def disks(places, *, radius: int = 10, blur: float = 0.0) -> np.ndarray:
    """1 inside disks, 0 elsewhere."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    drawn = sum(((y - cy) ** 2 + (x - cx) ** 2 <= radius**2).astype(float) for cy, cx in places)
    return ndimage.gaussian_filter(drawn, blur) if blur else drawn


THREE = disks([(100, 120), (300, 80), (400, 440)], radius=6)
MANY = disks([(y, x) for y in range(30, 500, 50) for x in range(30, 500, 50)])


def camera(signal, *, sigma: float, offset: float = 200.0, seed: int = 0) -> np.ndarray:
    """A signal with offset and read-out noise as 16-bit integers, one channel."""
    values = np.random.default_rng(seed).normal(offset, sigma, SHAPE) + signal
    return np.clip(np.rint(values), 0, 65535).astype(np.uint16)[None]


@pytest.mark.parametrize("sigma", [0.3, 1, 3, 30])
@pytest.mark.parametrize("offset", [30, 1000])
def test_noise_is_not_stretched(sigma, offset):
    image = camera(0, sigma=sigma, offset=offset)
    found = limits_of(image, PERCENTILE)
    assert found.is_empty
    assert normalised(image, PERCENTILE).std() == pytest.approx(1 / NOISE_RANGE, rel=0.15)
    assert normalised(image, PERCENTILE).max() < 0.5


@pytest.mark.parametrize("mean", [0.5, 4, 200])
def test_photon_noise_is_not_stretched(mean):
    image = np.random.default_rng(0).poisson(mean, (1, *SHAPE)).astype(np.uint16)
    assert limits_of(image, PERCENTILE).is_empty and normalised(image, PERCENTILE).max() < 0.7
    assert limits_of(image, OTSU).is_empty and normalised(image, OTSU).max() < 0.5


@pytest.mark.parametrize("contrast", [30, 100, 3000])
def test_three_cells_on_noise_are_as_bright_as_cells_among_many(contrast):
    image = camera(THREE * contrast * 10, sigma=10)
    result = normalised(image, PERCENTILE)[0]
    assert not limits_of(image, PERCENTILE).is_empty
    assert np.median(result[THREE > 0]) == pytest.approx(1, abs=0.15)
    assert result[THREE == 0].max() < 0.5
    assert ndimage.label(ndimage.gaussian_filter(normalised(image, OTSU)[0], 1.5) > 0.5)[1] == 3


def test_dark_objects_on_noise_count_too():
    image = camera(-THREE * 400, sigma=10, offset=1000)
    found = limits_of(image, PERCENTILE)
    assert not found.is_empty
    assert np.median(found.apply(image)[0][THREE > 0]) == pytest.approx(0, abs=0.1)


def test_ordinary_images_keep_their_percentiles():
    image = camera(MANY * 900, sigma=10)
    low, high = np.percentile(image, [1, 99.8], method="inverted_cdf")
    found = limits_of(image, PERCENTILE)
    assert (found.offset, found.scale, found.empty) == ((low,), (high - low,), (False,))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "int32"])
@pytest.mark.parametrize(("background", "bright"), [(0, 200), (100, 250), (0, 1)])
def test_two_values_come_out_as_0_and_1(dtype, background, bright):
    for objects in (THREE, MANY, 1 - THREE):
        image = np.where(objects > 0, bright, background).astype(dtype)[None]
        for kind in (PERCENTILE, OTSU):
            np.testing.assert_allclose(normalised(image, kind)[0], objects, atol=1e-3)


def test_disks_of_different_brightness_on_one_value():
    rng = np.random.default_rng(0)
    image = np.where(MANY > 0, rng.integers(3000, 3200, SHAPE), 100).astype(np.uint16)[None]
    assert np.array_equal(normalised(image, OTSU)[0] > 0.5, MANY > 0)
    few = np.where(THREE > 0, rng.integers(3000, 3300, SHAPE), 0).astype(np.uint16)[None]
    assert np.array_equal(normalised(few, OTSU)[0] > 0.5, THREE > 0)
    np.testing.assert_allclose(normalised(few, PERCENTILE)[0][THREE > 0], 1, atol=0.1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint32"])
@pytest.mark.parametrize("kind", [PERCENTILE, OTSU])
def test_a_hot_pixel_changes_nothing(dtype, kind):
    clean = (camera(MANY * 900, sigma=10)).astype(dtype)
    hot = clean.copy()
    hot[0, 5, 5] = 1000 * 1e5
    expected, found = limits_of(clean, kind), limits_of(hot, kind)
    assert found.scale[0] == pytest.approx(expected.scale[0], rel=0.01)
    assert found.offset[0] == pytest.approx(expected.offset[0], rel=0.01)


def test_one_hot_pixel_is_no_object():
    image = camera(0, sigma=10)
    image[0, 50, 50] = 65535
    assert limits_of(image, PERCENTILE).is_empty and limits_of(image, OTSU).is_empty


def test_faint_objects_that_fill_the_field_are_still_parted():
    image = camera(MANY * 60, sigma=10)
    smooth = ndimage.gaussian_filter(normalised(image, OTSU)[0], 1.5)
    assert ((smooth > 0.5) == (MANY > 0)).mean() > 0.98


@pytest.mark.parametrize("kind", [PERCENTILE, OTSU, MEANSTD])
def test_a_constant_image_is_empty(kind):
    image = np.full((1, *SHAPE), 100, np.uint16)
    assert limits_of(image, kind) == Limits((0.0,), (0.0,), (True,))
    assert not normalised(image, kind).any()


def test_mean_and_deviation():
    image = camera(MANY * 900, sigma=10)
    result = normalised(image, MEANSTD)
    assert result.mean() == pytest.approx(0, abs=1e-3) and result.std() == pytest.approx(1, abs=1e-3)
    empty = camera(0, sigma=10)
    assert (
        normalised(empty, MEANSTD).std() == pytest.approx(0.26, rel=0.05)
        and limits_of(empty, MEANSTD).is_empty
    )


def test_nothing_is_looked_for_where_nothing_is_normalised():
    found = limits_of(camera(0, sigma=10), Normalise(kind="none"))
    assert found == Limits((0.0,), (1.0,)) and not found.is_empty


def test_an_image_is_empty_if_all_its_channels_are():
    noise, cells = camera(0, sigma=10), camera(MANY * 900, sigma=10)
    both = limits_of(np.concatenate([noise, cells]), PERCENTILE)
    assert both.empty == (True, False) and not both.is_empty


def test_planes_share_limits():
    planes = np.stack([camera(MANY * 900, sigma=10), camera(0, sigma=10)], axis=1)[..., :509]
    found = limits_of(planes, PERCENTILE)
    assert not found.is_empty and found.apply(planes).shape == (1, 2, 512, 509)
    assert found.scale[0] == np.subtract(*np.percentile(planes, [99.8, 1], method="inverted_cdf"))


def test_wide_integers_keep_their_precision():
    image = (MANY * 200 + 2**24).astype(np.int32)[None]
    np.testing.assert_allclose(normalised(image, PERCENTILE)[0], MANY, atol=0.05)
