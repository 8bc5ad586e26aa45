"""The scale at which images are segmented: the pyramid level, and the factor to the scale of the model."""

from dataclasses import replace
from math import ceil, sqrt

from flows.jobs import SegmentJob
from pipeline.errors import BadArgument
from pipeline.segment import Traits
from pipeline.store.ome.collection import Collection, Image

SAME_SCALE = 1.05
"""Pixel sizes that differ by less than this factor are treated as equal: nothing is resampled."""

OTHER_SCALE = 1.5
"""Pixel sizes that differ from the model's by more than this factor are reported to the user."""

SMALLEST, LARGEST = 0.05, 20.0
"""Range of the factor of resampling."""


def at_level(source: Collection, level: int | None, pixel_size_um: float | None) -> Collection:
    """Select a pyramid level of every image: by its number, or the coarsest whose pixels are not too large."""
    if pixel_size_um is not None:
        return replace(source, images=tuple(_no_coarser(image, pixel_size_um) for image in source.images))
    if not level:
        return source
    return replace(source, images=tuple(image.at_level(level) for image in source.images))


def _no_coarser(image: Image, pixel_size_um: float) -> Image:
    """The coarsest level whose pixels are no larger than ``pixel_size_um``, or the finest."""
    chosen = image
    for level in range(1, len(image.levels)):
        coarser = image.at_level(level)
        if _spacing(coarser, "--pixel-size") > SAME_SCALE * pixel_size_um:
            break
        chosen = coarser
    return chosen


def factor_of(image: Image, job: SegmentJob, traits: Traits) -> float:
    """Network pixels per pixel of an image; 1 where nothing is resampled.

    Raises:
        BadArgument: the image has no pixel size, the model none to compare it with, or the factor is extreme.
    """
    if job.pixel_size_um is not None:
        return _factor(image, _spacing(image, "--pixel-size") / job.pixel_size_um)
    if job.scale == "auto":
        if traits.pixel_size_um is None:
            raise BadArgument(
                f"--scale auto: {traits.name} does not say for which pixel size it was made{_known_sizes(traits)}; "
                "give a factor, such as --scale 0.5 for objects twice as large as those it was made for"
            )
        return _factor(image, _spacing(image, "--scale auto") / traits.pixel_size_um)
    return 1.0 if job.scale is None else _factor(image, job.scale)


def _known_sizes(traits: Traits) -> str:
    """The sizes of the objects a model was trained on, as a part of a sentence."""
    if not traits.diameters_px:
        return ""
    least, typical, most = traits.diameters_px
    return f" (its objects were {least:.0f} to {most:.0f} px across, {typical:.0f} px in the median)"


def _factor(image: Image, factor: float) -> float:
    if not SMALLEST <= factor <= LARGEST:
        raise BadArgument(
            f"{image.place}: expected a scale between {SMALLEST} and {LARGEST}, got {factor:.3g}; correct the pixel "
            "size in the image's metadata, or give another factor"
        )
    return 1.0 if 1 / SAME_SCALE < factor < SAME_SCALE else factor


def _spacing(image: Image, option: str) -> float:
    """Pixel size of an image in micrometers, the geometric mean of both axes."""
    if image.spacing_um is None:
        raise BadArgument(
            f"{option}: {image.place} does not say how large its pixels are; give --scale a factor, or --level"
        )
    return sqrt(image.spacing_um[0] * image.spacing_um[1])


def least_area(factor: float, traits: Traits) -> int:
    """The least area that the segmenter was tuned for, in pixels of the image."""
    return ceil((traits.min_area or 0) / factor**2)


def scale_notes(images: tuple[Image, ...], factors: tuple[float, ...], traits: Traits) -> list[str]:
    """Notes for the user on the scale: which images are resampled, and pixel sizes far from those of the model."""
    notes = []
    resampled = sorted({round(factor, 4) for factor in factors if factor != 1})
    if resampled:
        notes.append(f"images are resampled by {', '.join(map(str, resampled))} for {traits.name}")
    if traits.pixel_size_um is None:
        return notes
    far = [
        image
        for image, factor in zip(images, factors, strict=True)
        if image.spacing_um and _distance(image, factor, traits.pixel_size_um) > OTHER_SCALE
    ]
    if far:
        notes.append(
            f"{len(far)} image(s) have pixels of {_spacing(far[0], ''):.3g} um, {traits.name} was made for "
            f"{traits.pixel_size_um:.3g} um: --scale auto resamples them"
        )
    return notes


def _distance(image: Image, factor: float, pixel_size_um: float) -> float:
    ratio = _spacing(image, "") / factor / pixel_size_um
    return max(ratio, 1 / ratio)
