"""Each change of intensity alone: what it changes, what it leaves, and that labels are never touched."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from model.methods.layering import Layering
from model.samples.augment import Augment
from model.samples.intensity import Levels, blurred, empty_field, levels_of, mean_levels, vary_intensities
from model.samples.patches import Patches

STILL = Augment(
    exact=1.0, elastic=0.0, gamma=0.0, contrast=0.0, brightness=0.0, noise=0.0, blur=0.0, paste=0.0
)
SIZE = 96


def squares() -> tuple[torch.Tensor, torch.Tensor]:
    """Four squares of brightness 1 on a background of 0.2, and their stack."""
    stack = torch.zeros(1, SIZE, SIZE, dtype=torch.int32)
    for label, (y, x) in enumerate([(12, 12), (12, 60), (60, 12), (60, 60)], start=1):
        stack[0, y : y + 24, x : x + 24] = label
    return 0.2 + 0.8 * (stack > 0).float(), stack


def changed(seed: int = 0, **settings: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The squares before and after one kind of change, and their stack, which stays as it was."""
    image, stack = squares()
    before, levels = stack.clone(), levels_of(image, stack)
    assert levels is not None
    varied = vary_intensities(np.random.default_rng(seed), replace(STILL, **settings), image, stack, levels)
    assert torch.equal(stack, before) and varied.isfinite().all() and varied.shape == image.shape
    return image, varied, stack


def test_without_any_change_the_image_stays() -> None:
    image, varied, _ = changed()
    assert torch.equal(image, varied)


def test_levels_are_those_of_background_and_objects() -> None:
    image, stack = squares()
    levels = levels_of(image, stack)
    assert levels is not None
    assert float(levels.background) == pytest.approx(0.2) and float(levels.contrast) == pytest.approx(0.8)
    dark = levels_of(1 - image, stack)
    assert dark is not None and float(dark.contrast) == pytest.approx(-0.8)
    assert levels_of(image, torch.zeros_like(stack)) is None
    assert float(mean_levels([None, levels, dark]).contrast) == pytest.approx(0)


def test_a_dim_crop_keeps_its_background() -> None:
    _, varied, stack = changed(dim=1.0, dim_range=(0.1, 0.1))
    torch.testing.assert_close(varied, 0.2 + 0.08 * (stack > 0).float())


def test_mixed_contrast_changes_each_object_and_its_neighbourhood_only() -> None:
    image, varied, _ = changed(mixed=1.0, mixed_range=(0.2, 3.0))
    heights = [varied[0, y + 6 : y + 18, x + 6 : x + 18] for y in (12, 60) for x in (12, 60)]
    for height in heights:  # one factor inside an object
        torch.testing.assert_close(height, height[:1, :1].expand_as(height), rtol=0.02, atol=0.02)
    assert len({round(float(height.mean()), 2) for height in heights}) == 4
    assert min(float(h.mean()) for h in heights) > 0.2 and max(float(h.mean()) for h in heights) < 2.7
    far = torch.ones(SIZE, SIZE, dtype=torch.bool)
    for y in (12, 60):
        for x in (12, 60):
            far[y - 6 : y + 30, x - 6 : x + 30] = False
    torch.testing.assert_close(varied[0][far], image[0][far])


def test_a_gradient_is_smooth_and_reaches_all_of_the_crop() -> None:
    image, varied, _ = changed(gradient=1.0, gradient_most=0.5)
    added = (varied - image)[0]
    assert 0.05 < float(added.abs().max()) < 1
    assert float(added.diff(dim=0).abs().max()) < 0.1 * float(added.max() - added.min())
    assert float((added.abs() > 1e-3).float().mean()) > 0.8


def test_haze_brightens_what_lies_between_the_objects() -> None:
    means = []
    for seed in range(6):
        image, varied, stack = changed(seed, haze=1.0, haze_px=(12.0, 12.0), haze_most=0.6)
        added = (varied - image)[0]
        means.append(float(added[stack[0] == 0].mean()))
        assert float(added.diff(dim=0).abs().max()) < 0.15 * float(added.max() - added.min())
    assert min(means) > 0 and max(means) > 0.05


@pytest.mark.parametrize("seed", range(5))
def test_debris_is_bright_and_has_no_label(seed: int) -> None:
    image, varied, _ = changed(seed, debris=1.0, debris_px=(3.0, 3.0), debris_contrast=(2.0, 2.0))
    added = (varied - image)[0]
    share = float((added > 0.8).float().mean())
    assert 0 < share < 0.25 and 1.2 < float(added.max()) <= 3 * 1.6 and float(added.min()) >= 0


def test_debris_of_dark_objects_is_dark() -> None:
    image, stack = squares()
    levels = levels_of(1 - image, stack)
    assert levels is not None
    settings = replace(STILL, debris=1.0)
    varied = vary_intensities(np.random.default_rng(0), settings, 1 - image, stack, levels)
    assert float((varied - (1 - image)).max()) <= 0 and float((varied - (1 - image)).min()) < -0.5


def test_debris_keeps_away_from_objects() -> None:
    image, stack = squares()
    levels = levels_of(image, stack)
    assert levels is not None
    settings = replace(STILL, debris=1.0, debris_px=(4.0, 4.0), debris_aspect=1.0)
    rows, columns = np.mgrid[:SIZE:8, : SIZE // 2 : 8]
    left = np.stack([rows.ravel(), columns.ravel()], 1)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        added = vary_intensities(rng, settings, image, stack, levels, places=left) - image
        assert float(added[..., : SIZE // 2 - 8].max()) < 0.1 < float(added[..., SIZE // 2 :].max())


def test_saturation_cuts_the_top_off() -> None:
    for seed in range(4):
        _, varied, _ = changed(seed, saturation=1.0)
        assert 0.2 + 0.4 <= float(varied.max()) <= 1.0
        assert float(varied.min()) == pytest.approx(0.2)


def test_gamma_reaches_its_limits_both_ways() -> None:
    image, stack = squares()
    ramp = torch.linspace(0, 1, SIZE).expand(1, SIZE, SIZE)
    levels = levels_of(image, stack)
    assert levels is not None
    settings = replace(STILL, gamma=1.0, gamma_most=2.0)
    middles = [
        float(vary_intensities(np.random.default_rng(seed), settings, ramp, stack, levels)[0, 0, SIZE // 2])
        for seed in range(60)
    ]
    assert 0.25 < min(middles) < 0.3 and 0.66 < max(middles) < 0.72


def test_camera_noise_is_relative_to_the_contrast_that_is_left() -> None:
    strong, weak = [], []
    for seed in range(20):
        for kept, factor in ((strong, 1.0), (weak, 0.1)):
            _, varied, stack = changed(seed, camera=1.0, camera_most=0.2, dim=1.0, dim_range=(factor, factor))
            kept.append(float(varied[0][stack[0] == 0].std()))
    assert max(strong) <= 0.2 * 0.8 * 1.05 and max(strong) > 0.05
    assert np.mean(weak) == pytest.approx(0.1 * np.mean(strong), rel=0.05)


def test_part_of_camera_noise_grows_with_the_signal() -> None:
    ratios = []
    for seed in range(20):
        image, varied, stack = changed(seed, camera=1.0, camera_most=0.2)
        noise = (varied - image)[0]
        ratios.append(float(noise[stack[0] > 0].std() / noise[stack[0] == 0].std().clamp(min=1e-6)))
    assert min(ratios) > 0.9 and max(ratios) > 1.5


def test_a_wide_blur_keeps_the_mean_and_lowers_the_peak() -> None:
    point = torch.zeros(1, 33, 33)
    point[0, 16, 16] = 1.0
    for sigma in (0.5, 1.0, 2.5):
        wide = blurred(point, sigma)
        assert float(wide.sum()) == pytest.approx(1.0, abs=1e-4)
        spread = (wide[0].sum(0) * (torch.arange(33) - 16) ** 2).sum().sqrt()
        assert float(spread) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("seed", range(6))
def test_empty_fields_have_noise_of_many_levels_and_no_object(seed: int) -> None:
    levels = Levels(background=torch.full((1, 1, 1), 0.1), contrast=torch.full((1, 1, 1), 0.5))
    field = empty_field(np.random.default_rng(seed), STILL, levels, 64)
    assert field.shape == (1, 64, 64) and field.isfinite().all() and float(field.std()) > 0.005


def test_the_empty_share_of_crops_has_no_label(crossing: tuple[np.ndarray, np.ndarray]) -> None:
    for share, most, least in ((1.0, 0, 0), (0.5, 16, 4)):
        settings = replace(STILL, empty=share, debris=0.5)
        patches = Patches([crossing], crop_px=64, augment=settings, prepare=Layering().prepare, seed=0)
        batch = patches.batch(0, 20)
        full = sum(bool(stack.any()) for stack in batch.stacks)
        assert least <= full <= most
        assert all(len(pairs) == 0 for s, pairs in zip(batch.stacks, batch.prepared) if not s.any())


def test_flat_images_and_images_full_of_objects_stay_finite() -> None:
    everything = Augment(
        gamma=1, blur=1, dim=1, mixed=1, gradient=1, haze=1, debris=1, saturation=1, camera=1, empty=0.3
    )
    flat, full = np.full((1, 48, 48), 0.3, np.float32), np.ones((2, 48, 48), np.uint32)
    for stack in (full, np.where(np.arange(48) < 9, full, 0)):
        patches = Patches([(flat, stack)], crop_px=32, augment=everything, prepare=Layering().prepare, seed=0)
        assert patches.batch(0, 12).images.isfinite().all()
