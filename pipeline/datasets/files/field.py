"""One image composed of files: their positions along time, channel and depth, and its pixels in blocks."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.files.places import Place
from pipeline.datasets.files.sidecars import Sidecar
from pipeline.datasets.files.tiff import TiffImage
from pipeline.datasets.files.tiff_metadata import Spacing
from pipeline.errors import BadArgument

_log = logging.getLogger(__name__)

Well = tuple[str, str]
"""Row and column, such as ``("A", "1")``."""

Index = tuple[str, int, int]
"""Channel, time and depth, as file names say them."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Channels, times and depths that every image of a plate has by the names of its files."""

    channels: tuple[str, ...]
    """Channels in natural order; one empty name where names have none."""
    times: tuple[int, ...]
    """Times in order."""
    depths: tuple[int, ...]
    """Depths in order."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of times, channels and depths."""
        return len(self.times), len(self.channels), len(self.depths)

    def missing(self, places: Sequence[Place]) -> list[Index]:
        """Return what an image with files at these places lacks."""
        present = {(place.channel, place.t, place.z) for place in places}
        return [
            (channel, t, z)
            for channel in self.channels
            for t in self.times
            for z in self.depths
            if (channel, t, z) not in present
        ]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One image: a field of a well, or an image that is in no well."""

    path: str
    """Path in the store: ``A/1/2``, the name of the image, or empty for its root."""
    well: Well | None
    """Well; None for an image that is in no well."""
    title: str
    """Name of the image, as files or metadata give it."""
    channels: tuple[str, ...]
    """Names of the channels."""
    axes: str
    """``cyx``, with t and z before and after c where there are any."""
    shape: tuple[int, ...]
    """Lengths of these axes."""
    dtype: np.dtype
    """Type of the pixels."""
    spacing_um: Spacing | None
    """Size of a pixel along y and x, if files say."""
    position_um: tuple[float, float] | None
    """Position of the first pixel (y, x), if files beside the images say."""
    files: Mapping[tuple[int, int, int], TiffImage]
    """Files by their first t, c and z in the image."""

    def blocks(self) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Yield regions and their pixels, both with one entry per axis of ``axes``; a few megabytes each.

        Raises:
            BadStore: a file that cannot be read.
        """
        kept = ["tczyx".index(axis) for axis in self.axes]
        for origin, file in self.files.items():
            for region, pixels in file.blocks():
                moved = [
                    slice(part.start + start, part.stop + start)
                    for part, start in zip(region, (*origin, 0, 0), strict=True)
                ]
                yield (
                    tuple(moved[axis] for axis in kept),
                    pixels.reshape([pixels.shape[axis] for axis in kept]),
                )

    def load(self) -> np.ndarray:
        """Return all pixels, ``axes`` in that order."""
        pixels = np.zeros(self.shape, self.dtype)
        for region, block in self.blocks():
            pixels[region] = block
        return pixels


def assemble(
    *,
    path: str,
    title: str,
    files: Sequence[tuple[Place, TiffImage]],
    grid: Grid,
    sidecar: Sidecar,
    renamed: Mapping[str, str],
) -> Field:
    """Put the files of one image together.

    Raises:
        BadArgument: a file is missing, files differ in size or type, or an axis is in names and in files.
    """
    places = [place for place, _ in files]
    images = [image for _, image in files]
    _check_whole(places, grid)
    _check_alike(images)
    lengths = _lengths(images[0], grid)
    axes = "".join(axis for axis in "tczyx" if axis in "cyx" or lengths[axis] > 1)
    where = {
        (grid.times.index(p.t), grid.channels.index(p.channel), grid.depths.index(p.z)): image
        for p, image in files
    }
    return Field(
        path=path,
        well=places[0].well,
        title=title,
        channels=_channels(grid.channels, images[0], lengths["c"], sidecar, renamed),
        axes=axes,
        shape=tuple(lengths[axis] for axis in axes),
        dtype=images[0].dtype,
        spacing_um=_spacing(images, sidecar),
        position_um=sidecar.positions_um.get((places[0].well, places[0].field)),
        files=dict(sorted(where.items())),
    )


def _check_whole(places: Sequence[Place], grid: Grid) -> None:
    missing = grid.missing(places)
    if missing:
        channel, t, z = missing[0]
        total = int(np.prod(grid.counts))
        raise BadArgument(
            f"{len(missing)} of {total} files are missing, the first for channel {channel!r}, t {t}, z {z}"
        )


def _check_alike(images: Sequence[TiffImage]) -> None:
    one, *others = images
    if one.dtype.kind not in "buif":
        raise BadArgument(f"{one}: expected pixels of integers or floats, got {one.dtype}; convert the file")
    for other in others:
        if (other.shape, other.dtype) != (one.shape, one.dtype):
            raise BadArgument(
                f"expected files of one shape and type, got {one} {one.shape} {one.dtype} and "
                f"{other} {other.shape} {other.dtype} (t, c, z, y, x)"
            )


def _lengths(one: TiffImage, grid: Grid) -> dict[str, int]:
    """Return the lengths of the axes of an image; an axis is in the names or in the files, not in both."""
    inside = dict(zip("tczyx", one.shape, strict=True))
    for axis, count in zip("tcz", grid.counts, strict=True):
        if count > 1 and inside[axis] > 1:
            raise BadArgument(
                f"{axis} is both in the names ({count}) and in the files ({inside[axis]}, {one}); give a --pattern "
                f"without {axis}"
            )
        inside[axis] = max(count, inside[axis])
    return inside


def _channels(
    named: Sequence[str], one: TiffImage, count: int, sidecar: Sidecar, renamed: Mapping[str, str]
) -> tuple[str, ...]:
    """Return names as the user gives them, else from beside the images, the file names, or inside the files."""
    if count == len(named) and named[0]:
        beside = [sidecar.channel(name) for name in named]
        chosen = beside if len(set(beside)) == count else list(named)
        return tuple(renamed.get(name, other) for name, other in zip(named, chosen, strict=True))
    if len(one.channels) == count:
        return tuple(renamed.get(name, name) for name in one.channels)
    return ("image",) if count == 1 else tuple(f"channel{index}" for index in range(count))


def _spacing(images: Sequence[TiffImage], sidecar: Sidecar) -> Spacing | None:
    """Return the pixel size that all files agree on, else what lies beside them says; None where nothing does."""
    sizes = {image.spacing_um for image in images if image.spacing_um}
    if len(sizes) > 1:
        _log.warning("%s: files of one image say different pixel sizes, none is used", images[0])
        return None
    return next(iter(sizes), sidecar.spacing_um)
