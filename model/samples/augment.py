"""Geometric augmentation of an image together with its label stack, and the settings of all augmentation.

One sampling grid is used for the pixels (bilinear) and the labels (nearest neighbour), so overlaps are kept.
Every random number comes from the generator that is passed in. Intensities are changed in `model.samples.intensity`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How strongly training samples are varied; a probability of 0 switches a change off.

    The object contrast, in which several amplitudes are given, is the mean of the pixels of the objects of a
    training image minus the median of its background.
    """

    exact: float = 0.3
    """Share of crops that are only flipped and turned by 90 degrees, so that no pixel is interpolated."""
    rotate: float = 1.0
    """Probability of a rotation by any angle, for the other crops."""
    quarter_turns: bool = True
    """Whether crops are turned by 90 degrees besides being flipped."""
    scale: float = 1.2
    """Objects are scaled by a factor between ``1 / scale`` and ``scale`` (uniform in its logarithm)."""
    elastic: float = 0.5
    """Probability of an elastic deformation."""
    elastic_px: tuple[float, float] | None = (1.0, 6.0)
    """Range of the mean displacement; ``None``: half the cell of the grid, as in the paper."""
    elastic_cell_px: tuple[float, float] = (24.0, 96.0)
    """Range of the cell of the random grid that is interpolated to the displacements."""
    elastic_grid: Literal["cubic", "blurred"] = "cubic"
    """``cubic``: random displacements per cell, interpolated; ``blurred``: of five times finer cells, blurred by a
    Gaussian of the cell, as in the authors' code, which hardly ever folds the image over itself."""
    shift_px: int = 0
    """Largest shift, for training on whole images; 0: crops at random places."""
    shift: float = 1.0
    """Probability of a shift, where ``shift_px`` is not 0."""
    shift_both: bool = True
    """Whether shifts go both ways along each axis, or one way only."""
    outside: Literal["zeros", "background"] = "zeros"
    """What lies beyond the edge of a training image: zeros, or the median of its background."""
    gamma: float = 0.3
    """Probability of a gamma change."""
    gamma_most: float = 1.65
    """Largest exponent; half of the exponents are inverted."""
    contrast: float = 0.25
    """Largest relative change of contrast."""
    brightness: float = 0.25
    """Largest change of brightness in standard deviations."""
    dim: float = 0.0
    """Probability that the contrast of a whole crop is scaled by a factor of ``dim_range``."""
    dim_range: tuple[float, float] = (0.1, 1.5)
    """Range of that factor (uniform in its logarithm)."""
    mixed: float = 0.0
    """Probability that the contrast of each object of a crop is scaled by a factor of its own."""
    mixed_range: tuple[float, float] = (0.3, 2.0)
    """Range of those factors (uniform in their logarithm)."""
    gradient: float = 0.0
    """Probability of a smooth additive background."""
    gradient_most: float = 0.5
    """Its largest amplitude, in object contrasts."""
    haze: float = 0.0
    """Probability that the crop, blurred and shifted, is added to it, as the light of objects out of focus."""
    haze_px: tuple[float, float] = (8.0, 32.0)
    """Range of the width of that blur."""
    haze_most: float = 0.6
    """Largest share of the blurred light that is added."""
    debris: float = 0.0
    """Probability of debris: blobs and streaks that have no label."""
    debris_most: int = 3
    """Largest number of pieces; of a few random places, each takes the one farthest from all objects."""
    debris_px: tuple[float, float] = (1.0, 3.0)
    """Range of their smaller radius. Choose it such that debris cannot be taken for an object."""
    debris_aspect: float = 8.0
    """Largest ratio of the radii of a piece."""
    debris_contrast: tuple[float, float] = (1.0, 3.0)
    """Range of their brightness, in object contrasts."""
    saturation: float = 0.0
    """Probability that the crop is clipped at 0.5 to 1.2 object contrasts above the background."""
    noise: float = 0.05
    """Largest standard deviation of added noise, in standard deviations of the crop."""
    camera: float = 0.0
    """Probability of camera noise: a constant part, and a part that grows with the signal."""
    camera_most: float = 0.2
    """Its largest standard deviation, in object contrasts after all other changes."""
    blur: float = 0.15
    """Probability of a blur."""
    blur_px: tuple[float, float] = (0.3, 0.9)
    """Range of the standard deviation of its Gaussian."""
    paste: float = 0.5
    """Probability that objects of training images are laid over a crop."""
    paste_most: int = 3
    """Largest number of pasted objects."""
    paste_contrast: tuple[float, float] | None = None
    """Range of their contrast, in object contrasts of the crop; ``None``: the contrast they had."""
    standardise: bool = False
    """Whether every crop is brought to mean 0 and standard deviation 1 after all changes."""
    empty: float = 0.0
    """Probability of a crop without any object: noise, gradients, haze and debris only."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where the pixels of a crop come from."""

    grid: torch.Tensor
    """float32 ``(size, size, 2)``: source coordinates y, x in pixels."""
    matrix: np.ndarray
    """``(2, 2)``: without elastic deformation ``source = (pixel - (size - 1) / 2) @ matrix + centre``."""
    centre: np.ndarray
    """Source coordinates ``(2,)`` of the centre of the crop."""

    def in_crop(self, places: np.ndarray) -> np.ndarray:
        """Return source coordinates ``(n, 2)`` as pixels of the crop; the elastic deformation is ignored."""
        return (places - self.centre) @ np.linalg.inv(self.matrix) + (len(self.grid) - 1) / 2


def sampling_grid(
    rng: np.random.Generator, settings: Augment, *, centre: tuple[float, float], size: int
) -> Geometry:
    """Return the geometry of a crop of ``size`` x ``size`` pixels around ``centre`` (y, x).

    The ``exact`` share of crops has whole-pixel coordinates.
    """
    if rng.random() < settings.exact:
        matrix = _quarter_turn(rng, settings)
        middle = np.array([np.floor(c) + (size - 1) % 2 / 2 for c in centre])
        return Geometry(grid=_affine(_pixels(size), matrix, middle), matrix=matrix, centre=middle)
    turned = settings.rotate >= 1 or rng.random() < settings.rotate
    angle = rng.uniform(0, 2 * np.pi) if turned else 0.0
    factor = np.exp(rng.uniform(-1, 1) * np.log(settings.scale))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = _quarter_turn(rng, settings) @ rotation / factor
    pixels = _pixels(size)
    if rng.random() < settings.elastic:
        pixels = pixels + _elastic(rng, settings, size)
    middle = np.array(centre)
    return Geometry(grid=_affine(pixels, matrix, middle), matrix=matrix, centre=middle)


@lru_cache(maxsize=4)
def _pixels(size: int) -> torch.Tensor:
    """Return the coordinates ``(size, size, 2)`` of the pixels of a crop relative to its centre."""
    steps = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)


def _affine(pixels: torch.Tensor, matrix: np.ndarray, centre: np.ndarray) -> torch.Tensor:
    return pixels @ torch.from_numpy(matrix.astype(np.float32)) + torch.from_numpy(centre.astype(np.float32))


def _quarter_turn(rng: np.random.Generator, settings: Augment) -> np.ndarray:
    """Return the matrix of one of the eight flips and turns of a square, or of one of the four flips."""
    matrix = np.diag(rng.choice([-1.0, 1.0], size=2))
    swapped = rng.random() < 0.5 and settings.quarter_turns
    return matrix[::-1].copy() if swapped else matrix


def _elastic(rng: np.random.Generator, settings: Augment, size: int) -> torch.Tensor:
    """Return a smooth random displacement ``(size, size, 2)`` of random mean length."""
    cell = rng.uniform(*settings.elastic_cell_px)
    flow = (
        _blurred_flow(rng, cell, size) if settings.elastic_grid == "blurred" else _cubic_flow(rng, cell, size)
    )
    length = flow.square().sum(0).sqrt().mean().clamp(min=1e-6)
    wanted = rng.uniform(*settings.elastic_px) if settings.elastic_px else cell / 2
    return (flow * (wanted / length)).permute(1, 2, 0)


def _cubic_flow(rng: np.random.Generator, cell: float, size: int) -> torch.Tensor:
    """Return displacements ``(2, size, size)`` interpolated between random ones at the corners of cells."""
    cells = max(int(np.ceil(size / cell)), 2) + 3
    return smooth_field(rng.uniform(-1, 1, (2, cells, cells)), size)


def _blurred_flow(rng: np.random.Generator, cell: float, size: int) -> torch.Tensor:
    """Return displacements ``(2, size, size)``: random ones on a grid of ``cell / 5``, blurred by ``cell``."""
    fine = cell / FINE
    cells = int(np.ceil(size / fine)) + 1
    noise = rng.uniform(-1, 1, (2, cells, cells))
    smooth = ndimage.gaussian_filter(noise, (0, FINE, FINE), mode="reflect").astype(np.float32)
    span = int(np.ceil(cells * fine))
    flow = functional.interpolate(torch.from_numpy(smooth)[None], size=(span, span), mode="bilinear")[0]
    return flow[:, :size, :size]


FINE = 5
"""Cells of the authors' random grid per standard deviation of their blur."""


def smooth_field(knots: np.ndarray, size: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Interpolate ``knots`` ``(C, n, n)``, which span a crop from edge to edge, to ``(C, size, size)`` (bicubic)."""
    weights = _bicubic(knots.shape[-1], size).to(device)
    return weights @ torch.from_numpy(knots.astype(np.float32)).to(device) @ weights.T


@lru_cache(maxsize=64)
def _bicubic(knots: int, size: int) -> torch.Tensor:
    """Return the weights ``(size, knots)`` of bicubic interpolation along one axis."""
    one_hot = torch.eye(knots)[None, None]
    return functional.interpolate(one_hot, size=(size, knots), mode="bicubic", align_corners=True)[0, 0]


def resample(
    image: torch.Tensor,
    stack: torch.Tensor,
    grid: torch.Tensor,
    *,
    outside: torch.Tensor | float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample an image ``(C, y, x)`` (bilinear) and a stack ``(L, y, x)`` (nearest) at ``grid`` ``(h, w, 2)``.

    Beyond the edge the image is ``outside`` (a number, or one per channel ``(C, 1, 1)``) and the stack 0. All
    tensors are on one device.
    """
    height, width = image.shape[-2:]
    size = torch.tensor([width, height], dtype=torch.float32, device=grid.device)
    places = (2 * grid.flip(-1) + 1) / size - 1
    pixels = functional.grid_sample((image - outside)[None], places[None], align_corners=False)[0] + outside
    y, x = torch.floor(grid + 0.5).long().unbind(-1)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).view(-1)
    ids = stack.reshape(len(stack), -1).index_select(1, index).view(len(stack), *grid.shape[:2])
    return pixels, ids * inside
