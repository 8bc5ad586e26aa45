"""Local contrast: what is dim beside something bright is as clear; flat and noisy fields are not stretched."""

import pytest
import torch

from model.networks.contrast import FLOOR, local_contrast


def with_disks(*heights: float) -> torch.Tensor:
    """Disks of radius 10 px in a row, 64 px apart, on a background of 0.1."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disk = ((y - 31.5).square() + (x - 31.5).square() <= 100).float()
    return 0.1 + torch.cat([height * disk for height in heights], dim=1)[None, None]


def test_a_dim_object_is_nearly_as_clear_as_a_bright_one() -> None:
    local = local_contrast(with_disks(1.0, 0.1), cell=8, radius=2)
    bright, dim = (local[0, 0, 31, x] - local[0, 0, 31, x + 24] for x in (31, 95))
    assert 0.4 < float(dim / bright) < 1
    assert float(bright) > 1


def test_a_flat_field_is_zero_and_noise_stays_as_small_as_it_was() -> None:
    flat = torch.full((2, 1, 64, 96), 0.7)
    assert float(local_contrast(flat, cell=16, radius=1).abs().max()) < 1e-2
    torch.manual_seed(0)
    noise = local_contrast(flat + FLOOR / 10 * torch.randn(flat.shape), cell=16, radius=1)
    assert float(noise.std()) == pytest.approx(0.1 / 1.1, rel=0.1)


def test_an_offset_changes_nothing_and_an_image_at_the_edge_has_fewer_cells() -> None:
    image = with_disks(1.0, 0.5)
    local = local_contrast(image, cell=8, radius=3)
    torch.testing.assert_close(local_contrast(image + 0.5, cell=8, radius=3), local, atol=1e-3, rtol=1e-3)
    assert local.shape == image.shape and bool(local.isfinite().all())
