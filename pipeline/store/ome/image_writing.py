"""Writing OME-Zarr images and plates, block by block and in bounded memory, as 0.4 or 0.5.

An image becomes visible only in `ImageWriter.finish`, after its pyramid was written, because the metadata that list
the levels are written last. Two writers must not share a chunk (a shard, where there are shards).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr

from pipeline.errors import BadArgument
from pipeline.store.ome.arrays import (
    Selection,
    grid_of,
    level_count,
    level_shapes,
    mean_of_2x2,
    new_document,
    open_array,
    parts_of,
    read_region,
    write_region,
)
from pipeline.store.ome.groups import join, with_ome, write_group, zarr_format_of
from pipeline.store.ome.image import ALL_CHUNKS
from pipeline.store.ome.metadata import (
    check_axes,
    multiscales_metadata,
    omero_metadata,
    plate_metadata,
    well_metadata,
)
from pipeline.store.places.address import Address


def create_plate(
    address: Address,
    *,
    name: str,
    wells: Sequence[tuple[str, str, int | Sequence[str]]],
    ngff: str = "0.5",
    attributes: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write the metadata of a plate and return the paths of its fields.

    The fields are listed at once; those without an image yet are reported as absent when the plate is opened.

    Args:
        address: place of the plate.
        name: name of the plate.
        wells: row, column, and the names of the fields, or their number (then they are called 0, 1, ...).
        ngff: ``0.4`` or ``0.5``.
        attributes: what platelayer keeps about the plate, under the attribute ``platelayer``.
    """
    zarr_format = zarr_format_of(ngff)
    named = [
        (row, column, [str(n) for n in range(fields)] if isinstance(fields, int) else list(fields))
        for row, column, fields in wells
    ]
    plate = plate_metadata(name, [(row, column, len(fields)) for row, column, fields in named], ngff=ngff)
    for row in plate["plate"]["rows"]:
        write_group(address, row["name"], {}, zarr_format=zarr_format)
    for row, column, fields in named:
        well = with_ome({}, well_metadata(fields, ngff=ngff), ngff=ngff)
        write_group(address, f"{row}/{column}", well, zarr_format=zarr_format)
    write_group(address, "", with_ome(_kept(attributes), plate, ngff=ngff), zarr_format=zarr_format)
    return [f"{row}/{column}/{field}" for row, column, fields in named for field in fields]


def create_series(
    address: Address, names: Sequence[str], *, ngff: str = "0.5", attributes: Mapping[str, Any] | None = None
) -> None:
    """Write the metadata of a store with many images that are no plate (``bioformats2raw.layout``).

    ``attributes`` is what platelayer keeps about the store, under the attribute ``platelayer``.
    """
    zarr_format = zarr_format_of(ngff)
    write_group(address, "OME", with_ome({}, {"series": list(names)}, ngff=ngff), zarr_format=zarr_format)
    layout = with_ome(_kept(attributes), {"bioformats2raw.layout": 3}, ngff=ngff)
    write_group(address, "", layout, zarr_format=zarr_format)


def _kept(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"platelayer": dict(attributes)} if attributes else {}


@dataclass(frozen=True, kw_only=True)
class ImageWriter:
    """An image being written; made by `create_image`, can be pickled for workers."""

    address: Address
    """The collection."""
    path: str
    """Path of the image in the collection, '' for its root."""
    axes: tuple[str, ...]
    """Axes of the arrays."""
    dtype: np.dtype
    """Type of the pixels."""
    channels: tuple[str, ...]
    """Channel names."""
    spacing_um: tuple[float, float] | None
    """Pixel size (y, x)."""
    shapes: tuple[tuple[int, ...], ...]
    """Shape of each level."""
    documents: tuple[str, ...]
    """Metadata of each level's array."""
    ngff: str
    """OME-Zarr version."""
    title: str = ""
    """Name of the image; that of its path when empty."""
    origin_um: tuple[float, float] = (0.0, 0.0)
    """Position of the first pixel (y, x)."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Further attributes of the image under ``platelayer``."""

    def write(self, region: Selection, block: np.ndarray) -> None:
        """Write a block of the finest level; ``region`` has one slice per axis and covers whole chunks (shards).

        Raises:
            BadArgument: the region cuts a file in two, or the block has another shape.
        """
        self._check(region, block)
        write_region(self.address, join(self.path, "0"), self.documents[0], region, block.astype(self.dtype))

    def finish(self) -> None:
        """Build the pyramid (2x2 mean in y and x) block by block and make the image visible."""
        for level in range(1, len(self.shapes)):
            for region in _files_of(self._array(level)):
                self._reduce(level, region)
        ome = multiscales_metadata(
            axes=self.axes,
            units=self._units(),
            scales=[self._scale(level) for level in range(len(self.shapes))],
            translation=[0.0] * (len(self.axes) - 2) + list(self.origin_um),
            name=self.title or self.path.rpartition("/")[2] or self.address.name.removesuffix(".zarr"),
            ngff=self.ngff,
        )
        ome |= omero_metadata(self.channels, limits=self._limits(), windows=self._windows())
        kept = {"platelayer": {**self.attributes, **ALL_CHUNKS["platelayer"]}}
        attributes = with_ome(kept, ome, ngff=self.ngff)
        write_group(self.address, self.path, attributes, zarr_format=zarr_format_of(self.ngff))

    def _array(self, level: int) -> zarr.Array:
        return open_array(self.address, join(self.path, str(level)), self.documents[level])

    def _reduce(self, level: int, region: Selection) -> None:
        finer = self.shapes[level - 1]
        source = (
            *region[:-2],
            *(
                slice(2 * part.start, min(2 * part.stop, n))
                for part, n in zip(region[-2:], finer[-2:], strict=True)
            ),
        )
        block = read_region(
            self.address, join(self.path, str(level - 1)), self.documents[level - 1], tuple(source)
        )
        small = mean_of_2x2(block)
        write_region(self.address, join(self.path, str(level)), self.documents[level], region, small)

    def _check(self, region: Selection, block: np.ndarray) -> None:
        step, _ = grid_of(self._array(0))
        shape = self.shapes[0]
        if tuple(block.shape) != tuple(part.stop - part.start for part in region) or len(region) != len(
            shape
        ):
            raise BadArgument(f"expected a block of the region's shape {region}, got {block.shape}")
        for part, size, extent in zip(region, step, shape, strict=True):
            if part.start % size or (part.stop % size and part.stop != extent):
                raise BadArgument(f"a block must cover whole files of {step}, got {region}")

    def _units(self) -> list[str | None]:
        return ["micrometer" if axis in "yx" and self.spacing_um else None for axis in self.axes]

    def _scale(self, level: int) -> list[float]:
        y, x = self.spacing_um or (1.0, 1.0)
        return [1.0] * (len(self.axes) - 2) + [y * 2**level, x * 2**level]

    def _limits(self) -> tuple[float, float]:
        if self.dtype.kind in "ui":
            return float(np.iinfo(self.dtype).min), float(np.iinfo(self.dtype).max)
        return 0.0, 1.0

    def _windows(self) -> list[tuple[float, float]]:
        """Display range per channel from the coarsest level: a hint for viewers."""
        last = len(self.shapes) - 1
        coarse = read_region(
            self.address,
            join(self.path, str(last)),
            self.documents[last],
            tuple(slice(0, n) for n in self.shapes[last]),
        )
        axis = self.axes.index("c") if "c" in self.axes else None
        parts = [coarse] if axis is None else list(np.moveaxis(coarse, axis, 0))
        return [_window(part) for part in parts]


def create_image(
    address: Address,
    path: str = "",
    *,
    axes: Sequence[str],
    shape: Sequence[int],
    dtype: np.dtype | type | str,
    channels: Sequence[str] = (),
    spacing_um: tuple[float, float] | None = None,
    chunks: tuple[int, int] = (1024, 1024),
    shards: tuple[int, int] | None = None,
    ngff: str = "0.5",
    levels: int | None = None,
    title: str = "",
    origin_um: tuple[float, float] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> ImageWriter:
    """Make the arrays of a new image; write its blocks, then call ``finish``.

    Args:
        address: the collection (a plate, or the image itself with ``path=""``).
        path: place of the image in the collection.
        axes: subset of t, c, z, y, x in that order.
        shape: pixels per axis.
        dtype: type of the pixels.
        channels: one name per channel; ``channel_0``, ... when empty.
        spacing_um: pixel size (y, x).
        chunks: chunk (y, x), cut down to the image.
        shards: shard (y, x), a multiple of the chunk; only in 0.5.
        ngff: ``0.4`` or ``0.5``.
        levels: pyramid levels; as many as `level_count` says when None.
        title: name of the image; that of its path when empty.
        origin_um: position of the first pixel (y, x); used where the pixel size is known.
        attributes: what platelayer keeps about the image, under the attribute ``platelayer``.
    """
    names = _channels(axes, shape, channels)
    shapes = level_shapes(tuple(shape), levels or level_count((shape[-2], shape[-1])))
    if shards and ngff != "0.5":
        raise BadArgument(f"shards need OME-Zarr 0.5, got {ngff!r}")
    documents = []
    for level, extent in enumerate(shapes):
        chunk, shard = _layout(extent, chunks, shards)
        array = {"shape": extent, "dtype": np.dtype(dtype), "chunks": chunk, "shards": shard, "axes": axes}
        documents.append(_create_array(address, join(path, str(level)), array, zarr_format_of(ngff)))
    return ImageWriter(
        address=address,
        path=path,
        axes=check_axes(axes),
        dtype=np.dtype(dtype),
        channels=names,
        spacing_um=spacing_um,
        shapes=shapes,
        documents=tuple(documents),
        ngff=ngff,
        title=title,
        origin_um=origin_um if origin_um and spacing_um else (0.0, 0.0),
        attributes=dict(attributes or {}),
    )


def write_image(
    address: Address,
    path: str,
    array: np.ndarray,
    *,
    axes: Sequence[str] = ("c", "y", "x"),
    channels: Sequence[str] = (),
    spacing_um: tuple[float, float] | None = None,
    chunks: tuple[int, int] = (1024, 1024),
    shards: tuple[int, int] | None = None,
    ngff: str = "0.5",
    levels: int | None = None,
) -> None:
    """Write an array as an image with its pyramid; arguments as in `create_image`."""
    writer = create_image(
        address,
        path,
        axes=axes,
        shape=array.shape,
        dtype=array.dtype,
        channels=channels,
        spacing_um=spacing_um,
        chunks=chunks,
        shards=shards,
        ngff=ngff,
        levels=levels,
    )
    writer.write(tuple(slice(0, n) for n in array.shape), array)
    writer.finish()


def _create_array(address: Address, path: str, array: dict[str, Any], zarr_format: int) -> str:
    """Write the metadata of an array; returns its document."""
    files = new_document(codec="image", zarr_format=zarr_format, **array)
    for key, data in files.items():
        address.write_bytes(join(path, key), data)
    return files["zarr.json" if zarr_format == 3 else ".zarray"].decode()


def _channels(axes: Sequence[str], shape: Sequence[int], channels: Sequence[str]) -> tuple[str, ...]:
    if len(check_axes(axes)) != len(shape):
        raise BadArgument(f"expected one extent per axis {tuple(axes)}, got shape {tuple(shape)}")
    count = shape[list(axes).index("c")] if "c" in axes else 1
    names = tuple(channels) or tuple(f"channel_{index}" for index in range(count))
    if len(names) != count or len(set(names)) != count:
        raise BadArgument(f"expected {count} different channel names, got {names}")
    return names


def _layout(
    shape: tuple[int, ...], chunks: tuple[int, int], shards: tuple[int, int] | None
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return (chunk, shard) for all axes; neither is larger than the image needs."""
    ones = (1,) * (len(shape) - 2)
    chunk = tuple(min(c, n) for c, n in zip(chunks, shape[-2:], strict=True))
    if shards is None:
        return ones + chunk, None
    fitted = tuple(min(s, -(-n // c) * c) // c * c for s, n, c in zip(shards, shape[-2:], chunk, strict=True))
    return ones + chunk, ones + fitted


def _files_of(array: zarr.Array) -> Iterator[Selection]:
    """Yield the region of every file (chunk or shard) of an array."""
    return parts_of(tuple(slice(0, extent) for extent in array.shape), grid_of(array)[0])


def _window(pixels: np.ndarray) -> tuple[float, float]:
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite.astype(np.float64), (0.1, 99.9)))
    return low, high if high > low else low + 1.0
