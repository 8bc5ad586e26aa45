"""UNet-3: contours, growth that keeps objects apart, and what perfect outputs give back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from model.methods.unet3 import UNet3
from model.methods.unet3.contours import contours
from model.methods.unet3.growth import grown
from model.networks.unet import UNetShape

EIGHT = np.ones((3, 3))


def round_trip(stack: np.ndarray, **options: bool) -> np.ndarray:
    method = UNet3(min_area=0, **options)
    outputs = {name: maps[0].float().numpy() for name, maps in method.encode([stack]).by_name.items()}
    return method.decode(outputs, stack.shape[1:])


@settings(deadline=None, max_examples=100)
@given(cores=arrays(bool, (12, 13)), free=arrays(bool, (12, 13)), steps=st.integers(0, 6))
def test_growth_stays_within_bounds_and_keeps_the_number_of_objects(
    cores: np.ndarray, free: np.ndarray, steps: int
) -> None:
    answer = grown(cores, cores | free, steps)
    assert (answer >= cores).all() and (answer <= (cores | free)).all()
    labels, count = ndimage.label(answer, EIGHT)
    assert count == ndimage.label(cores, EIGHT)[1]
    assert set(np.unique(labels[cores])) == set(range(1, count + 1)) or not cores.any()
    assert (
        not (answer & (ndimage.distance_transform_cdt(~cores, "taxicab") > 2 * steps)).any()
        or not cores.any()
    )


def test_growth_fills_a_slit_and_leaves_a_line_between_two() -> None:
    cores = np.ones((9, 20), bool)
    cores[:, 9:12] = False
    two = grown(cores, np.ones_like(cores), 4)
    assert (~two).sum() == 9 and ndimage.label(two, EIGHT)[1] == 2
    cores[0] = True  # now it is a slit in one object
    assert ndimage.label(cores, EIGHT)[1] == 1 and grown(cores, np.ones_like(cores), 12).all()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), steps=st.integers(1, 4))
def test_growth_in_a_tile_is_that_in_the_image(seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((60, 60)), 2)
    within = smooth > np.quantile(smooth, 0.4)
    cores = within & (rng.random((60, 60)) < 0.6)
    halo = 4 * steps
    whole = grown(cores, within, steps)[20:40, 20:40]
    window = np.s_[20 - halo : 40 + halo, 20 - halo : 40 + halo]
    assert np.array_equal(grown(cores[window], within[window], steps)[halo:-halo, halo:-halo], whole)


@pytest.mark.parametrize("widen", [True, False])
@settings(deadline=None, max_examples=20)
@given(sizes=st.tuples(*[st.integers(12, 20)] * 2), gap=st.integers(0, 3))
def test_perfect_outputs_part_objects_that_touch_along_one_line(
    widen: bool, sizes: tuple[int, int], gap: int
) -> None:
    stack = np.zeros((1, 30, 48), np.uint32)
    stack[0, 5:25, 3 : 3 + sizes[0]] = 1
    start = 3 + sizes[0] + gap
    stack[0, 5:25, start : start + sizes[1]] = 2
    found = round_trip(stack, widen=widen)[0]
    assert found.max() == 2
    lost = (stack[0] > 0) & (found == 0)
    assert lost.sum() <= 3 * 20 + 4  # a line between the two, and corners
    for label in (1, 2):
        same = (found == label) & (stack[0] == label)
        assert same.sum() / ((found == label) | (stack[0] == label)).sum() > 0.85


def test_crossing_bars_are_cut_along_the_middle_of_what_they_share(
    crossing: tuple[np.ndarray, np.ndarray],
) -> None:
    found = round_trip(crossing[1])
    assert found.shape[0] == 1 and 2 <= found.max() <= 5


def test_contours_are_lines_of_three_pixels_and_not_at_the_border_of_the_image() -> None:
    stack = np.zeros((1, 20, 20), np.uint32)
    assert not contours(stack).any()
    stack[0, :, :10] = 1
    lines = contours(stack)
    assert set(lines.sum(1)[2:-2]) == {3} and not lines[:, :7].any()


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="heads"):
        UNet3(shape=UNetShape())
    with pytest.raises(ValueError, match="growth_px of 0 to 64, got -1"):
        UNet3(growth_px=-1)
