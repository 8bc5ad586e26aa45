"""Laws of exact stitching: however an image is cut, the same objects, ids, layers and rows come out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline import measure
from pipeline.errors import BadArgument
from pipeline.links import match_links, touch_links
from pipeline.measure import Frame
from pipeline.spans import paint, runs_of, spans_of_bits, spans_of_stack
from pipeline.stack import MOST_LAYERS, assign_layers
from pipeline.stitch import (
    DECIDING,
    Filters,
    Objects,
    border_spans,
    describe,
    join,
    whole,
)
from pipeline.tiling import tiles


def stitch(bits, image, core, filters=None, seed=0):
    """Cut into tiles of ``core``, describe in shuffled order, join, paint: the stack (L, y, x), objects, their rows."""
    frame = Frame(*bits.shape)
    parts = list(tiles(bits.shape, core=core))
    np.random.default_rng(seed).shuffle(parts)
    pieces = [
        describe(
            *spans_of_bits(
                np.ascontiguousarray(bits[tile.core.y0 : tile.core.y1, tile.core.x0 : tile.core.x1])
            ),
            tile.core,
            frame,
            channels=[image[tile.core.y0 : tile.core.y1, tile.core.x0 : tile.core.x1]],
        )
        for tile in parts
    ]
    offsets = np.cumsum([0, *(len(piece) for piece in pieces)])
    links = touch_links([border_spans(p, t.core) for p, t in zip(pieces, parts)], offsets)
    rows = measure.stacked([dict(p.rows) for p in pieces])
    shared = [measure.shared_pixels(p.overlaps) for p in pieces]
    objects = join(
        {name: rows[name] for name in DECIDING},
        np.concatenate([p.layer for p in pieces]),
        links,
        np.concatenate([pairs + o for (pairs, _), o in zip(shared, offsets)]),
        np.concatenate([pixels for _, pixels in shared]),
        filters or Filters(),
    )
    owners = np.split(objects.of_piece, offsets[1:-1])
    rows |= measure.stacked([measure.without_shared(p.rows, p.overlaps, o) for p, o in zip(pieces, owners)])
    stack = np.zeros((max(int(objects.layer.max(initial=0)) + 1, 1), *bits.shape), np.uint32)
    for tile, piece, offset in zip(parts, pieces, offsets):
        ids, output = objects.ids_and_layers(offset, len(piece))
        for layer in range(len(stack)):
            here = (ids > 0)[piece.span_piece] & (output == layer)[piece.span_piece]
            y, x = tile.core.within(tiles_frame(bits.shape))
            runs = runs_of(piece.spans.take(here), ids[piece.span_piece[here]])
            stack[layer, y, x] = paint(runs, tile.core.shape)
    return stack, objects, whole(rows, objects.of_piece, len(objects))


def tiles_frame(shape):
    return next(iter(tiles(shape, core=max(shape)))).core


def oracle(bits, layers, min_area):
    """Whole-image objects as (first pixel, layer, mask), by scipy, in canonical order."""
    found = []
    for layer in range(layers):
        labels, count = ndimage.label((bits >> layer) & 1, np.ones((3, 3)))
        for label in range(1, count + 1):
            mask = labels == label
            if mask.sum() >= min_area:
                found.append((int(np.flatnonzero(mask)[0]), layer, mask))
    return sorted(found, key=lambda item: item[:2])


@st.composite
def masks(draw):
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    layers = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = np.zeros(shape, np.uint8)
    for layer in range(layers):
        noise = ndimage.uniform_filter(rng.random(shape), draw(st.sampled_from([1, 3, 5])))
        bits |= (noise > draw(st.floats(0.35, 0.65))).astype(np.uint8) << np.uint8(layer)
    return bits, layers, rng.integers(0, 60000, shape).astype(np.uint16)


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(1, 41), st.integers(0, 6), st.integers(0, 99))
def test_cut_and_stitched_is_the_whole(case, core, min_area, seed):
    bits, layers, image = case
    stack, objects, rows = stitch(bits, image, core, Filters(min_area=min_area), seed)
    expected = oracle(bits, layers, min_area)
    assert len(objects) == len(expected)
    depth = sum((mask.astype(int) for _, _, mask in expected), np.zeros(bits.shape, int))
    for rank, (first, _, mask) in enumerate(expected):
        assert rows["first"][rank] == first
        assert (mask == (stack == rank + 1).any(axis=0)).all()
        assert rows["area"][rank] == mask.sum()
        assert rows["sum_0"][rank] == image[mask].astype(np.int64).sum()
        assert rows["sumsq_0"][rank] == (image[mask].astype(np.int64) ** 2).sum()
        assert rows["max_0"][rank] == image[mask].max()
        alone = mask & (depth == 1)
        assert rows["unshared"][rank] == alone.sum()
        assert rows["unshared_sum_0"][rank] == image[alone].astype(np.int64).sum()


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(1, 41), st.integers(1, 41))
def test_two_cuts_give_the_same_bytes(case, first, second):
    bits, _, image = case
    one, a, rows_a = stitch(bits, image, first, Filters(min_area=3), 1)
    two, b, rows_b = stitch(bits, image, second, Filters(min_area=3), 2)
    assert one.tobytes() == two.tobytes()
    assert all((rows_a[name] == rows_b[name]).all() for name in rows_a)
    assert (a.pairs == b.pairs).all() and (a.pair_pixels == b.pair_pixels).all()


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(2, 41))
def test_overlapping_objects_never_share_an_output_layer(case, core):
    bits, layers, image = case
    stack, objects, _ = stitch(bits, image, core)
    for a, b in objects.pairs:
        assert objects.layer[a] != objects.layer[b]
    # Every covered pixel of the mask is covered as often in the stack: nothing was painted over.
    depth = sum(((bits >> k) & 1).astype(int) for k in range(layers))
    assert ((stack > 0).sum(axis=0) == depth).all()
    assert len(np.unique(stack[stack > 0])) == len(objects) == stack.max(initial=0)


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(1, 41), st.integers(0, 30))
def test_objects_have_shared_pixels_if_and_only_if_they_have_a_partner_that_was_kept(case, core, min_area):
    bits, _, image = case
    _, objects, rows = stitch(bits, image, core, Filters(min_area=min_area))
    shared = measure.object_columns(rows, ["dna"], None)["overlap_px"] > 0
    assert np.flatnonzero(shared).tolist() == np.unique(objects.pairs).tolist()


def test_pixels_shared_with_a_dropped_object_are_not_shared():
    bits = np.zeros((8, 12), np.uint8)
    bits[1:7, 1:11] |= 1  # 60 px
    bits[2:4, 2:4] |= 2  # 4 px, dropped by the filter
    bits[5:8, 8:12] |= 4  # 12 px, of which 6 lie on the first
    image = np.arange(96, dtype=np.uint16).reshape(8, 12)
    for core in (3, 20):
        _, objects, rows = stitch(bits, image, core, Filters(min_area=10))
        table = measure.object_columns(rows, ["dna"], None)
        assert table["overlap_px"].tolist() == [6, 6] and objects.pairs.tolist() == [[0, 1]]
        alone = (bits & 1 > 0) & (bits & 4 == 0)
        assert table["unshared_mean_dna"][0] == image[alone].mean()


@settings(max_examples=40, deadline=None)
@given(masks())
def test_objects_with_shared_pixels_are_paired(case):
    bits, layers, image = case
    _, objects, _ = stitch(bits, image, 16)
    expected = oracle(bits, layers, 0)
    shared = {
        (i, j): int((expected[i][2] & expected[j][2]).sum())
        for i in range(len(expected))
        for j in range(i + 1, len(expected))
        if (expected[i][2] & expected[j][2]).any()
    }
    assert {(int(a), int(b)): int(n) for (a, b), n in zip(objects.pairs, objects.pair_pixels)} == shared


def test_a_worm_crosses_twenty_tiles_and_two_corners():
    bits = np.zeros((200, 200), np.uint8)
    for i in range(200):
        bits[i, max(i - 1, 0) : i + 1] = 1
    stack, objects, rows = stitch(bits, bits, 10)
    assert len(objects) == 1 and rows["area"][0] == bits.sum() and stack.max() == 1


def test_a_piece_below_the_filter_is_kept_when_the_object_is_large():
    bits = np.zeros((20, 20), np.uint8)
    bits[5, 1:19] = 1
    _, objects, _ = stitch(bits, bits, 3, Filters(min_area=18))
    assert len(objects) == 1
    _, objects, _ = stitch(bits, bits, 3, Filters(min_area=19))
    assert len(objects) == 0


def test_more_objects_than_sixteen_bits_hold():
    bits = np.zeros((600, 600), np.uint8)
    bits[::2, ::2] = 1
    stack, objects, _ = stitch(bits, bits, 100)
    assert len(objects) == 90_000 == stack.max()
    assert (np.diff(stack[0][::2, ::2].reshape(-1).astype(np.int64)) == 1).all()


def test_nothing_in_an_image_is_a_result():
    stack, objects, _ = stitch(np.zeros((7, 9), np.uint8), np.zeros((7, 9), np.uint16), 4)
    assert isinstance(objects, Objects) and len(objects) == 0 and not stack.any()


@settings(max_examples=40, deadline=None)
@given(masks())
def test_table_agrees_with_moments_computed_from_pixels(case):
    bits, layers, image = case
    _, _, rows = stitch(bits, image, 11)
    table = pd.DataFrame(measure.object_columns(rows, ["dna"], (0.5, 0.5)))
    for row, (_, _, mask) in zip(table.itertuples(), oracle(bits, layers, 0)):
        y, x = np.nonzero(mask)
        yy, xx, xy = y.var() + 1 / 12, x.var() + 1 / 12, ((y - y.mean()) * (x - x.mean())).mean()
        major, minor = np.linalg.eigvalsh([[yy, xy], [xy, xx]])[::-1]
        assert np.isclose(row.centroid_y, y.mean()) and np.isclose(row.centroid_x, x.mean())
        assert np.isclose(row.major_axis_px, 4 * np.sqrt(major))
        assert np.isclose(row.minor_axis_px, 4 * np.sqrt(minor))
        assert np.isclose(row.intensity_std_dna, image[mask].astype(float).std())
        assert (row.bbox_y0, row.bbox_x1) == (y.min(), x.max() + 1)
        assert row.touches_edge == (
            y.min() == 0 or x.min() == 0 or y.max() == len(bits) - 1 or x.max() == bits.shape[1] - 1
        )
        assert row.area_um2 == mask.sum() / 4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_spans_of_a_stack_paint_it_back(seed, layers):
    stack = np.random.default_rng(seed).integers(0, 4, (layers, 9, 7)).astype(np.uint32)
    spans, _, ids = spans_of_stack(stack)
    for layer in range(layers):
        here = spans.layer == layer
        runs = runs_of(spans.take(here), ids[here])
        assert (paint(runs, stack.shape[1:]) == stack[layer]).all()
        # As few as there can be: a run ends where the value does.
        changes = np.diff(np.pad(stack[layer], ((0, 0), (1, 0))).astype(np.int64), axis=1) != 0
        assert len(runs) == np.count_nonzero(changes & (stack[layer] > 0))


def test_match_joins_the_same_object_on_other_layers_and_never_by_containment():
    first, second = np.zeros((2, 20, 20), np.uint32), np.zeros((2, 20, 20), np.uint32)
    first[0, :, 2:18], first[1, 8:12, 8:12] = 1, 2
    second[1, :, 2:18], second[0, 8:12, 8:13] = 5, 6
    matches = match_links(first, second)
    assert {tuple(pair) for pair in matches.pairs.tolist()} == {(1, 5), (2, 6)} and not len(matches.ambiguous)
    second[0] = 0
    assert match_links(first, second).pairs.tolist() == [[1, 5]]


def test_match_refuses_a_tie():
    first, second = np.zeros((2, 2, 9), np.uint32), np.zeros((2, 2, 9), np.uint32)
    first[0], first[1] = 1, 2
    second[0], second[1] = 3, 4
    matches = match_links(first, second)
    assert not len(matches.pairs) and matches.ambiguous.tolist() == [1, 2]


def test_as_many_objects_over_each_other_as_there_are_layers_and_no_more():
    pairs = np.array([(a, b) for a in range(MOST_LAYERS) for b in range(a)])
    assert assign_layers(MOST_LAYERS, pairs).tolist() == list(range(MOST_LAYERS))
    one_more = np.array([(MOST_LAYERS, b) for b in range(MOST_LAYERS)])
    with pytest.raises(BadArgument, match="at most 255 objects over each other"):
        assign_layers(MOST_LAYERS + 1, np.concatenate([pairs, one_more]))
