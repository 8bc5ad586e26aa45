"""The metadata inside a TIFF file: names of images and channels, and the size of a pixel.

The invariant: a pixel size is never invented. Without a unit of length there is none, whatever resolution the file
has, because programs write a resolution of 1 or of 72 dots per inch where the real one is unknown.
"""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass

import tifffile

MICROMETRES = {
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre", "\\u00b5m"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("pm", "picometer"), 1e-6),
    **dict.fromkeys(("in", "inch"), 25400.0),
}
"""Micrometres per unit of length, by the names that programs write, in lower case."""

Spacing = tuple[float, float]
"""Size of a pixel along y and x in micrometres."""


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """The metadata of one image of a file."""

    name: str = ""
    """Name of the image, may be empty."""
    channels: tuple[str, ...] = ()
    """Names of the channels; empty if there are none."""
    spacing_um: Spacing | None = None
    """Size of a pixel; None where the file does not say."""


def image_metadata(file: tifffile.TiffFile, series: int) -> ImageMetadata:
    """Return the metadata of the image that is series number ``series`` of a file."""
    described = file.series[series]
    if file.is_ome and file.ome_metadata:
        return _of_ome(file, described.name, series)
    if file.is_imagej and file.imagej_metadata:
        return ImageMetadata(spacing_um=_of_imagej(file))
    colours = ("red", "green", "blue", "alpha")[: described.shape[-1]] if described.axes.endswith("S") else ()
    return ImageMetadata(channels=colours, spacing_um=_of_slide(file) if file.is_svs else None)


def micrometres(value: float | str | None, unit: str | None) -> float | None:
    """Return a length in micrometres; None where the value is no positive number or the unit no length."""
    factor = MICROMETRES.get((unit or "").strip().lower())
    try:
        number = float(value or 0)
    except ValueError:
        return None
    return number * factor if factor and math.isfinite(number) and number > 0 else None


def _of_ome(file: tifffile.TiffFile, name: str, series: int) -> ImageMetadata:
    images = list(_ome_images(file.ome_metadata or ""))
    named = [image for image in images if _belongs(image, file.filename.rpartition("/")[2])]
    chosen = named if len(named) < len(images) else images
    image = next((image for image in chosen if name and image.get("Name") == name), None)
    if image is None:
        image = chosen[series] if series < len(chosen) else None
    if image is None:
        return ImageMetadata()
    pixels = next(_below(image, "Pixels"), None)
    channels = tuple(node.get("Name") or "" for node in _below(image, "Channel"))
    return ImageMetadata(
        name=image.get("Name") or "",
        channels=channels,
        spacing_um=None if pixels is None else _of_pixels(pixels),
    )


def _ome_images(xml: str) -> Iterator[ElementTree.Element]:
    """Yield the images of OME-XML; none if the text is no XML."""
    try:
        yield from _below(ElementTree.fromstring(xml), "Image")
    except ElementTree.ParseError:
        return


def _below(node: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in node.iter() if child.tag.rpartition("}")[2] == name)


def _belongs(image: ElementTree.Element, filename: str) -> bool:
    """Whether pixels of an image are in this file, for metadata that describe a set of files."""
    files = [node.get("FileName") for node in _below(image, "UUID") if node.get("FileName")]
    return not files or filename in files


def _of_pixels(pixels: ElementTree.Element) -> Spacing | None:
    """Read the size of a pixel of OME metadata, where micrometres are the default unit."""
    y, x = (
        micrometres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "YX"
    )
    return (y, x) if y and x else None


def _of_imagej(file: tifffile.TiffFile) -> Spacing | None:
    unit = str((file.imagej_metadata or {}).get("unit", ""))
    tags = file.pages.first.tags
    y, x = (micrometres(_per_unit(tags.get(name)), unit) for name in ("YResolution", "XResolution"))
    return (y, x) if y and x else None


def _of_slide(file: tifffile.TiffFile) -> Spacing | None:
    """Read the micrometres per pixel that Aperio scanners write into the description."""
    for item in str(file.pages.first.description).split("|"):
        key, _, value = item.partition("=")
        if key.strip() == "MPP":
            size = micrometres(value.strip(), "um")
            return (size, size) if size else None
    return None


def _per_unit(tag: tifffile.TiffTag | None) -> float | None:
    if tag is None or not tag.value[0]:
        return None
    return tag.value[1] / tag.value[0]
