"""The sparse intersection: equal to counting pixels, whatever the layers, the order of ids and the tiling."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadArgument
from pipeline.metrics import overlap as module
from pipeline.metrics.overlap import (
    Overlap,
    merge,
    overlap,
    overlap_of_blocks,
    overlap_streamed,
    prediction_only,
    truth_only,
)
from pipeline.stack import masks_of, stack_from_masks

SHAPE = (9, 11)


def scene(seed: int, count: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Random rectangles that overlap, with gaps between their ids."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        mask = np.zeros(shape, bool)
        mask[y : y + rng.integers(1, 6), x : x + rng.integers(1, 6)] = True
        masks.append(mask)
    stack = stack_from_masks(masks, shape)
    ids = np.concatenate([[0], np.sort(rng.choice(np.arange(1, 10 * count + 2), count, replace=False))])
    return ids[stack].astype(np.uint32)


scenes = st.builds(scene, st.integers(0, 10**6), st.integers(0, 7))


def same(first: Overlap, second: Overlap) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("truth_atoms", "prediction_atoms", "pixels")
    )


@settings(max_examples=60, deadline=None)
@given(scenes, scenes)
def test_equals_counting_pixels(truth, prediction):
    result = overlap(truth, prediction)
    masks, found = dict(masks_of(truth)), dict(masks_of(prediction))
    assert result.truth_ids.tolist() == list(masks)
    assert result.prediction_ids.tolist() == list(found)
    assert result.truth_areas.tolist() == [int(m.sum()) for m in masks.values()]
    assert result.prediction_areas.tolist() == [int(m.sum()) for m in found.values()]
    expected = [
        (i, j, int((a & b).sum()), (a & b).sum() / (a | b).sum())
        for (i, a), (j, b) in product(enumerate(masks.values()), enumerate(found.values()))
        if (a & b).any()
    ]
    pairs = result.pairs
    got = list(zip(pairs.truth.tolist(), pairs.prediction.tolist(), pairs.pixels.tolist(), pairs.iou))
    assert got == expected
    alone = sum((m.astype(int) for m in masks.values()), np.zeros(SHAPE, int)) == 1
    assert result.truth_unshared_areas.tolist() == [int((m & alone).sum()) for m in masks.values()]
    some = (prediction > 0).any(axis=0)
    own, shared = result.truth_covered(np.ones(pairs.iou.size, bool))
    assert own.tolist() == [int((m & alone & some).sum()) for m in masks.values()]
    assert shared.tolist() == [int((m & ~alone & some).sum()) for m in masks.values()]
    assert not any(part.any() for part in result.truth_covered(np.zeros(pairs.iou.size, bool)))
    assert pairs.unshared_pixels.tolist() == [
        int((list(masks.values())[i] & list(found.values())[j] & alone).sum()) for i, j, *_ in expected
    ]
    assert result.truth_pixels == (truth > 0).any(axis=0).sum()
    assert result.prediction_pixels == some.sum()
    assert result.both_pixels == ((truth > 0).any(axis=0) & some).sum()
    assert result.pixels.sum() == SHAPE[0] * SHAPE[1]


@settings(max_examples=40, deadline=None)
@given(scenes, scenes, st.integers(1, 12), st.integers(1, 12))
def test_tiles_merge_into_the_whole(truth, prediction, height, width):
    whole = overlap(truth, prediction)
    corners = list(product(range(0, SHAPE[0], height), range(0, SHAPE[1], width)))
    tiles = [
        (truth[:, y : y + height, x : x + width], prediction[:, y : y + height, x : x + width])
        for y, x in corners
    ]
    assert same(merge([overlap(*tile) for tile in tiles]), whole)
    assert same(overlap_of_blocks(reversed(tiles)), whole)


@settings(max_examples=40, deadline=None)
@given(scenes, scenes, st.randoms(use_true_random=False))
def test_layers_are_only_places(truth, prediction, random):
    order = list(range(len(truth)))
    random.shuffle(order)
    padded = np.concatenate([truth[order], np.zeros((2, *SHAPE), np.uint32)])
    assert same(overlap(padded, prediction[::-1]), overlap(truth, prediction))


@pytest.mark.parametrize("block", [3, 7, 50])
def test_streamed_is_the_whole_image(block, monkeypatch):
    monkeypatch.setattr(module, "STRIP_PX", 40)
    shape = (37, 53)
    truth, prediction = scene(1, 12, shape), scene(2, 9, shape)
    asked = []

    def reader(stack):
        def read(y0, y1, x0, x1):
            asked.append((y1 - y0) * (x1 - x0))
            return stack[:, y0:y1, x0:x1]

        return read

    result = overlap_streamed(reader(truth), reader(prediction), shape, block_px=block)
    assert same(result, overlap(truth, prediction))
    assert max(asked) <= block * block
    assert sum(asked) == 2 * 37 * 53


def test_any_integer_type_three_axes_and_huge_ids():
    truth = np.zeros((1, 2, 3, 4), np.int64)
    truth[0, 1, :, 1:3] = 2**32 - 1
    prediction = np.asfortranarray(truth.astype(np.uint64))
    result = overlap(truth, prediction)
    assert result.truth_ids.tolist() == [2**32 - 1]
    assert result.pairs.pixels.tolist() == [6]
    assert same(overlap(truth[:, ::1], prediction), overlap(truth[:, ::-1], prediction[:, ::-1]))


def test_many_huge_ids_on_many_layers_do_not_collide():
    # Enough distinct ids on enough layers that a plain product of their numbers would pass 64 bits.
    rng = np.random.default_rng(3)
    truth = (rng.permutation(7 * 4000).reshape(7, 1, 4000) * 153_000 + 1).astype(np.uint32)
    result = overlap(truth, truth)
    assert result.pairs.pixels.size == 7 * 7 * 4000
    assert result.n_truth == 28_000
    assert (result.truth_areas == 1).all()


def test_one_side_missing():
    stack = scene(5, 6)
    missed, spurious = truth_only(stack), prediction_only(stack)
    assert (missed.n_truth, missed.n_prediction) == (spurious.n_prediction, 0)
    assert missed.pairs.iou.size == 0
    assert missed.pixels.sum() == stack[0].size
    assert same(missed, overlap(stack, np.zeros((1, *SHAPE), np.uint8)))
    assert same(spurious, overlap(np.zeros((3, *SHAPE), np.uint8), stack))


@pytest.mark.parametrize("shape", [(1, 0, 5), (2, 3, 0)])
def test_no_pixels(shape):
    empty = overlap(np.zeros(shape, np.uint32), np.zeros(shape, np.uint32))
    assert (empty.n_truth, empty.n_prediction, empty.pairs.iou.size) == (0, 0, 0)
    assert same(merge([]), empty)


def test_bad_stacks_are_refused_by_name():
    good = np.zeros((1, 4, 4), np.uint32)
    twice = np.zeros((2, 4, 4), np.uint32)
    twice[0, 0, 0] = twice[1, 3, 3] = 7
    with pytest.raises(BadArgument, match=r"\(1, 4, 4\).*\(1, 4, 5\)"):
        overlap(good, np.zeros((1, 4, 5), np.uint32))
    with pytest.raises(BadArgument, match=r"prediction: .*float32"):
        overlap(good, good.astype(np.float32))
    with pytest.raises(BadArgument, match=r"truth: .*bool"):
        overlap(good.astype(bool), good)
    with pytest.raises(BadArgument, match=rf"truth: .*{2**32}"):
        overlap(good.astype(np.int64) + 2**32, good)
    with pytest.raises(BadArgument, match=r"prediction: .*-1"):
        overlap(good, good.astype(np.int8) - 1)
    with pytest.raises(BadArgument, match=r"truth: .*id 7"):
        overlap(twice, good)
    with pytest.raises(BadArgument, match=r"truth: .*\(4,\)"):
        truth_only(np.zeros(4, np.uint32))
    with pytest.raises(BadArgument, match=r"prediction: .*layer.*\(0, 4, 4\)"):
        overlap(good, np.zeros((0, 4, 4), np.uint32))
    with pytest.raises(BadArgument, match=r"block_px: .*0"):
        overlap_streamed(lambda *_: good, lambda *_: good, (4, 4), block_px=0)


def test_an_id_that_changes_its_layer_between_strips_is_refused(monkeypatch):
    monkeypatch.setattr(module, "STRIP_PX", 4)
    twice = np.zeros((2, 4, 4), np.uint32)
    twice[0, 0, 0] = twice[1, 3, 3] = 7
    with pytest.raises(BadArgument, match=r"prediction: .*id 7"):
        overlap(np.zeros((1, 4, 4), np.uint32), twice)
