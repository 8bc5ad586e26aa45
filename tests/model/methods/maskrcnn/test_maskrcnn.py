"""Mask R-CNN: boxes, suppression, RoIAlign, targets, duplicates, and a tiny network that learns crossing bars."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.method import Phase
from model.methods.maskrcnn import MaskRcnn, assignment
from model.methods.maskrcnn.assignment import BACKGROUND, UNDECIDED, assign, sample
from model.methods.maskrcnn.boxes import (
    anchor_boxes,
    corrected,
    corrections,
    iou,
    suppress_boxes,
    survivors,
)
from model.methods.maskrcnn.decode import pixels_of, without_duplicates
from model.methods.maskrcnn.proposals import per_block
from model.methods.maskrcnn.targets import objects_of
from model.networks.folding import folded
from model.networks.regions import RegionShape
from model.networks.roi_align import level_of, pyramid_align, roi_align
from model.stacking import flattened, large_enough, stack_of_objects

NARROW = RegionShape(
    blocks=(1, 1), width=8, pyramid_width=16, box_width=32, mask_convs=1, anchor_ratios=(0.2, 1.0, 5.0)
)
TINY = MaskRcnn(shape=NARROW, proposals_before=200, proposals=40, regions=32, min_area=4)
ALL = Phase(name="regions", steps=1, weights=dict.fromkeys(MaskRcnn.terms, 1.0))

rectangles = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 24), st.integers(1, 24)), max_size=12
)


def boxes_from(rows: list[tuple[int, ...]]) -> np.ndarray:
    return np.array([(y, x, y + h, x + w) for y, x, h, w in rows], float).reshape(-1, 4)


def stack_from(rows: list[tuple[int, ...]], size: int = 64) -> np.ndarray:
    objects = []
    for y, x, h, w in rows:
        mask = np.zeros((size, size), bool)
        mask[y : y + h, x : x + w] = True
        objects.append(np.flatnonzero(mask))
    return stack_of_objects(objects, (size, size))


def masks_of(stack: np.ndarray) -> list[np.ndarray]:
    return [(stack == label).any(0) for label in np.unique(stack) if label]


def brute_force_iou(a: np.ndarray, b: np.ndarray) -> float:
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


@settings(max_examples=30, deadline=None)
@given(rows=rectangles, threshold=st.sampled_from([0.3, 0.5, 0.7]), seed=st.integers(0, 9))
def test_suppression_of_boxes_is_that_of_one_box_after_the_other(
    rows: list[tuple[int, ...]], threshold: float, seed: int
) -> None:
    boxes = boxes_from(rows)
    scores = np.random.default_rng(seed).integers(0, 4, len(boxes)).astype(float)
    expected: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(brute_force_iou(boxes[index], boxes[kept]) <= threshold for kept in expected):
            expected.append(int(index))
    assert suppress_boxes(boxes, scores, threshold=threshold).tolist() == expected
    own = torch.from_numpy(boxes)
    brute = [[brute_force_iou(a, b) for b in boxes] for a in boxes]
    np.testing.assert_allclose(iou(own, own).numpy().reshape(-1), np.reshape(brute, -1))


def test_a_removed_box_removes_none() -> None:
    assert survivors(4, np.array([0, 1, 2]), np.array([1, 2, 3])).tolist() == [0, 2]
    assert survivors(0, np.zeros(0, int), np.zeros(0, int)).tolist() == []


@settings(max_examples=30, deadline=None)
@given(rows=rectangles.filter(len))
def test_corrections_are_undone(rows: list[tuple[int, ...]]) -> None:
    truth = torch.from_numpy(boxes_from(rows))
    boxes = torch.tensor([[3.0, 5.0, 20.0, 44.0]], dtype=truth.dtype).expand(len(truth), 4)
    weights = (10.0, 10.0, 5.0, 5.0)
    torch.testing.assert_close(corrected(boxes, corrections(boxes, truth, weights), weights), truth)


def test_anchors_are_centred_on_cells_row_by_row() -> None:
    anchors = anchor_boxes([(2, 3), (1, 1)], [4, 8], cells=[2.0], ratios=[1.0, 4.0])
    assert anchors.shape == (14, 4)
    assert anchors[0].tolist() == [-2, -2, 6, 6] and anchors[1].tolist() == [-6, 0, 10, 4]
    assert anchors[2].tolist() == [-2, 2, 6, 10] and anchors[-2].tolist() == [-4, -4, 12, 12]


def test_roi_align_of_a_ramp_is_the_place_of_its_samples() -> None:
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    maps = torch.stack([y, x]) * 4 + 2  # at the centre of a cell: its place in pixels
    aligned = roi_align(maps, torch.tensor([[8.0, 12.0, 36.0, 40.0]]), stride=4, size=7)
    assert aligned.shape == (1, 2, 7, 7)
    torch.testing.assert_close(aligned[0, 0, :, 0], 8 + 4 * (torch.arange(7) + 0.5))
    torch.testing.assert_close(aligned[0, 1, 0], 12 + 4 * (torch.arange(7) + 0.5))


def test_boxes_read_the_level_of_their_size_and_the_image_they_are_in() -> None:
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [0, 0, 120, 120], [0, 0, 900, 900]])
    assert level_of(boxes, (4, 8, 16)).tolist() == [0, 1, 2]
    levels = [torch.full((2, 1, 64 // s, 64 // s), float(s)) for s in (4, 8)]
    for maps in levels:
        maps[1] += 100
    aligned = pyramid_align(levels, (4, 8), [boxes[:1], boxes[1:2]], size=2)
    assert aligned[:, 0, 0, 0].tolist() == [4, 108]
    assert pyramid_align(levels, (4, 8), [boxes[:0], boxes[:0]], size=2).shape == (0, 1, 2, 2)


def test_boxes_stand_for_objects_whatever_is_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 52, 52]])
    boxes = torch.tensor(
        [[0.0, 0, 10, 10], [0, 0, 10, 18], [40, 0, 50, 10], [18, 18, 34, 34], [49, 49, 56, 56]]
    )
    chosen = assign(boxes, truth, low=0.3, high=0.7)
    assert chosen.tolist() == [0, UNDECIDED, BACKGROUND, UNDECIDED, BACKGROUND]
    forced = assign(boxes, truth, low=0.3, high=0.7, at_least_one=True)
    assert forced.tolist() == [0, UNDECIDED, BACKGROUND, 1, 2]
    monkeypatch.setattr(assignment, "AT_ONCE", 2)
    assert assign(boxes, truth, low=0.3, high=0.7, at_least_one=True).equal(forced)
    assert assign(boxes, truth[:0], low=0.3, high=0.7).tolist() == [BACKGROUND] * 5


def test_choices_repeat_with_the_generator_and_keep_their_share() -> None:
    chosen = torch.tensor([0, 1, 2, 3, BACKGROUND, BACKGROUND, BACKGROUND, UNDECIDED] * 4)
    first, again = (
        sample(chosen, count=12, share=0.25, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert len(first[0]) == 3 and (chosen[first[0]] >= 0).all()
    assert len(first[1]) == 9 and (chosen[first[1]] == BACKGROUND).all()


@settings(max_examples=30, deadline=None)
@given(rows=rectangles)
def test_boxes_and_masks_of_the_truth_give_the_objects_back(rows: list[tuple[int, ...]]) -> None:
    stack = stack_from(rows)
    objects = objects_of(stack)
    count = len(objects.boxes)
    cells = objects.seen_through(objects.boxes, torch.arange(count), size=28).numpy()
    outputs = {"boxes": objects.boxes.numpy(), "scores": np.linspace(1, 0.6, count), "masks": cells}
    decoded = replace(TINY, min_area=0, mask_iou=0.999).decode(outputs, (64, 64))
    unique = {mask.tobytes() for mask in masks_of(stack)}
    assert {mask.tobytes() for mask in masks_of(decoded)} == unique


def test_a_mask_is_interpolated_and_cut_at_the_image() -> None:
    disc = (np.add.outer((np.arange(28) - 13.5) ** 2, (np.arange(28) - 13.5) ** 2) <= 14**2).astype(float)
    y, x = np.mgrid[:80, :80] + 0.5
    expected = (y - 40) ** 2 + (x - 30) ** 2 <= 25**2
    found = np.zeros(6400, bool)
    found[pixels_of(disc, np.array([15.0, 5.0, 65.0, 55.0]), (80, 80))] = True
    assert (found.reshape(80, 80) ^ expected).sum() < 0.05 * expected.sum()
    cut = pixels_of(np.ones((28, 28)), np.array([-10.0, 70.5, 3.0, 95.0]), (80, 80))
    assert sorted(set(cut // 80)) == [0, 1, 2] and sorted(set(cut % 80)) == list(range(70, 80))
    assert not len(pixels_of(np.ones((28, 28)), np.array([5.6, 5.6, 6.4, 6.4]), (80, 80)))


def test_duplicates_by_mask_go_and_overlaps_stay() -> None:
    bar, shifted, across = (np.arange(100), np.arange(20, 120), np.arange(50, 5000, 100))
    kept = without_duplicates([bar, across, shifted, np.zeros(0, int)], size=10_000, threshold=0.5)
    assert [len(pixels) for pixels in kept] == [100, 50]
    assert len(without_duplicates([bar, shifted], size=10_000, threshold=0.7)) == 2
    assert without_duplicates([], size=100, threshold=0.5) == []


def test_stacks_of_objects() -> None:
    stack = stack_of_objects([np.arange(4), np.arange(3, 8), np.zeros(0, int), np.array([9])], (2, 5))
    assert stack.reshape(2, -1).tolist() == [[1, 1, 1, 1, 0, 0, 0, 0, 0, 4], [0, 0, 0, 2, 2, 2, 2, 2, 0, 0]]
    assert large_enough(stack, min_area=2).reshape(2, -1)[0].tolist() == [1, 1, 1, 1] + [0] * 6
    assert large_enough(stack, min_area=5).shape == (2, 2, 5) and large_enough(stack, min_area=6).shape == (
        1,
        2,
        5,
    )
    assert flattened(stack).reshape(-1).tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 0, 4]
    assert stack_of_objects([], (2, 5)).shape == (1, 2, 5)


def test_limits_grow_with_the_area_of_a_tile() -> None:
    assert per_block(100, (64, 64)) == 100 and per_block(100, (512, 1024)) == 800


@pytest.mark.parametrize(
    "stack",
    [np.zeros((1, 64, 64), np.uint32), stack_from([(4, 9, 20, 13)]), np.full((1, 64, 64), 7, np.uint32)],
)
def test_losses_and_gradients_are_finite(stack: np.ndarray) -> None:
    network = TINY.network(1)
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    targets = TINY.encode([stack, stack])
    terms = TINY.losses(network, images, targets, ALL, torch.Generator().manual_seed(1))
    assert set(terms) == set(TINY.terms) and all(torch.isfinite(term) for term in terms.values())
    sum(terms.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    again = TINY.losses(network, images, targets, ALL, torch.Generator().manual_seed(1))
    assert {name: float(term.detach()) for name, term in again.items()} == {
        name: float(term.detach()) for name, term in terms.items()
    }


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_folded_network_answers_the_same(bottleneck: bool) -> None:
    torch.manual_seed(0)
    method = replace(TINY, shape=replace(NARROW, bottleneck=bottleneck), score=0.01)
    network = method.network(3)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        network.pyramid(images)  # moves the statistics of batch norm
        own = network.eval().pyramid(images)
        for mine, theirs in zip(own, folded(network).pyramid(images), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
        outputs = method.outputs(network, images)
    assert outputs["boxes"].shape[::2] == (2, 4) and outputs["masks"].shape[2:] == (28, 28)
    assert method.decode({name: value[0].numpy() for name, value in outputs.items()}, (60, 90)).shape[1:] == (
        60,
        90,
    )


def test_a_higher_score_may_be_asked_of_outputs_that_were_made_for_a_lower_one() -> None:
    torch.manual_seed(0)
    low = replace(TINY, score=0.01, min_area=0)
    network = low.network(1).eval()
    images = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        scores = np.sort(low.outputs(network, images)["scores"].numpy().ravel())
        high = replace(low, score=float(scores[len(scores) // 2]))
        all_of_them, fewer = (
            {n: v[0].numpy() for n, v in m.outputs(network, images).items()} for m in (low, high)
        )
    assert 0 < len(fewer["scores"]) < len(all_of_them["scores"])
    assert np.array_equal(high.decode(all_of_them, (64, 64)), high.decode(fewer, (64, 64)))


@pytest.mark.parametrize(
    "wrong", [{"score": 0.0}, {"mask_iou": 1.0}, {"detections": 0}, {"min_area": -1}, {"object_px": 0}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"maskrcnn: expected .*{next(iter(wrong))}"):
        MaskRcnn(**wrong)


@pytest.mark.parametrize("wrong", [{"blocks": ()}, {"anchor_cells": (0,)}, {"width": 0}])
def test_networks_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"network .*: expected"):
        RegionShape(**wrong)


def test_crossing_bars_are_learnt_with_the_pixels_they_share(crossing: tuple[np.ndarray, np.ndarray]) -> None:
    torch.manual_seed(0)
    image, stack = crossing
    images, targets = torch.from_numpy(image)[None], TINY.encode([stack])
    network = TINY.network(1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for step in range(61):
        optimiser.zero_grad()
        terms = TINY.losses(network, images, targets, ALL, torch.Generator().manual_seed(step))
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
    with torch.inference_mode():
        outputs = TINY.outputs(network, images)
    decoded = TINY.decode({name: value[0].numpy() for name, value in outputs.items()}, (64, 64))
    found = masks_of(decoded)
    for mask in masks_of(stack):
        assert max((mask & other).sum() / (mask | other).sum() for other in found) > 0.7
    assert len(decoded) >= 2 and (decoded > 0).sum(0).max() >= 2
    flat = TINY.without_overlaps().decode(
        {name: value[0].numpy() for name, value in outputs.items()}, (64, 64)
    )
    assert len(flat) == 1
