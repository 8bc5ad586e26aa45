"""Resampling to the grid of a network and back: the same pixels for every tile."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.resample import Rescaling
from pipeline.tiling import Box, tiles

FACTORS = [0.1, 0.3, 1 / 3, 0.5, 0.77, 1.3, 2, 3.7]


def whole(rescaling: Rescaling) -> Box:
    """The whole image on the network's grid."""
    return Box(0, rescaling.size[0], 0, rescaling.size[1])


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    return image[:, box.y0 : box.y1, box.x0 : box.x1]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("stride", [1, 16])
def test_tiles_agree_bit_by_bit(factor, stride):
    image = np.random.default_rng(0).random((2, 203, 161)).astype(np.float32)
    rescaling = Rescaling(factor, (203, 161), stride)
    expected = rescaling.resample(image, whole(rescaling))
    labels = np.random.default_rng(1).integers(0, 9, (1, *rescaling.size))
    back = rescaling.back(labels, whole(rescaling), Box(0, 203, 0, 161))
    for tile in tiles((203, 161), core=37, halo=11):
        box = rescaling.outer(tile.read)
        assert box.y0 % stride == 0 and box.x0 % stride == 0
        support = rescaling.support(box)
        found = rescaling.resample(cut(image, support), box)
        assert np.array_equal(found, cut(expected, box))
        assert np.array_equal(rescaling.back(cut(labels, box), box, tile.core), cut(back, tile.core))


@pytest.mark.parametrize("factor", FACTORS)
def test_a_halo_of_the_network_is_covered(factor):
    rescaling = Rescaling(factor, (900, 900))
    halo = rescaling.halo(20)
    for start in range(halo, 500, 7):
        box = rescaling.outer(Box(start - halo, start + 100 + halo, start - halo, start + 100 + halo))
        first, last = rescaling._nearest(start, start + 100, 0)[[0, -1]]
        assert box.y0 <= first - 20 and last + 20 < box.y1


@pytest.mark.parametrize("factor", FACTORS)
def test_a_constant_image_stays_constant(factor):
    rescaling = Rescaling(factor, (70, 90))
    block = np.full((1, 70, 90), 0.75, np.float32)
    box = whole(rescaling)
    np.testing.assert_allclose(rescaling.resample(cut(block, rescaling.support(box)), box), 0.75, rtol=1e-6)


def test_halves_are_means_and_doubles_lie_between():
    image = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
    half, double = Rescaling(0.5, (4, 6)), Rescaling(2, (4, 6))
    expected = image.reshape(1, 2, 2, 3, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(half.resample(image, whole(half)), expected)
    zoomed = ndimage.zoom(image[0], 2, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(double.resample(image, whole(double))[0], zoomed, rtol=1e-5)


@pytest.mark.parametrize("factor", FACTORS)
def test_objects_stay_where_they_are(factor):
    y, x = np.mgrid[:300, :300]
    disk = ((y - 140.0) ** 2 + (x - 171.0) ** 2 < 80**2).astype(np.float32)[None]
    rescaling = Rescaling(factor, (300, 300))
    box = whole(rescaling)
    back = rescaling.back(rescaling.resample(disk, box) > 0.5, box, Box(0, 300, 0, 300))
    assert ndimage.center_of_mass(back[0]) == pytest.approx((140, 171), abs=1 / factor / 4 + 0.1)
    assert back.sum() == pytest.approx(disk.sum(), rel=0.06)
