"""Fields with no object, with two and with three, on which a model should find exactly what is there.

Generated fields have the noise of several cameras or none. Background of a dataset is cut out as squares that are at
least an object's width from every labelled object, and from every unlabelled body: whatever differs from the background
by a tenth of the contrast of the labelled objects. A square that holds the rim of an object is no empty field.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from pipeline.datasets.sample import Sample
from pipeline.datasets.synthetic.shapes import worm

SEED = 0
CAMERA_SHAPE = (1040, 1388)
"""Size of fields without an object: that of a common camera."""
SPARSE_SHAPE = (520, 696)
"""Size of fields with a few objects."""
NOISES = ((400, 3.0), (1000, 10.0), (3000, 30.0))
"""Offset and deviation of Gaussian noise, in grey values."""
CONTRAST = 40
"""Contrast of drawn objects in deviations of the noise."""
DARK = ("worms",)
"""Models of objects that are darker than their background."""
LEAST_EMPTY_PX = 64
"""Least edge of a square of background."""
BODY_SHARE = 0.1
"""Least contrast of an unlabelled body, in that of the labelled objects."""
BODY_BLUR_PX = 3.0
"""Blur (sigma) before bodies are sought, so that noise is none."""


def noise_fields() -> Iterator[Sample]:
    """Fields of camera noise of several levels, with and without a part that grows with the signal."""
    rng = np.random.default_rng(SEED)
    for offset, sigma in NOISES:
        yield _field(f"noise-{offset}", rng.normal(offset, sigma, CAMERA_SHAPE))
        yield _field(f"photons-{offset // 4}", rng.poisson(offset // 4, CAMERA_SHAPE))


def sparse_fields(model: str) -> Iterator[tuple[int, Sample]]:
    """Number of objects and field: three objects on noise, two on a flat background, four of a two-valued image."""
    rng = np.random.default_rng(SEED)
    sign = -1 if model in DARK else 1
    for offset, sigma in NOISES:
        light = sum(_objects(model, 3, rng))
        yield (
            3,
            _field(
                f"three-{offset}", rng.normal(offset, sigma, SPARSE_SHAPE) + sign * CONTRAST * sigma * light
            ),
        )
    ground = 2700 if model in DARK else 0
    yield 2, _field("two-on-flat", ground + sign * 600 * sum(_objects(model, 2, rng)))
    binary = sum(_objects(model, 4, rng)) > 0.2
    yield 4, _field("two-valued", np.where(binary, ground + sign * 255, ground))


def _objects(model: str, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw objects ``(y, x)`` of height 1, far apart, of the shape that a model is for."""
    columns = (np.arange(count) + 0.5) * SPARSE_SHAPE[1] / count
    places = [(rng.uniform(150, SPARSE_SHAPE[0] - 150), centre_x) for centre_x in columns]
    draw = _worm if model in DARK else _rounded
    return [draw(model, place, rng) for place in places]


def _worm(model: str, place: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Draw a synthetic worm with dark edges or granules."""
    shape, drawn = worm(rng), np.zeros(SPARSE_SHAPE)
    height, width = shape.mask.shape
    y0, x0 = round(place[0]) - height // 2, round(place[1]) - width // 2
    drawn[y0 : y0 + height, x0 : x0 + width] = shape.light
    return drawn


def _rounded(model: str, place: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Draw a rod for chromosomes, else an ellipse, in any direction."""
    y, x = np.mgrid[: SPARSE_SHAPE[0], : SPARSE_SHAPE[1]].astype(float)
    angle = rng.uniform(0, np.pi)
    along = (y - place[0]) * np.sin(angle) + (x - place[1]) * np.cos(angle)
    across = (x - place[1]) * np.sin(angle) - (y - place[0]) * np.cos(angle)
    if model == "chromosomes":
        beyond = np.maximum(np.abs(along) - 14, 0)
        return np.exp(-((np.hypot(across, beyond) / 7) ** 6))
    return np.exp(-((np.hypot(across / 14, along / 18)) ** 6))


def background_squares(samples: Sequence[Sample], width_px: int) -> Iterator[Sample]:
    """The largest square of background of each image, if its edge is long enough."""
    for sample in samples:
        bodies = _bodies(sample)
        far = ndimage.distance_transform_cdt(np.pad(~bodies, 1), "chessboard")[1:-1, 1:-1]
        y, x = np.unravel_index(far.argmax(), far.shape)
        half = int(far[y, x]) - 1 - width_px
        if half >= LEAST_EMPTY_PX // 2:
            image = sample.image[0, y - half : y + half, x - half : x + half]
            yield _field(f"background-{sample.name}", image.astype(float))


def _bodies(sample: Sample) -> np.ndarray:
    """Return the pixels ``(y, x)`` of labelled objects and of all that stands out from the background."""
    image = sample.image[0].astype(float)
    if sample.truth is None or not sample.truth.any():
        raise ValueError(f"{sample.name}: expected labelled objects, whose contrast says what a body is")
    labelled = sample.truth.any(0)
    ground = float(np.median(image[~labelled]))
    contrast = abs(float(np.median(image[labelled])) - ground)
    away = np.abs(ndimage.gaussian_filter(image, BODY_BLUR_PX) - ground)
    return labelled | (away > BODY_SHARE * contrast)


def width_of(samples: Sequence[Sample]) -> int:
    """Return the diameter in px of a disk of the median area of all labelled objects."""
    areas = [np.bincount(sample.truth.ravel())[1:] for sample in samples if sample.truth is not None]
    known = np.concatenate([part[part > 0] for part in areas])
    return round(2 * float(np.sqrt(np.median(known) / np.pi)))


def _field(name: str, pixels: np.ndarray) -> Sample:
    image = np.clip(np.rint(pixels), 0, 65535).astype(np.uint16)[None]
    return Sample(name=name, image=image, truth=None, group=name)
