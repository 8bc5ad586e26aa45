"""The images in a TIFF file: what their axes, channels and pixel size are, and their pixels, block by block.

The invariant: an axis is never guessed. It comes from OME or ImageJ metadata, or the caller says what the pages
are, or the file is refused. Where an image belongs on a plate is not known here.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import numpy as np
import tifffile

from pipeline.datasets.files.source_files import SourceFile
from pipeline.datasets.files.tiff_metadata import ImageMetadata, Spacing, image_metadata
from pipeline.datasets.files.tiff_pixels import Pixels, open_pixels, open_tiff, own_series
from pipeline.errors import BadArgument, BadStore

PAGES = ("t", "c", "z")
"""What the pages of a file without metadata can be."""

BLOCK_BYTES = 64 * 2**20
"""Blocks are cut along x where a band over the whole width would be larger."""

STEP = 1024
"""Blocks begin at multiples of this along y and x; the chunk of the stores that are written."""

_KNOWN = {"T": "t", "C": "c", "Z": "z", "Y": "y", "X": "x"}
_OVERVIEW = re.compile(r"\b(label|macro|thumbnail|overview)\b", re.IGNORECASE)

Region = tuple[slice, slice, slice, slice, slice]
"""One slice for each of t, c, z, y, x."""


@dataclass(frozen=True, kw_only=True)
class TiffImage:
    """One image of a file; no pixel has been read."""

    file: SourceFile
    """The file."""
    series: int
    """Which of the series of the file it is."""
    axes: tuple[str, ...]
    """What each stored axis is, out of t, c, z, y, x; empty for one of length 1 without meaning."""
    stored: tuple[int, ...]
    """Lengths of the stored axes."""
    dtype: np.dtype
    """Type of the pixels."""
    metadata: ImageMetadata
    """Names and pixel size."""

    def __str__(self) -> str:
        return str(self.file)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of t, c, z, y, x."""
        lengths = dict(zip(self.axes, self.stored, strict=True))
        return tuple(lengths.get(axis, 1) for axis in "tczyx")

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels; empty where the metadata do not name all of them differently."""
        names = self.metadata.channels
        return names if len(names) == self.shape[1] == len(set(names)) and all(names) else ()

    @property
    def spacing_um(self) -> Spacing | None:
        """Size of a pixel along y and x in micrometres; None where the file does not say."""
        return self.metadata.spacing_um

    def blocks(self) -> Iterator[tuple[Region, np.ndarray]]:
        """Yield regions of the image and their pixels ``(t, c, z, y, x)``; a block is one plane (or its colours).

        Raises:
            BadStore: pixels that cannot be read.
        """
        with _faults(self.file), open_pixels(self.file, self.series) as pixels:
            for region in self._regions(pixels):
                yield region, self._read(pixels, region)

    def _regions(self, pixels: Pixels) -> Iterator[Region]:
        """Cut the image into bands of rows of one plane, high enough that no stored strip is read twice."""
        y, x = self.axes.index("y"), self.axes.index("x")
        after = int(np.prod(self.stored[x + 1 :], dtype=np.int64))
        height, width = self.stored[y], self.stored[x]
        rows = _rounded_up(pixels.chunks[y])
        columns = max(STEP, BLOCK_BYTES // (rows * after * self.dtype.itemsize) // STEP * STEP)
        if pixels.chunks[x] >= width > STEP and pixels.chunks[y] > STEP:
            columns = width
        at_once = self.axes[x + 1 :]
        t, c, z = (
            [slice(0, n)] if axis in at_once else [slice(i, i + 1) for i in range(n)]
            for axis, n in zip("tcz", self.shape, strict=False)
        )
        yield from product(t, c, z, _cut(height, rows), _cut(width, columns))

    def _read(self, pixels: Pixels, region: Region) -> np.ndarray:
        parts = dict(zip("tczyx", region, strict=True))
        block = pixels.read(tuple(parts.get(axis, slice(0, 1)) for axis in self.axes))
        named = [position for position, axis in enumerate(self.axes) if axis]
        block = block.reshape([block.shape[position] for position in named])
        present = [self.axes[position] for position in named]
        ordered = block.transpose([present.index(axis) for axis in "tczyx" if axis in present])
        return ordered.reshape([part.stop - part.start for part in region])


@dataclass(frozen=True, kw_only=True)
class TiffContents:
    """The images of a file."""

    images: tuple[TiffImage, ...]
    """The images, in the order of the file."""
    overviews: int
    """Series that show an image again, smaller, or the label of a slide; they are left out."""


def look_into(file: SourceFile, *, pages: str | None = None) -> TiffContents:
    """Read the headers of a file; ``pages`` names the axis of pages without metadata.

    Colour counts as three channels.

    Raises:
        BadArgument: the file has pages and neither metadata nor the caller says what they are, or images of
            several sizes and no metadata.
        BadStore: not a TIFF.
    """
    if pages is not None and pages not in PAGES:
        raise BadArgument(f"--pages: expected one of {', '.join(PAGES)}, got {pages!r}")
    with _faults(file), open_tiff(file) as opened:
        chosen, overviews = _images_among(opened, file)
        images = tuple(_image(opened, number, file, pages) for number in chosen)
    return TiffContents(images=images, overviews=overviews)


@contextmanager
def _faults(file: SourceFile) -> Iterator[None]:
    try:
        yield
    except (BadArgument, BadStore, KeyboardInterrupt, GeneratorExit):
        raise
    except Exception as error:
        raise BadStore(f"cannot read {file} as TIFF: {error}; is the file whole?") from error


def _images_among(opened: tifffile.TiffFile, file: SourceFile) -> tuple[list[int], int]:
    """Return the numbers of the series that are images of their own, and how many others there are."""
    series = opened.series
    if not series:
        raise BadStore(f"{file}: expected an image, the file has no pages; fetch the file again")
    if len(series) == 1:
        return [0], 0
    if series[0].kind in ("ome", "shaped"):
        complete = own_series(opened)
        chosen = [n for n in complete if not _OVERVIEW.search(series[n].name or "")] or complete[:1]
        return chosen, len(complete) - len(chosen)
    sizes = [tuple(item.shape[item.axes.index(axis)] for axis in "YX") for item in series]
    if all(h < sizes[0][0] and w < sizes[0][1] for h, w in sizes[1:]):
        return [0], len(series) - 1
    raise BadArgument(
        f"{file}: {len(series)} images of different sizes (height, width: {sizes[:4]}), and no metadata that say "
        "what they are; save them as separate files or as OME-TIFF"
    )


def _image(opened: tifffile.TiffFile, number: int, file: SourceFile, pages: str | None) -> TiffImage:
    series = opened.series[number]
    return TiffImage(
        file=file,
        series=number,
        axes=_axes(series.axes, series.shape, file, pages),
        stored=tuple(series.shape),
        dtype=np.dtype(series.dtype),
        metadata=image_metadata(opened, number),
    )


def _axes(letters: str, shape: tuple[int, ...], file: SourceFile, pages: str | None) -> tuple[str, ...]:
    """Return the letter of each stored axis; empty for one of length 1 without meaning."""
    named = [_axis(letter, length, file, pages) for letter, length in zip(letters, shape, strict=True)]
    axes = [axis for axis in named if axis]
    if len(set(axes)) < len(axes) or axes.count("y") != 1 or axes.count("x") != 1:
        raise BadArgument(
            f"{file}: expected each of t, c, z, y, x at most once, got axes {letters!r} of lengths {shape}"
        )
    return tuple(named)


def _axis(letter: str, length: int, file: SourceFile, pages: str | None) -> str:
    axis = _KNOWN.get(letter) or ("c" if letter == "S" else pages)
    if length == 1 and letter not in "YX":
        return ""
    if axis is None:
        raise BadArgument(
            f"{file}: {length} pages, and no OME or ImageJ metadata that says what they are; "
            "say whether pages are t, c or z by --pages"
        )
    return axis


def _rounded_up(length: int) -> int:
    return -(-length // STEP) * STEP


def _cut(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
