"""Augmentation and crops: overlaps survive, ids follow the pixels, a step decides its batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.augment import Augment, resample, sampling_grid, vary_intensities
from model.errors import BadSample
from model.methods.layering import Layering
from model.paste import cut_out, paste
from model.patches import Patches, check_depth, check_samples

Scene = tuple[np.ndarray, np.ndarray]
PREPARE = Layering(adjacency_px=15).prepare


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_pixels_and_ids_move_together_and_overlaps_stay(seed: int) -> None:
    stack = np.zeros((2, 64, 64), np.int32)
    stack[0, 24:38, 8:56], stack[1, 8:56, 24:38] = 1, 2
    image = torch.from_numpy((stack > 0).sum(0).astype(np.float32))[None]
    grid = sampling_grid(np.random.default_rng(seed), Augment(scale=1.3), centre=(31.5, 31.5), size=48)
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
        grid = sampling_grid(np.random.default_rng(seed), Augment(exact=1.0), centre=(9.5, 9.5), size=20)
        pixels, ids = resample(image, stack, grid)
        places = ids[0].long() - 1
        assert sorted(places.ravel().tolist()) == list(range(400))
        torch.testing.assert_close(pixels, image.view(2, -1)[:, places], atol=1e-4, rtol=0)


def test_outside_the_image_there_is_nothing() -> None:
    grid = sampling_grid(np.random.default_rng(0), Augment(exact=1.0), centre=(0.0, 0.0), size=8)
    pixels, ids = resample(torch.ones(1, 8, 8), torch.ones(1, 8, 8, dtype=torch.int32), grid)
    assert 9 <= int(ids.sum()) <= 25
    assert float(pixels.sum()) == pytest.approx(float(ids.sum()), abs=1e-3)


def test_a_pasted_object_overlaps_and_leaves_the_others_whole(crossing: Scene) -> None:
    image, stack = crossing
    contrast, mask = cut_out(image, stack, 1)
    assert contrast.shape[1:] == mask.shape and mask.sum() == (stack == 1).sum()
    before = torch.from_numpy(stack.astype(np.int32))
    pixels = torch.from_numpy(image)
    after_pixels, after = paste(pixels, before, contrast=contrast, mask=mask, centre=(40, 32), label=9)
    for label in (1, 2):
        assert torch.equal((after == label).any(0), (before == label).any(0))
    assert ((after == 9).any(0) & (before > 0).any(0)).any()
    assert len(torch.unique(torch.nonzero(after == 9)[:, 0])) == 1
    assert float(after_pixels.sum()) > float(pixels.sum())
    assert torch.equal(before, torch.from_numpy(stack.astype(np.int32)))


def test_objects_pasted_beyond_the_edge_are_cut_off(crossing: Scene) -> None:
    image, stack = crossing
    contrast, mask = cut_out(image, stack, 1)
    ids = torch.from_numpy(stack.astype(np.int32))
    _, corner = paste(torch.from_numpy(image), ids, contrast=contrast, mask=mask, centre=(63, 63), label=9)
    assert 0 < int((corner == 9).sum()) < mask.sum()
    _, away = paste(torch.from_numpy(image), ids, contrast=contrast, mask=mask, centre=(300, 0), label=9)
    assert torch.equal(away, ids)


def test_a_turned_object_of_which_one_row_is_left_can_be_pasted(crossing: Scene) -> None:
    """Views of one row with negative strides count as contiguous and cannot become tensors."""
    image, stack = crossing
    contrast, mask = cut_out(image, stack, 1)
    turned, flipped = np.rot90(contrast, 2, axes=(1, 2)), np.rot90(mask, 2)
    ids = torch.from_numpy(stack.astype(np.int32))
    for row in range(-8, 0):
        _, after = paste(
            torch.from_numpy(image), ids, contrast=turned, mask=flipped, centre=(row, 32), label=9
        )
        for label in (1, 2):
            assert torch.equal((after == label).any(0), (ids == label).any(0))


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


def test_intensities_vary_and_stay_finite_on_a_flat_image() -> None:
    flat = torch.full((1, 16, 16), 0.3)
    strong = Augment(gamma=1, blur=1)
    for seed in range(5):
        assert torch.isfinite(vary_intensities(np.random.default_rng(seed), strong, flat)).all()


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
