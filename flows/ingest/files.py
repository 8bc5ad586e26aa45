"""Ingest of images from files: the images that were found, and copying them block by block into a new store.

The images of a store are listed last, when all of them are in it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from flows.ingest.new_store import new_store
from pipeline.errors import BadArgument, BadStore
from pipeline.store.ome.image_writing import create_image, create_plate, create_series
from pipeline.store.places.address import Address


class Source(Protocol):
    """An image that is copied: a field of view of TIFF files, or a scene of another format."""

    @property
    def path(self) -> str:
        """Path in the store; empty for its root."""

    @property
    def well(self) -> tuple[str, str] | None:
        """Row and column; None outside of a plate."""

    @property
    def title(self) -> str:
        """Name of the image."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""

    @property
    def axes(self) -> str:
        """Axes out of t, c, z, y, x in this order."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels."""

    @property
    def spacing_um(self) -> tuple[float, float] | None:
        """Size of a pixel (y, x); None where it is not known."""

    @property
    def position_um(self) -> tuple[float, float] | None:
        """Position of the first pixel (y, x); None where it is not known."""

    def blocks(self) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Yield regions that begin at multiples of the chunk, and their pixels."""


@dataclass(frozen=True, kw_only=True)
class Understood:
    """The images of a source, before pixels are copied."""

    images: Sequence[Source]
    """Images that can be copied."""
    left_out: Mapping[str, str]
    """Reason why an image cannot be copied, by its path."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Facts of the source for the metadata of the store."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """The result of an ingest."""

    images: int
    """Images in the store."""
    left_out: Mapping[str, str]
    """Reason why an image is not in the store, by its path."""

    @property
    def total(self) -> int:
        """Number of images that the source should have."""
        return self.images + len(self.left_out)


def copy_images(
    understood: Understood,
    output: str,
    *,
    spacing_um: float | None = None,
    ngff: str = "0.5",
    stop: bool = False,
    on_image: Callable[[], None] = lambda: None,
) -> Copied:
    """Copy images into a new store: a plate, a collection of named images, or one image at the store itself.

    Args:
        understood: the images to copy.
        output: the store, which must not exist.
        spacing_um: size of a pixel in place of what files say.
        ngff: ``0.4`` or ``0.5``.
        stop: a file whose pixels cannot be read stops everything; otherwise its image is left out.
        on_image: called after each image.

    Raises:
        BadArgument: the pixel size is no positive number, or one store cannot hold these images.
        BadStore: pixels that cannot be read, where that stops, or when no image is left.
        RunConflict: there is a store already.
    """
    if spacing_um is not None and not 0 < spacing_um < float("inf"):
        raise BadArgument(f"--pixel-size-um: expected a positive number, got {spacing_um}")
    with new_store(output) as target:
        copied, left_out = _copy_all(understood, target, spacing_um, ngff, stop, on_image)
        _list(target, copied, _record(understood, copied, left_out), ngff)
    return Copied(images=len(copied), left_out=left_out)


def _record(understood: Understood, copied: Sequence[Source], left_out: Mapping[str, str]) -> dict[str, Any]:
    return {"ingest": {**understood.origin, "images": len(copied), "left_out": dict(left_out)}}


def _copy_all(
    understood: Understood,
    target: Address,
    spacing_um: float | None,
    ngff: str,
    stop: bool,
    on_image: Callable[[], None],
) -> tuple[list[Source], dict[str, str]]:
    copied: list[Source] = []
    left_out = dict(understood.left_out)
    for image in understood.images:
        try:
            kept = _position(image) | ({} if image.path else _record(understood, [image], left_out))
            _copy(image, target, (spacing_um, spacing_um) if spacing_um else image.spacing_um, ngff, kept)
        except BadStore as error:
            if stop or len(understood.images) == 1:
                raise
            target.remove(image.path)
            left_out[image.path] = str(error)
        else:
            copied.append(image)
        on_image()
    if not copied:
        raise BadStore(f"no image could be copied: {next(iter(left_out.values()), 'there is none')}")
    return copied, left_out


def _copy(
    image: Source,
    target: Address,
    spacing_um: tuple[float, float] | None,
    ngff: str,
    attributes: Mapping[str, Any],
) -> None:
    writer = create_image(
        target,
        image.path,
        axes=tuple(image.axes),
        shape=image.shape,
        dtype=image.dtype,
        channels=image.channels,
        spacing_um=spacing_um,
        ngff=ngff,
        title=image.title,
        origin_um=image.position_um,
        attributes=attributes,
    )
    for region, pixels in image.blocks():
        writer.write(region, pixels)
    writer.finish()


def _position(image: Source) -> dict[str, Any]:
    if image.position_um is None:
        return {}
    return {"position_um": dict(zip("yx", image.position_um, strict=True))}


def _list(target: Address, images: Sequence[Source], attributes: Mapping[str, Any], ngff: str) -> None:
    """List the images, last of all."""
    wells: dict[tuple[str, str], list[str]] = {}
    for image in images:
        if image.well:
            wells.setdefault(image.well, []).append(image.path.rpartition("/")[2])
    if wells:
        listed = [(row, column, fields) for (row, column), fields in wells.items()]
        name = target.name.removesuffix(".zarr")
        create_plate(target, name=name, wells=listed, ngff=ngff, attributes=attributes)
    elif [image.path for image in images] != [""]:
        create_series(target, [image.path for image in images], ngff=ngff, attributes=attributes)
