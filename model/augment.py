"""Augmentation of an image with its label stack: one sampling grid for both, so overlaps stay intact.

The invariant: the same geometric transform for pixels (bilinear) and ids (nearest), zeros outside, and every
random number from the generator that is passed in. It knows no method and no data set.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How strongly training samples are varied; a probability of 0 switches a step off."""

    exact: float = 0.3
    """Share of crops that are only flipped and turned by 90 degrees, so that pixels stay as sharp as they are."""
    rotate: float = 1.0
    """Probability of any angle, for the other crops."""
    quarter_turns: bool = True
    """Whether crops are turned by 90 degrees besides being flipped."""
    scale: float = 1.2
    """Objects are made up to this factor larger or smaller."""
    elastic: float = 0.5
    """Probability of an elastic deformation."""
    elastic_px: tuple[float, float] | None = (1.0, 6.0)
    """Range of its mean displacement; ``None``: half the cell, as in the paper."""
    elastic_cell_px: tuple[float, float] = (24.0, 96.0)
    """Range of the cell of the random grid behind it."""
    shift_px: int = 0
    """Largest shift to each side; for training on whole images."""
    gamma: float = 0.3
    """Probability of a gamma change."""
    contrast: float = 0.25
    """Largest relative change of contrast."""
    brightness: float = 0.25
    """Largest change of brightness in standard deviations."""
    noise: float = 0.05
    """Largest standard deviation of added noise, in standard deviations of the image."""
    blur: float = 0.15
    """Probability of a slight blur."""
    paste: float = 0.5
    """Probability that objects of another sample are laid over this one."""
    paste_most: int = 3
    """Largest number of pasted objects."""


def sampling_grid(
    rng: np.random.Generator, settings: Augment, *, centre: tuple[float, float], size: int
) -> torch.Tensor:
    """Return source coordinates ``(size, size, 2)`` as y, x in pixels for a crop around ``centre``.

    Whole-pixel coordinates for the ``exact`` share of crops.
    """
    steps = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    grid = torch.stack([y, x], dim=-1)
    if rng.random() < settings.exact:
        turn, middle = _quarter_turn(rng, settings), [np.floor(c) + (size - 1) % 2 / 2 for c in centre]
        grid = grid @ torch.from_numpy(turn)
        return grid + torch.tensor(middle, dtype=torch.float32)
    turned = settings.rotate >= 1 or rng.random() < settings.rotate
    angle = rng.uniform(0, 2 * np.pi) if turned else 0.0
    factor = np.exp(rng.uniform(-1, 1) * np.log(settings.scale))
    turn = _quarter_turn(rng, settings) @ np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32
    )
    if rng.random() < settings.elastic:
        grid = grid + _elastic(rng, settings, size)
    return grid @ torch.from_numpy((turn / factor).astype(np.float32)) + torch.tensor(
        centre, dtype=torch.float32
    )


def _quarter_turn(rng: np.random.Generator, settings: Augment) -> np.ndarray:
    """One of the eight flips and turns of a square, or of the four flips."""
    signs = rng.choice([-1.0, 1.0], size=2)
    matrix = np.diag(signs)
    swapped = rng.random() < 0.5 and settings.quarter_turns
    return np.asarray(matrix[::-1] if swapped else matrix, dtype=np.float32).copy()


def _elastic(rng: np.random.Generator, settings: Augment, size: int) -> torch.Tensor:
    """A smooth random displacement ``(size, size, 2)`` with the mean length that was drawn."""
    cell = rng.uniform(*settings.elastic_cell_px)
    cells = max(int(np.ceil(size / cell)), 2) + 3
    coarse = torch.from_numpy(rng.uniform(-1, 1, (1, 2, cells, cells)).astype(np.float32))
    flow = functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)[0]
    length = flow.square().sum(0).sqrt().mean().clamp(min=1e-6)
    wanted = rng.uniform(*settings.elastic_px) if settings.elastic_px else cell / 2
    return (flow * (wanted / length)).permute(1, 2, 0)


def resample(
    image: torch.Tensor, stack: torch.Tensor, grid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample an image ``(C, y, x)`` (bilinear) and a stack ``(L, y, x)`` (nearest) at ``grid`` ``(h, w, 2)``.

    Outside the image both are 0. All three are on one device.
    """
    height, width = image.shape[-2:]
    size = torch.tensor([width, height], dtype=torch.float32, device=grid.device)
    places = (2 * grid.flip(-1) + 1) / size - 1
    pixels = functional.grid_sample(image[None], places[None], align_corners=False)[0]
    nearest = torch.floor(grid + 0.5).long()
    y, x = nearest[..., 0], nearest[..., 1]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    ids = stack[:, y.clamp(0, height - 1), x.clamp(0, width - 1)] * inside
    return pixels, ids


def vary_intensities(rng: np.random.Generator, settings: Augment, image: torch.Tensor) -> torch.Tensor:
    """Return an image ``(C, y, x)`` with other gamma, contrast, brightness, sharpness and noise."""
    spread = image.std().clamp(min=1e-3)
    if rng.random() < settings.blur:
        image = _blurred(image, float(rng.uniform(0.3, 0.9)))
    if rng.random() < settings.gamma:
        low, high = image.min(), image.max()
        power = float(np.exp(rng.uniform(-0.5, 0.5)))
        image = ((image - low) / (high - low).clamp(min=1e-6)) ** power * (high - low) + low
    image = image * float(1 + settings.contrast * rng.uniform(-1, 1))
    image = image + spread * float(settings.brightness * rng.uniform(-1, 1))
    if settings.noise:
        values = rng.standard_normal(tuple(image.shape), dtype=np.float32)
        noise = torch.from_numpy(values).to(image.device)
        image = image + noise * (spread * float(settings.noise * rng.random()))
    return image


def _blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    taps = torch.exp(-(torch.arange(-2, 3, dtype=torch.float32, device=image.device) ** 2) / (2 * sigma**2))
    taps = taps / taps.sum()
    padded = functional.pad(image[:, None], (2, 2, 2, 2), mode="replicate")
    rows = functional.conv2d(padded, taps.view(1, 1, 5, 1))
    return functional.conv2d(rows, taps.view(1, 1, 1, 5))[:, 0]
