"""Outlines: one pixel wide, overlapping objects both visible, no id invented, sizes within their budget."""

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pipeline.errors import BadArgument
from pipeline.report.overlay import (
    eight_bit,
    encoded,
    encoded_lines,
    line_numbers,
    outline_mask,
    outlined,
    scaled_labels,
    shown_shape,
)
from pipeline.report.palette import LAYER_COLOURS, rgb
from pipeline.report.pictures import MOST_NAMED, contours, fullest_part, layer_outlines


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def square(shape, y0, y1, x0, x1, label=1):
    layer = np.zeros(shape, np.uint32)
    layer[y0:y1, x0:x1] = label
    return layer


def polygon_area(path):
    """Area inside an SVG path by the shoelace formula; rings in one sense count against those in the other."""
    total = 0.0
    for ring in path.split("M")[1:]:
        points = np.array([[float(part) for part in pair.split()] for pair in ring.rstrip("Z").split("L")])
        x, y = points.T
        total += (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2
    return abs(total)


def test_outline_is_one_pixel_wide_and_inside():
    layer = square((12, 12), 3, 9, 2, 8)
    mask = outline_mask(layer)
    expected = layer > 0
    expected[4:8, 3:7] = False
    np.testing.assert_array_equal(mask, expected)


def test_touching_objects_have_two_lines():
    layer = square((6, 8), 1, 5, 1, 4) + square((6, 8), 1, 5, 4, 7, label=2)
    np.testing.assert_array_equal(outline_mask(layer)[2], [0, 1, 0, 1, 1, 0, 1, 0])


def test_overlapping_objects_are_both_visible():
    stack = np.stack([square((300, 300), 40, 160, 40, 160), square((300, 300), 100, 220, 100, 220, label=2)])
    picture = outlined(np.zeros((300, 300)), stack, longest_px=300)
    for layer, colour in zip(stack, LAYER_COLOURS):
        line = outline_mask(layer)
        seen = (picture[line] == rgb(colour)).all(axis=1).mean()
        assert seen > 0.9  # all but some of the crossing pixels


def test_small_images_are_shown_at_twice_their_size_and_large_ones_shrunk():
    assert shown_shape((100, 60), 700) == (200, 120)
    assert shown_shape((2000, 1000), 700) == (700, 350)
    assert shown_shape((500, 400), 700) == (500, 400)
    assert shown_shape((5000, 1), 700) == (700, 1)


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.uint32, st.tuples(st.integers(1, 20), st.integers(1, 20))),
    st.integers(1, 50),
    st.integers(1, 50),
)
def test_scaled_labels_invent_no_id(layer, height, width):
    scaled = scaled_labels(layer, (height, width))
    assert scaled.shape == (height, width)
    assert set(np.unique(scaled)) <= set(np.unique(layer))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_eight_bit_stretches_any_dtype(dtype):
    image = eight_bit(np.arange(400).reshape(20, 20).astype(dtype) % 251, brightest=165)
    assert (image.min(), image.max(), image.dtype) == (0, 165, np.uint8)


def test_constant_and_broken_pixels():
    assert set(np.unique(eight_bit(np.full((4, 4), 7)))) == {128}
    image = np.array([[np.nan, 1.0], [2.0, np.inf]])
    assert eight_bit(image)[0, 0] == 0
    assert eight_bit(np.full((3, 3), np.nan)).max() == 0


def test_colour_images_are_refused():
    with pytest.raises(BadArgument, match="choose one channel"):
        eight_bit(np.zeros((3, 8, 8)))


def test_a_stack_of_another_size_is_refused():
    with pytest.raises(BadArgument, match=r"\(L, 8, 8\), got \(1, 9, 8\)"):
        outlined(np.zeros((8, 8)), np.zeros((1, 9, 8), np.uint32), longest_px=8)


def test_pictures_keep_their_budget():
    noise = np.random.default_rng(0).integers(0, 255, (400, 400), dtype=np.uint8)
    for budget in (60_000, 6_000, 1_500):
        assert len(encoded(noise, budget_bytes=budget)) <= budget + 40
    assert decoded(encoded(noise, budget_bytes=200_000)).size == (400, 400)


def test_lines_keep_their_colour_and_are_transparent_elsewhere():
    numbers = line_numbers(square((40, 40), 10, 30, 10, 30)[None], (40, 40))
    image = np.asarray(decoded(encoded_lines(numbers)).convert("RGBA"))
    np.testing.assert_array_equal(image[..., 3] > 0, numbers > 0)
    assert {tuple(pixel) for pixel in image[numbers > 0][:, :3].tolist()} == {rgb(LAYER_COLOURS[0])}


def test_lines_by_number_leave_out_what_has_none():
    layer = square((20, 20), 2, 8, 2, 8, label=5) + square((20, 20), 10, 18, 10, 18, label=9)
    numbers = line_numbers(layer[None], (20, 20), numbers={9: 3})
    assert set(np.unique(numbers)) == {0, 3}
    assert not numbers[:9].any()


def test_pictures_are_deterministic():
    rng = np.random.default_rng(1)
    grey, stack = rng.normal(size=(90, 80)), rng.integers(0, 4, (2, 90, 80)).astype(np.uint32)
    assert encoded(eight_bit(grey), budget_bytes=9000) == encoded(eight_bit(grey), budget_bytes=9000)
    assert list(contours(stack)) == list(contours(stack))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(0, 5), st.integers(0, 5))
def test_contour_encloses_the_object(height, width, top, left):
    layer = square((20, 20), top, top + height, left, left + width, label=1234567)
    ((label, index, path),) = contours(layer[None])
    assert (label, index) == (1234567, 0)
    # marching squares cuts half a pixel's corner at each of four corners
    assert polygon_area(path) == pytest.approx(height * width, abs=0.5 * (height + width) + 0.6)
    numbers = [float(part) for part in re.findall(r"-?\d+(?:\.\d+)?", path)]
    assert min(numbers[0::2]) == pytest.approx(left, abs=0.01)
    assert max(numbers[1::2]) == pytest.approx(top + height, abs=0.01)


def test_contours_of_objects_with_holes_and_specks():
    layer = square((12, 12), 1, 10, 1, 10)
    layer[4:7, 4:7] = 0
    layer[11, 11] = 7
    found = {label: path for label, _, path in contours(layer[None])}
    assert found[1].count("M") == 2
    assert polygon_area(found[7]) > 0.4


def test_too_many_objects_become_one_path_per_layer():
    rows = (MOST_NAMED // 40 + 2) * 3
    layer = np.zeros((rows, 120), np.uint32)
    layer[::3, ::3] = np.arange(1, layer[::3, ::3].size + 1).reshape(layer[::3, ::3].shape)
    outlines = layer_outlines(layer[None])
    assert len(outlines) == 1
    assert outlines[0].path.count("M") == layer.max() > MOST_NAMED


def test_the_fullest_part_is_where_the_objects_are():
    stack = square((3000, 2000), 2500, 2600, 1500, 1600)[None]
    part = fullest_part(stack, (3000, 2000), 640)
    assert stack[:, *part].sum() == 100 * 100
    assert stack[:, *part].shape == (1, 640, 640)
    assert fullest_part(None, (3000, 2000), 640) == (slice(1180, 1820), slice(680, 1320))
    assert fullest_part(None, (100, 2000), 640)[0] == slice(0, 100)
