"""Focus and saturation: the same for every cut of the image, low for blurred images, and clipped pixels counted."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.focus import cells_over, flags, focus_of, out_of_focus, quality_sums, saturation_of
from pipeline.tiling import tiles


def discs(seed=0, shape=(300, 410), sigma=1.0, brightness=2000.0, objects=40, noise=20.0):
    """Discs of 9 px on a dark background, blurred by ``sigma``, with the noise of a camera on top."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for cy, cx in random.random((objects, 2)) * shape:
        image[(y - cy) ** 2 + (x - cx) ** 2 < 81] += brightness
    image = ndimage.gaussian_filter(image, sigma) + 300 + random.normal(0, noise, shape)
    return np.clip(np.round(image), 0, 65535).astype(np.uint16)


def sums_of(image, core=10**6):
    """Sums over the tiles of an image ``(C, y, x)``."""
    extent = image.shape[-2:]

    def cut(box):
        return image[:, box.y0 : box.y1, box.x0 : box.x1]

    cores = [tile.core for tile in tiles(extent, core=core)]
    return [quality_sums(cut(core), cut(cells_over(core, extent))) for core in cores]


def focus(image, **options):
    return focus_of(sums_of(image[None], **options), 0)


@pytest.mark.parametrize("core", [1, 37, 64, 100, 299])
def test_sums_over_any_tiles_are_those_of_the_whole_image(core):
    image = discs(shape=(75, 110) if core == 1 else (300, 410))
    image = np.stack([image, np.minimum(image, 900)])
    whole, cut = sums_of(image), sums_of(image, core=core)
    for channel in (0, 1):
        assert focus_of(cut, channel) == focus_of(whole, channel) > 0
        assert saturation_of(cut, channel) == saturation_of(whole, channel)


def test_blur_lowers_the_focus_whatever_the_brightness_and_the_number_of_objects():
    scenes = [{"brightness": b, "objects": n} for b in (300, 2000) for n in (10, 80)]
    sharp = [focus(discs(**scene)) for scene in scenes]
    blurred = [focus(discs(**scene, sigma=4.0)) for scene in scenes]
    assert max(sharp) < 2 * min(sharp)
    assert max(blurred) < 0.4 * min(sharp)


def test_focus_needs_something_to_be_sharp():
    assert np.isnan(focus(discs(objects=0)))
    assert np.isnan(focus(np.full((64, 64), 7, np.uint16)))
    assert np.isnan(focus(discs(shape=(12, 12))))


def test_float_images_have_the_focus_of_their_integers():
    image = discs()
    assert focus(image.astype(np.float32)) == pytest.approx(focus(image))


def test_clipped_pixels_are_those_that_pile_up_or_reach_the_end_of_the_type():
    image = discs(noise=60)
    share = float((image >= 1500).mean())
    saturation = saturation_of(sums_of(np.minimum(image, 1500)[None]), 0)
    assert saturation == pytest.approx(share) and share > 0.01
    assert saturation_of(sums_of(image[None]), 0) == 0
    eight_bit = np.minimum(image // 4, 255).astype(np.uint8)
    assert saturation_of(sums_of(eight_bit[None]), 0) == pytest.approx((image // 4 >= 255).mean())
    assert np.isnan(saturation_of(sums_of(np.zeros((1, 20, 20), np.uint16)), 0))


def test_an_image_is_out_of_focus_against_the_others_of_its_run():
    usual = np.array([0.5, 0.55, 0.6, 0.5, 0.45])
    assert out_of_focus(np.append(usual, [0.1, np.nan])).tolist() == [False] * 5 + [True, False]
    assert not out_of_focus(np.array([0.5, 0.5, 0.5, 0.1])).any()  # too few to know what is usual
    spread = np.array([0.1, 0.2, 0.4, 0.8, 1.6, 0.05])
    assert not out_of_focus(spread).any()  # plates on which focus means nothing


def test_flags_name_the_channels():
    focus_by_image = {str(i): {"DAPI": 0.5, "GFP": 0.4} for i in range(6)} | {
        "b": {"DAPI": 0.05, "GFP": None}
    }
    saturated = {"0": {"DAPI": 0.0, "GFP": 0.02}, "b": {"DAPI": 0.002, "GFP": None}}
    assert flags(focus_by_image, saturated) == {
        "0": ["saturated (GFP)"],
        "b": ["out of focus (DAPI)", "saturated (DAPI)"],
    }
