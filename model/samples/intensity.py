"""Changes of intensity that microscopes and specimens bring: exposure, illumination, focus, dirt, camera noise.

Label stacks are read, never changed. Numbers are drawn from the generator that is passed in; noise is made on the
device of the image by a generator that is seeded from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from model.samples.augment import Augment, smooth_field

BACKGROUND_PX = 32
"""Edge of the cells in which the local background of a crop is estimated."""
REACH_PX = 4
"""How far outside an object its contrast factor reaches; it fades out there."""


FACTORS = 1009
"""Contrast factors drawn for a crop; objects whose labels differ by a multiple of it share one."""
NOWHERE = np.zeros((0, 2))


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Typical intensities of a training image, per channel ``(C, 1, 1)``."""

    background: torch.Tensor
    """Median of the pixels without an object."""
    contrast: torch.Tensor
    """Mean of the pixels with an object minus the background; negative where objects are dark."""


def levels_of(image: torch.Tensor, stack: torch.Tensor) -> Levels | None:
    """Return the levels of an image ``(C, y, x)`` with its stack ``(L, y, x)``; ``None`` without an object."""
    objects = (stack > 0).any(0)
    if not objects.any():
        return None
    inside, outside = image[:, objects], image[:, ~objects]
    background = outside.median(1).values if outside.numel() else image.flatten(1).min(1).values
    contrast = (inside.mean(1) - background).view(-1, 1, 1)
    return Levels(background=background.view(-1, 1, 1), contrast=contrast)


def mean_levels(levels: Sequence[Levels | None]) -> Levels:
    """Return the mean levels of those images that have any; there is at least one."""
    present = [level for level in levels if level is not None]
    return Levels(
        background=torch.stack([level.background for level in present]).mean(0),
        contrast=torch.stack([level.contrast for level in present]).mean(0),
    )


def vary_intensities(
    rng: np.random.Generator,
    settings: Augment,
    image: torch.Tensor,
    stack: torch.Tensor,
    levels: Levels,
    *,
    places: np.ndarray = NOWHERE,
) -> torch.Tensor:
    """Return an image ``(C, y, x)`` with changed intensities; ``stack`` ``(L, y, x)`` says where its objects are.

    ``places``: centres ``(n, 2)`` of the objects, from which debris keeps away. The order of the changes follows
    the light: objects, illumination and dirt, focus, sensor.
    """
    background, contrast = levels.background, levels.contrast
    if _happens(rng, settings.mixed):
        image = _mixed_contrast(rng, settings, image, stack, levels)
    if _happens(rng, settings.dim):
        factor = _log_uniform(rng, settings.dim_range)
        image, contrast = background + (image - background) * factor, contrast * factor
    image = _with_light(rng, settings, image, background, contrast, places)
    spread = image.std().clamp(min=1e-3)
    if _happens(rng, settings.blur):
        image = blurred(image, float(rng.uniform(*settings.blur_px)))
    if _happens(rng, settings.saturation):
        image = _saturated(image, background, contrast * float(rng.uniform(0.5, 1.2)))
    if _happens(rng, settings.gamma):
        image = _with_gamma(rng, settings, image)
    image = image * float(1 + settings.contrast * rng.uniform(-1, 1))
    image = image + spread * float(settings.brightness * rng.uniform(-1, 1))
    if _happens(rng, settings.camera):
        image = _with_camera_noise(rng, image, contrast * float(rng.uniform(0, settings.camera_most)))
    if settings.noise:
        image = image + _normal(rng, image) * (spread * float(settings.noise * rng.random()))
    return standardised(image) if settings.standardise else image


def standardised(image: torch.Tensor) -> torch.Tensor:
    """Return an image ``(C, y, x)`` with mean 0 and standard deviation 1; a flat one becomes zeros."""
    deviation, mean = torch.std_mean(image)
    return (image - mean) / deviation.clamp(min=1e-6)


def empty_field(rng: np.random.Generator, settings: Augment, levels: Levels, size: int) -> torch.Tensor:
    """Return an image ``(C, size, size)`` of a field without objects, of any noise level.

    Limits by percentile stretch the noise of an empty field, so its standard deviation runs from 0.02 to 0.4
    object contrasts. Its level is anything: that of the background or of an object in half of the fields,
    anywhere in the normalised range in the others. In half of the fields noise is correlated.
    """
    contrast = levels.contrast
    if rng.random() < 0.5:
        level = levels.background + contrast * float(rng.uniform(-0.2, 0.8))
    else:
        level = torch.full_like(contrast, float(rng.uniform(-0.1, 1.1)))
    image = level.expand(-1, size, size)
    noise = _normal(rng, image)
    if rng.random() < 0.5:
        noise = blurred(noise, float(rng.uniform(0.4, 2.5)))
        noise = noise / noise.std().clamp(min=1e-6)
    image = image + noise * contrast * _log_uniform(rng, (0.02, 0.4))
    if rng.random() < 0.5:
        image = image + _gradient(rng, 1.0, image) * contrast
    if rng.random() < 0.3:
        image = image + _distant_objects(rng, size, contrast)
    if settings.debris and rng.random() < 0.5:
        image = image + _debris(rng, settings, NOWHERE, image) * contrast
    return image


def _happens(rng: np.random.Generator, probability: float) -> bool:
    """Whether a change of this probability is made; draws no number where it never is."""
    return probability > 0 and bool(rng.random() < probability)


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _normal(rng: np.random.Generator, image: torch.Tensor) -> torch.Tensor:
    """Return standard normal noise of the shape of an image, made on its device."""
    generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**62)))
    return torch.randn(image.shape, generator=generator, device=image.device)


def _mixed_contrast(
    rng: np.random.Generator, settings: Augment, image: torch.Tensor, stack: torch.Tensor, levels: Levels
) -> torch.Tensor:
    """Scale the contrast of every object by a factor of its own, with dim objects beside bright ones."""
    field = _contrast_factors(rng, settings, stack)
    background = _local_background(image, stack, levels)
    return background + (image - background) * field


def _contrast_factors(rng: np.random.Generator, settings: Augment, stack: torch.Tensor) -> torch.Tensor:
    """Return factors ``(y, x)``: that of the object inside it, fading to 1 over `REACH_PX` outside.

    Where objects overlap, the geometric mean of their factors.
    """
    low, high = (float(np.log(limit)) for limit in settings.mixed_range)
    table = torch.from_numpy(rng.uniform(low, high, FACTORS).astype(np.float32)).to(stack.device)
    inside = stack > 0
    depth = inside.sum(0)
    factors = table[(stack % FACTORS).long()] * inside
    inner = factors.sum(0) / depth.clamp(min=1)
    covered = (depth > 0).float()
    near = _box_mean(covered)
    outer = _box_mean(inner) / near.clamp(min=1e-3) * (near * 6).clamp(max=1)
    field = torch.where(depth > 0, inner, outer)
    return functional.avg_pool2d(field[None], 3, 1, 1, count_include_pad=False)[0].exp()


def _box_mean(values: torch.Tensor) -> torch.Tensor:
    """Mean of a map ``(y, x)`` over squares of ``2 * REACH_PX - 1`` pixels."""
    edge, rim = 2 * REACH_PX - 1, REACH_PX - 1
    rows = functional.avg_pool2d(values[None], (1, edge), 1, (0, rim))
    return functional.avg_pool2d(rows, (edge, 1), 1, (rim, 0))[0]


def _local_background(image: torch.Tensor, stack: torch.Tensor, levels: Levels) -> torch.Tensor:
    """Return a smooth map ``(C, y, x)`` of the intensity between the objects."""
    free = (stack == 0).all(0).to(image.dtype)
    cells = max(image.shape[-2] // BACKGROUND_PX, 1), max(image.shape[-1] // BACKGROUND_PX, 1)
    share = functional.adaptive_avg_pool2d(free[None], cells)
    total = functional.adaptive_avg_pool2d(image * free, cells)
    coarse = (total + 0.05 * levels.background) / (share + 0.05)
    return functional.interpolate(coarse[None], size=image.shape[-2:], mode="bilinear", align_corners=False)[
        0
    ]


def _with_light(
    rng: np.random.Generator,
    settings: Augment,
    image: torch.Tensor,
    background: torch.Tensor,
    contrast: torch.Tensor,
    places: np.ndarray,
) -> torch.Tensor:
    """Add light that belongs to no labelled object: haze, an uneven background, debris."""
    if _happens(rng, settings.haze):
        wide = _distant_light(rng, image - background, _log_uniform(rng, settings.haze_px))
        image = image + wide * float(rng.uniform(0, settings.haze_most))
    if _happens(rng, settings.gradient):
        image = image + _gradient(rng, settings.gradient_most, image) * contrast
    if _happens(rng, settings.debris):
        image = image + _debris(rng, settings, places, image) * contrast
    return image


def _gradient(rng: np.random.Generator, most: float, image: torch.Tensor) -> torch.Tensor:
    """Return a smooth map ``(1, y, x)`` of random amplitude up to ``most``."""
    knots = rng.uniform(-1, 1, (1, 3, 3)) * rng.uniform(0, most)
    return smooth_field(knots, image.shape[-1], image.device)


def _distant_objects(rng: np.random.Generator, size: int, contrast: torch.Tensor) -> torch.Tensor:
    """Return the light ``(C, size, size)`` of a few objects far out of focus."""
    cells = int(rng.integers(4, 10))
    knots = rng.uniform(0, 1, (1, cells, cells)) * (rng.random((1, cells, cells)) < 0.3)
    return smooth_field(knots, size, contrast.device) * contrast * float(rng.uniform(0.1, 0.6))


def _debris(
    rng: np.random.Generator, settings: Augment, places: np.ndarray, image: torch.Tensor
) -> torch.Tensor:
    """Return a map ``(1, y, x)`` of blobs and streaks of the size of an image, in object contrasts."""
    field = torch.zeros_like(image[:1])
    for _ in range(int(rng.integers(1, settings.debris_most + 1))):
        short = _log_uniform(rng, settings.debris_px)
        long = short * _log_uniform(rng, (1.0, settings.debris_aspect))
        centre, distance = _away_from(rng, places, image.shape[-1])
        brightness = _log_uniform(rng, settings.debris_contrast)
        if distance < long:  # an object below something brighter than itself could not be seen
            brightness = min(brightness, 1.0)
        _add_blob(field[0], centre, (long, short), brightness, rng)
    return field


def _away_from(rng: np.random.Generator, places: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """Return the one of a few random places that is farthest from all others, and its distance from the nearest."""
    candidates = rng.uniform(0, size, (12, 2))
    if not len(places):
        return candidates[0], np.inf
    nearest = np.linalg.norm(candidates[:, None] - places[None], axis=-1).min(1)
    return candidates[nearest.argmax()], float(nearest.max())


def _add_blob(
    field: torch.Tensor,
    centre: np.ndarray,
    radii: tuple[float, float],
    brightness: float,
    rng: np.random.Generator,
) -> None:
    """Add an ellipse of random direction and sharpness to a square map, in place."""
    angle, sharpness = rng.uniform(0, np.pi), _log_uniform(rng, (2.0, 10.0))
    reach = radii[0] * (1 + 4 / sharpness) + 1
    rows, columns = (_window(float(c), reach, len(field)) for c in centre)
    dy = torch.arange(rows.start, rows.stop, device=field.device)[:, None] - float(centre[0])
    dx = torch.arange(columns.start, columns.stop, device=field.device)[None] - float(centre[1])
    along = (dy * float(np.sin(angle)) + dx * float(np.cos(angle))) / radii[0]
    across = (dy * float(np.cos(angle)) - dx * float(np.sin(angle))) / radii[1]
    radius = (along.square() + across.square()).sqrt()
    field[rows, columns] += torch.sigmoid((1 - radius) * sharpness) * brightness


def _window(centre: float, reach: float, size: int) -> slice:
    return slice(max(int(centre - reach), 0), min(int(centre + reach) + 2, size))


def _saturated(image: torch.Tensor, background: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
    """Clip an image at ``height`` from the background, above it or, where objects are dark, below."""
    limit = background + height
    return torch.where(height > 0, torch.minimum(image, limit), torch.maximum(image, limit))


def _with_gamma(rng: np.random.Generator, settings: Augment, image: torch.Tensor) -> torch.Tensor:
    """Raise an image, scaled to 0..1 by its range, to a random power."""
    power = float(rng.uniform(1, settings.gamma_most))
    power = 1 / power if rng.random() < 0.5 else power
    low, high = image.aminmax()
    span = (high - low).clamp(min=1e-6)
    return ((image - low) / span) ** power * span + low


def _with_camera_noise(rng: np.random.Generator, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Add noise of standard deviation ``sigma`` ``(C, 1, 1)``; a random share of its variance grows with the signal."""
    share = float(rng.random())
    signal = image - image.amin((1, 2), keepdim=True)
    relative = signal / signal.mean((1, 2), keepdim=True).clamp(min=1e-6)
    return image + _normal(rng, image) * sigma * (1 - share + share * relative).sqrt()


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return an image ``(C, y, x)`` blurred by a Gaussian of ``sigma`` pixels."""
    rim = max(int(np.ceil(2.5 * sigma)), 2)
    distance = torch.arange(-rim, rim + 1, dtype=torch.float32, device=image.device)
    taps = torch.exp(-(distance**2) / (2 * sigma**2))
    taps = taps / taps.sum()
    padded = functional.pad(image[:, None], (rim, rim, rim, rim), mode="replicate")
    rows = functional.conv2d(padded, taps.view(1, 1, -1, 1))
    return functional.conv2d(rows, taps.view(1, 1, 1, -1))[:, 0]


def _distant_light(rng: np.random.Generator, image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return an image blurred by about ``sigma`` pixels and shifted, as objects in another plane look."""
    cells = max(round(image.shape[-2] / sigma), 2), max(round(image.shape[-1] / sigma), 2)
    coarse = functional.adaptive_avg_pool2d(image, cells)
    coarse = coarse.roll([int(rng.integers(cell)) for cell in cells], (-2, -1))
    return functional.interpolate(coarse[None], size=image.shape[-2:], mode="bicubic", align_corners=False)[0]
