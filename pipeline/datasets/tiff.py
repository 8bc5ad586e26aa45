"""One TIFF file of a microscope: what its axes, channels and pixel size are, and its pixels as ``tczyx``.

The invariant: an axis is never guessed. It comes from OME or ImageJ metadata, or the caller says what the pages
are, or the file is refused. Where the image lies on a plate is not known here.
"""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from pipeline.errors import BadArgument, BadStore

PAGES = ("t", "c", "z")
"""What the pages of a file without metadata can be."""
_KNOWN = {"T": "t", "C": "c", "Z": "z", "Y": "y", "X": "x"}
_MICRONS = dict.fromkeys(("um", "µm", "μm", "micron", "microns", "\\u00b5m"), 1.0) | {"nm": 1e-3, "mm": 1e3}


@dataclass(frozen=True, kw_only=True)
class TiffImage:
    """A file that has been looked into; no pixel has been read."""

    path: Path
    """The file."""
    axes: str
    """Axes of the pixels, out of ``tczyx``, in the order in which they are stored."""
    stored: tuple[int, ...]
    """Lengths of these axes."""
    dtype: np.dtype
    """Type of the pixels."""
    channels: tuple[str, ...]
    """Names of the channels by the metadata; empty if it has none."""
    spacing_um: tuple[float, float] | None
    """Size of a pixel along y and x; ``None`` where the file does not say."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of t, c, z, y, x."""
        lengths = dict(zip(self.axes, self.stored, strict=True))
        return tuple(lengths.get(axis, 1) for axis in "tczyx")

    def load(self) -> np.ndarray:
        """Return the pixels ``(t, c, z, y, x)``; what cannot be read is a BadStore."""
        order = [self.axes.index(axis) for axis in "tczyx" if axis in self.axes]
        return _pixels(self.path).reshape(self.stored).transpose(order).reshape(self.shape)


def look_into(path: Path, *, pages: str | None = None) -> TiffImage:
    """Read the axes of a file and what its metadata says; ``pages`` names the axis of pages without metadata.

    Colour counts as three channels. Only the first series of a file is an image, the others are overviews.

    Raises:
        BadArgument: the file has pages and neither metadata nor the caller says what they are.
        BadStore: not a TIFF.
    """
    if pages is not None and pages not in PAGES:
        raise BadArgument(f"pages of a TIFF: expected one of {', '.join(PAGES)}, got {pages!r}")
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            series = file.series[0]
            kept = _named(series.axes, series.shape, path, pages)
            names, spacing, dtype = _channel_names(file, series.axes), _spacing(file), np.dtype(series.dtype)
    except (OSError, IndexError, tifffile.TiffFileError) as error:
        raise BadStore(f"cannot read {str(path)!r} as TIFF: {error}; is the file whole?") from error
    lengths = dict(kept)
    return TiffImage(
        path=path,
        axes="".join(axis for axis, _ in kept),
        stored=tuple(length for _, length in kept),
        dtype=dtype,
        channels=names if len(names) == lengths.get("c", 1) else (),
        spacing_um=spacing,
    )


def _named(axes: str, shape: tuple[int, ...], path: Path, pages: str | None) -> list[tuple[str, int]]:
    """Return axis and length in stored order; axes of length 1 that mean nothing to us are left out."""
    kept: list[tuple[str, int]] = []
    for position, (letter, length) in enumerate(zip(axes, shape, strict=True)):
        axis = _KNOWN.get(letter) or ("c" if letter == "S" and position > 0 else pages)
        if axis is None and letter == "S":
            axis = "c"
        if axis is None and length > 1:
            raise BadArgument(
                f"{path.name}: {length} pages, and no OME or ImageJ metadata that says what they are; "
                "say whether pages are t, c or z"
            )
        if axis is not None and (length > 1 or letter in _KNOWN):
            kept.append((axis, length))
    found = [axis for axis, _ in kept]
    if len(set(found)) < len(found) or found.count("y") != 1 or found.count("x") != 1:
        raise BadArgument(
            f"{path.name}: expected each of t, c, z, y, x at most once, got axes {axes!r} {shape}"
        )
    return kept


def _pixels(path: Path) -> np.ndarray:
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            try:
                return file.series[0].asarray()
            except ValueError:
                # tifffile needs the optional imagecodecs for LZW; Pillow brings its own libtiff.
                if len(file.pages) > 1:
                    raise
        with Image.open(path) as picture:
            return np.asarray(picture)
    except Exception as error:
        raise BadStore(f"cannot read the pixels of {str(path)!r}: {error}") from error


def _channel_names(file: tifffile.TiffFile, axes: str) -> tuple[str, ...]:
    if file.is_ome and file.ome_metadata:
        return tuple(node.get("Name") or "" for node in _first_image(file.ome_metadata, "Channel"))
    return ("red", "green", "blue") if axes.endswith("S") else ()


def _spacing(file: tifffile.TiffFile) -> tuple[float, float] | None:
    if file.is_ome and file.ome_metadata:
        for node in _first_image(file.ome_metadata, "Pixels"):
            edges = [
                _micrometres(node.get(f"PhysicalSize{a}"), node.get(f"PhysicalSize{a}Unit")) for a in "YX"
            ]
            return (edges[0], edges[1]) if edges[0] and edges[1] else None
    if file.is_imagej and file.imagej_metadata:
        unit = str(file.imagej_metadata.get("unit", ""))
        tags = file.pages.first.tags
        edges = [_micrometres(_per_unit(tags.get(name)), unit) for name in ("YResolution", "XResolution")]
        return (edges[0], edges[1]) if edges[0] and edges[1] else None
    return None


def _first_image(xml: str, name: str) -> list[ElementTree.Element]:
    """Return the elements of a name inside the first image of OME-XML; none if the text is no XML."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return []
    image = next((node for node in root.iter() if node.tag.endswith("}Image")), root)
    return [node for node in image.iter() if node.tag.endswith("}" + name)]


def _per_unit(tag: tifffile.TiffTag | None) -> float | None:
    if tag is None or not tag.value[0]:
        return None
    return tag.value[1] / tag.value[0]


def _micrometres(value: float | str | None, unit: str | None) -> float | None:
    factor = _MICRONS.get(unit or "µm")
    return float(value) * factor if value and factor else None
