"""The classical segmenter looks no further than it says: the core of a tile gets what the whole image gives."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.threshold import Threshold
from pipeline.tiling import tiles


def discs(seed, shape=(230, 260)):
    """Discs of many sizes, alone and touching, and regular ones whose centres are equally far apart."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    image = np.zeros(shape, np.float32)
    for cy, cx, r in zip(
        rng.integers(0, shape[0], 40), rng.integers(0, shape[1], 40), rng.integers(3, 40, 40)
    ):
        image[(y - cy) ** 2 + (x - cx) ** 2 <= r * r] = 1
    if seed % 2:
        image[:120, :120] = ((y % 30 - 15) ** 2 + (x % 30 - 15) ** 2 <= 15**2)[:120, :120]
    return image[None]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("method", ["otsu", "local"])
def test_a_tile_sees_what_the_whole_image_sees(seed, method):
    segmenter = Threshold(method=method, window_px=6.0)
    image = discs(seed)
    whole = segmenter(image)
    for tile in tiles(image.shape[1:], core=64 + seed, halo=segmenter.halo_px):
        y, x = (slice(tile.read.y0, tile.read.y1), slice(tile.read.x0, tile.read.x1))
        part = segmenter(image[:, y, x])[(slice(None), *tile.core.within(tile.read))]
        expected = whole[:, tile.core.y0 : tile.core.y1, tile.core.x0 : tile.core.x1]
        assert np.array_equal(part, expected), tile


def test_two_discs_that_touch_are_two_objects():
    y, x = np.indices((60, 90))
    image = ((y - 30) ** 2 + (x - 30) ** 2 <= 256) | ((y - 30) ** 2 + (x - 58) ** 2 <= 256)
    answer = Threshold()(image[None].astype(np.float32))
    assert ndimage.label(image, np.ones((3, 3)))[1] == 1
    assert ndimage.label(answer[0], np.ones((3, 3)))[1] == 2
    assert np.count_nonzero(image & ~answer[0]) < 60
    assert ndimage.label(Threshold(split_px=0)(image[None].astype(np.float32))[0])[1] == 1
