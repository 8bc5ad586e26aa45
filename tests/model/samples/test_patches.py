"""Geometry, copy-paste and crops: overlaps survive, labels follow the pixels, a step decides its batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.classes import class_of, with_classes
from model.errors import BadSample
from model.methods.layering import Layering
from model.methods.layering.adjacency import adjacent_pairs
from model.samples.augment import Augment, resample, sampling_grid
from model.samples.paste import bank_of, cut_out, paste
from model.samples.patches import Patches, check_depth, check_samples

Scene = tuple[np.ndarray, np.ndarray]
PREPARE = Layering(adjacency_px=15).prepare
STILL = Augment(
    exact=1.0, elastic=0.0, gamma=0.0, contrast=0.0, brightness=0.0, noise=0.0, blur=0.0, paste=0.0
)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_pixels_and_ids_move_together_and_overlaps_stay(seed: int) -> None:
    stack = np.zeros((2, 64, 64), np.int32)
    stack[0, 24:38, 8:56], stack[1, 8:56, 24:38] = 1, 2
    image = torch.from_numpy((stack > 0).sum(0).astype(np.float32))[None]
    grid = sampling_grid(np.random.default_rng(seed), Augment(scale=1.3), centre=(31.5, 31.5), size=48).grid
    pixels, ids = resample(image, torch.from_numpy(stack), grid)
    depth = (ids > 0).sum(0).numpy()
    assert depth.max() == 2
    wrong = np.abs(pixels[0].numpy() - depth) > 0.51
    assert wrong.mean() < 0.01
    assert set(np.unique(ids[0])) <= {0, 1} and set(np.unique(ids[1])) <= {0, 2}


def test_exact_crops_keep_every_value() -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.random((2, 20, 20), dtype=np.float32))
    stack = torch.arange(1, 401, dtype=torch.int32).view(1, 20, 20)
    for seed in range(8):
        grid = sampling_grid(np.random.default_rng(seed), Augment(exact=1.0), centre=(9.5, 9.5), size=20).grid
        pixels, ids = resample(image, stack, grid)
        places = ids[0].long() - 1
        assert sorted(places.ravel().tolist()) == list(range(400))
        torch.testing.assert_close(pixels, image.view(2, -1)[:, places], atol=1e-4, rtol=0)


def test_outside_the_image_there_is_nothing() -> None:
    grid = sampling_grid(np.random.default_rng(0), Augment(exact=1.0), centre=(0.0, 0.0), size=8).grid
    pixels, ids = resample(torch.ones(1, 8, 8), torch.ones(1, 8, 8, dtype=torch.int32), grid)
    assert 9 <= int(ids.sum()) <= 25
    assert float(pixels.sum()) == pytest.approx(float(ids.sum()), abs=1e-3)


def deeper(stack: np.ndarray) -> torch.Tensor:
    """A stack as a tensor with one more layer, which is empty."""
    return torch.from_numpy(np.concatenate([stack, np.zeros_like(stack[:1])]).astype(np.int32))


def test_a_pasted_object_overlaps_and_leaves_the_others_whole(crossing: Scene) -> None:
    image, stack = crossing
    cut = cut_out(image, stack, 1)
    assert cut.contrast.shape[1:] == cut.mask.shape and cut.mask.sum() == (stack == 1).sum()
    before, after = deeper(stack), deeper(stack)
    pixels = torch.from_numpy(image.copy())
    paste(pixels, after, cut, centre=(40, 32), label=3)
    for label in (1, 2):
        assert torch.equal((after == label).any(0), (before == label).any(0))
    assert ((after == 3).any(0) & (before > 0).any(0)).any()
    assert len(torch.unique(torch.nonzero(after == 3)[:, 0])) == 1
    assert float(pixels.sum()) > float(image.sum())


def test_an_object_that_finds_no_free_layer_is_not_pasted(crossing: Scene) -> None:
    image, stack = crossing
    cut = cut_out(image, stack, 1)
    pixels, ids = torch.from_numpy(image.copy()), torch.from_numpy(stack.astype(np.int32))
    paste(pixels, ids, cut, centre=(31, 32), label=3)
    assert torch.equal(ids, torch.from_numpy(stack.astype(np.int32)))
    assert torch.equal(pixels, torch.from_numpy(image))


def test_objects_pasted_beyond_the_edge_are_cut_off(crossing: Scene) -> None:
    image, stack = crossing
    cut = cut_out(image, stack, 1)
    ids = deeper(stack)
    paste(torch.from_numpy(image.copy()), ids, cut, centre=(63, 63), label=3)
    assert 0 < int((ids == 3).sum()) < cut.mask.sum()
    away = deeper(stack)
    paste(torch.from_numpy(image.copy()), away, cut, centre=(300, 0), label=3)
    assert torch.equal(away, deeper(stack))


def test_turns_keep_the_parts_of_a_cut_out_together(crossing: Scene) -> None:
    cut = cut_out(*crossing, 1)
    for quarters in range(4):
        for flipped in (False, True):
            turned = cut.turned(quarters, flipped=flipped)
            assert turned.mask.shape == turned.contrast.shape[1:]
            inside = turned.contrast[0][turned.mask]
            assert float(inside.min()) >= 1 and int(turned.mask.sum()) == int(cut.mask.sum())


def test_a_cut_out_takes_the_contrast_that_is_asked_for(crossing: Scene) -> None:
    cut = cut_out(*crossing, 1)
    assert float(cut.height) == pytest.approx(float(cut.contrast[0][cut.mask].mean()))
    bright = cut.scaled_to(torch.full((1, 1, 1), 5.0))
    assert float(bright.contrast[0][cut.mask].mean()) == pytest.approx(5.0, rel=1e-5)


def test_a_bank_holds_every_object_once_and_of_many_a_choice(
    crossing: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, stack = crossing
    boxes = [[(slice(26, 36), slice(6, 58)), (slice(6, 58), slice(26, 36))]]
    bank = bank_of([(image, stack)], boxes, seed=0)
    assert sorted(tuple(cut.mask.shape) for cut in bank) == [(22, 64), (64, 22)]
    faint = np.where(stack[:1] == 1, 0.1, image).astype(np.float32)
    assert len(bank_of([(image, stack), (faint, stack)], boxes * 2, seed=0)) == 3
    monkeypatch.setattr("model.samples.paste.MOST_CUT_OUTS", 1)
    assert len(bank_of([(image, stack)], boxes, seed=0)) == 1


def test_a_step_decides_its_batch(crossing: Scene) -> None:
    samples = [crossing, (crossing[0] * 2, crossing[1] + 3 * (crossing[1] > 0).astype(np.uint32))]
    first, again = (
        Patches(samples, crop_px=32, augment=Augment(paste=1.0), prepare=PREPARE, seed=7) for _ in range(2)
    )
    first.batch(0, 2)
    one, two = first.batch(5, 3), again.batch(5, 3)
    assert torch.equal(one.images, two.images)
    assert all(np.array_equal(a, b) for a, b in zip(one.stacks, two.stacks, strict=True))
    assert not torch.equal(one.images, first.batch(6, 3).images)
    halves = [again.batch(5, 1, first=index).images for index in range(3)]
    assert torch.equal(torch.cat(halves), one.images)


def test_neighbours_of_a_batch_are_those_of_its_stacks(crossing: Scene) -> None:
    patches = Patches([crossing], crop_px=64, augment=Augment(paste=0, exact=1), prepare=PREPARE, seed=0)
    batch = patches.batch(0, 2)
    assert [pairs.tolist() for pairs in batch.prepared] == [[[1, 2], [2, 1]]] * 2


def test_pasted_objects_and_those_near_them_are_pairs(crossing: Scene) -> None:
    settings = Augment(paste=1.0, exact=1.0, paste_most=4)
    patches = Patches(
        [crossing], crop_px=64, augment=settings, prepare=Layering(adjacency_px=6).prepare, seed=0
    )
    batch = patches.batch(0, 6)
    for stack, pairs in zip(batch.stacks, batch.prepared, strict=True):
        present = set(np.unique(stack)) - {0}
        wanted = {tuple(pair) for pair in adjacent_pairs(stack, distance_px=6).tolist()}
        found = {tuple(pair) for pair in pairs.tolist() if set(pair) <= present}
        assert len(present) > 2 and found == wanted


def test_pasted_objects_keep_their_classes(crossing: Scene) -> None:
    image, stack = crossing
    plain = Patches([crossing], crop_px=64, augment=Augment(paste=1.0, paste_most=4), prepare=PREPARE, seed=2)
    patches = Patches(
        [(image, with_classes(stack, np.array([1, 2])))],
        crop_px=64,
        augment=Augment(paste=1.0, paste_most=4),
        prepare=PREPARE,
        seed=2,
    )
    pairs = zip(patches.batch(0, 8).stacks, plain.batch(0, 8).stacks, strict=True)
    kinds = []
    for coded, labels in pairs:
        assert np.array_equal(coded > 0, labels > 0)
        assert (class_of(coded[labels == 1]) == 1).all() and (class_of(coded[labels == 2]) == 2).all()
        ids = np.unique(coded[labels > 2])
        assert len(ids) == len(np.unique(labels[labels > 2]))  # no two pasted objects have one id
        kinds += class_of(ids).tolist()
    assert set(kinds) == {1, 2}


def test_beyond_the_edge_lies_what_the_settings_say(crossing: Scene) -> None:
    image, stack = crossing
    for outside, level in (("zeros", 0.0), ("background", 5.0)):
        settings = replace(STILL, outside=outside, rotate=1.0, exact=0.0, scale=1.0)
        patches = Patches(
            [(image + 5, stack)],
            crop_px=256,
            augment=settings,
            prepare=Layering(adjacency_px=6).prepare,
            seed=1,
        )
        corner = patches.batch(0, 1).images[0, 0, :20, :20]
        torch.testing.assert_close(corner, torch.full_like(corner, level))


EMPTY = (np.zeros((1, 8, 8), np.float32), np.zeros((1, 8, 8), np.uint32))
FULL = (np.zeros((1, 8, 8), np.float32), np.ones((1, 8, 8), np.uint32))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "at least one"),
        ([EMPTY], "empty"),
        ([FULL, (np.zeros((2, 8, 8), np.float32), FULL[1])], "1 channels like the first image, got 2"),
        ([(np.zeros((1, 9, 8), np.float32), FULL[1])], "of one size"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples: list[Scene], message: str) -> None:
    with pytest.raises(BadSample, match=message):
        check_samples(samples)


def test_images_under_one_stride_are_refused() -> None:
    assert check_samples([FULL], least_px=8) == 1
    with pytest.raises(BadSample, match="at least 16 x 16 px"):
        check_samples([FULL], least_px=16)


def test_samples_without_an_object_and_with_one_give_crops(crossing: Scene) -> None:
    image, stack = crossing
    samples = [(image, np.zeros_like(stack)), (image, np.where(stack == 1, stack, 0))]
    patches = Patches(samples, crop_px=32, augment=Augment(paste=1.0), prepare=PREPARE, seed=0)
    batch = patches.batch(0, 6)
    assert batch.images.isfinite().all()
    assert any(len(np.unique(crop)) > 1 for crop in batch.stacks)


def test_overlap_deeper_than_the_network_has_layers_is_refused() -> None:
    deep = (FULL[0], np.stack([np.full((8, 8), label, np.uint32) for label in (1, 2, 3)]))
    check_depth([FULL, deep], layers=3)
    with pytest.raises(BadSample, match=r"sample 1: expected at most 2 objects on a pixel.*got 3"):
        check_depth([FULL, deep], layers=2)
