"""An OME-Zarr image as a value: its metadata, and its pixels by region.

An `Image` is small, frozen and picklable; it carries the metadata of its finest level, so that a worker reads
pixels without reading metadata again. Nothing in this module writes.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from dataclasses import field as value
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from pipeline.errors import BadArgument, BadStore
from pipeline.store.ome.arrays import find_array, open_array, read_region
from pipeline.store.ome.chunks.array_form import plain_form
from pipeline.store.ome.chunks.presence import absent_chunks, shown_by_coarser_level
from pipeline.store.ome.groups import Group, find_group, join
from pipeline.store.ome.metadata import Multiscale, channel_names, parse_multiscale
from pipeline.store.places.address import Address, inner_key
from pipeline.store.places.faults import StoreLost

ALL_CHUNKS = {"platelayer": {"chunks": "all"}}
"""Attributes of images whose writer stores every chunk: an absent chunk was lost."""

STAND_IN = {"platelayer": {"image": "label"}}
"""Attributes of images in a store of results: a label stands in for pixels that are in another store."""

PIXEL_KINDS = "buif"
"""Kinds of dtype that hold pixels: bool, integers, floats."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image (a field, a slide) of a collection; plane indices are (t, z), 0 where the axis is absent."""

    address: Address
    """The collection it belongs to."""
    path: str
    """Where in the collection, ``A/1/0``; '' for a single image."""
    axes: tuple[str, ...]
    """Subset of t, c, z, y, x in that order, y and x last."""
    shape: tuple[int, ...]
    """Pixels of the finest level per axis."""
    dtype: np.dtype
    """Type of the pixels, in native byte order."""
    channels: tuple[str, ...]
    """Unique names; one for an image without a channel axis."""
    spacing_um: tuple[float, float] | None
    """Pixel size (y, x); None when the metadata give no physical unit."""
    scale: tuple[float, ...]
    """Pixel size per axis in the metadata's units."""
    translation: tuple[float, ...]
    """Position of the first pixel per axis in the metadata's units."""
    units: tuple[str | None, ...]
    """Unit per axis as in the metadata."""
    levels: tuple[str, ...]
    """Paths of the pyramid's arrays below the image, finest first."""
    zarr_format: int
    """2 or 3."""
    ngff: str
    """OME-Zarr version, ``0.4`` or ``0.5``."""
    chunks: tuple[int, int]
    """Chunk of the finest level (y, x)."""
    shards: tuple[int, int] | None = None
    """Shard of the finest level (y, x); None when there are none."""
    well: tuple[str, str] | None = None
    """Row and column, ``("A", "1")``; None outside a plate."""
    field: str | None = None
    """Name of the field in its well."""
    name: str = ""
    """Name in the image's own metadata, may be empty."""
    acquisition: int | None = None
    """Id of the acquisition (staining cycle, time point) of a plate that the field belongs to."""
    depth: int = 0
    """Number of z planes that `read` projects (see `projected`); 0 when planes are read one by one."""
    is_stand_in: bool = False
    """Whether the pixels are those of a label, which stands in for them in a store of results without pixels."""
    remarks: tuple[str, ...] = ()
    """Deviations from the specification that were read anyway, one sentence each."""
    has_all_chunks: bool = False
    """Whether the writer stored every chunk, so that an absent one was lost."""
    document: str = value(default="", repr=False)
    """Metadata of the finest level's array."""
    described: str = value(default="", repr=False)
    """Digest of the image's OME metadata."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.shape[-2], self.shape[-1]

    @property
    def planes(self) -> list[tuple[int, int]]:
        """All (t, z) planes in order; ``[(0, 0)]`` for an image without these axes."""
        return list(product(range(self._extent("t")), range(self._extent("z"))))

    @property
    def place(self) -> str:
        """Path or URL of this image, for messages."""
        return str(self.address.child(self.path))

    def read(
        self, plane: tuple[int, int], channels: Sequence[int], y0: int, y1: int, x0: int, x1: int
    ) -> np.ndarray:
        """Read a window of some channels, ``(C, y1 - y0, x1 - x0)`` in the image's dtype.

        Raises:
            BadArgument: the window, plane or a channel is outside of the image.
            BadStore: a chunk cannot be read or decoded (names the array and the chunk).
        """
        self._check_window(plane, channels, (y0, y1, x0, x1))
        window = slice(y0, y1), slice(x0, x1)
        if "c" not in self.axes:
            return np.stack([self._read(plane, slice(0, 1), window)[0]] * len(channels))
        parts = [self._read(plane, part, window) for part in _contiguous(channels)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def coarse(self, longest_px: int) -> "Image":
        """Return the finest level no longer than ``longest_px``, or the coarsest level, as an image."""
        image = self
        while max(image.size) > longest_px and len(image.levels) > 1:
            path = join(self.path, image.levels[1])
            coarser = find_array(self.address, path, zarr_format=self.zarr_format)
            if coarser is None:
                break
            shape = (plain_form(coarser[0]) or open_array(self.address, path, coarser[0])).shape
            extents = [n for axis, n in zip(self._stored_axes, shape, strict=True) if axis in self.axes]
            image = replace(image, levels=image.levels[1:], document=coarser[0], shape=tuple(extents))
        return image

    def at_level(self, level: int) -> "Image":
        """The image whose finest level is a coarser one of this pyramid, with the pixel size of that level.

        Raises:
            BadArgument: there is no such level.
        """
        group = find_group(self.address, self.path, zarr_format=self.zarr_format) if level else None
        if group is None:
            return self
        coarser = image_at(
            self.address, self.path, group, well=self.well, acquisition=self.acquisition, finest=level
        )
        return replace(coarser, name=self.name, field=self.field)

    def projected(self, projection: str) -> "Image":
        """This image without its z axis: `read` gives the maximum over all z planes.

        An image without a z axis, or an empty ``projection``, gives the image itself.

        Raises:
            BadArgument: a projection other than ``max``.
        """
        if projection not in ("", "max"):
            raise BadArgument(f"expected the projection 'max', got {projection!r}")
        if not projection or "z" not in self.axes:
            return self
        z = self.axes.index("z")
        per_axis: dict[str, Any] = {
            name: (*values[:z], *values[z + 1 :])
            for name in ("axes", "shape", "scale", "translation", "units")
            if (values := getattr(self, name))
        }
        return replace(self, depth=self.shape[z], **per_axis)

    def digest(self) -> str:
        """Digest of the metadata and of the keys, sizes and versions of the finest level's files; reads no pixel.

        Where files cannot be listed (https), only the metadata count.
        """
        try:
            entries = self.address.entries(join(self.path, self.levels[0]))
        except StoreLost:
            raise
        except BadStore:
            entries = []
        return self.digest_of(entries)

    def digest_of(self, entries: Sequence[tuple[str, int, str]]) -> str:
        """Compute `digest` from a listing of the finest level (`Address.entries`) that was made already."""
        content = json.dumps([self.document, self.described, list(entries)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def absent_chunks(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the finest level's chunks (or shards) that are not in the store; `read` gives the fill value."""
        return absent_chunks(self.address, join(self.path, self.levels[0]), self.document)

    def lost_chunks(self, absent: Sequence[tuple[int, ...]] | None = None) -> tuple[tuple[int, ...], ...]:
        """Indices of absent chunks whose pixels were lost.

        Where the writer stored every chunk (`has_all_chunks`) these are all absent ones. Otherwise they are those in
        which the next coarser level is not empty; without a coarser level there is no evidence, and none is
        reported. ``absent`` saves a listing where `absent_chunks` was called already.
        """
        candidates = tuple(self.absent_chunks() if absent is None else absent)
        return candidates if self.has_all_chunks else shown_by_coarser_level(self, candidates)

    def _extent(self, axis: str) -> int:
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def _stored_axes(self) -> tuple[str, ...]:
        return (*self.axes[:-2], "z", *self.axes[-2:]) if self.depth else self.axes

    def _read(self, plane: tuple[int, int], part: slice, window: tuple[slice, slice]) -> np.ndarray:
        if not self.depth:
            return self._read_plane(plane, part, window)
        return reduce(np.maximum, (self._read_plane((plane[0], z), part, window) for z in range(self.depth)))

    def _read_plane(self, plane: tuple[int, int], part: slice, window: tuple[slice, slice]) -> np.ndarray:
        chosen = {"t": slice(plane[0], plane[0] + 1), "z": slice(plane[1], plane[1] + 1), "c": part}
        selection = tuple(chosen[axis] for axis in self._stored_axes[:-2]) + window
        block = read_region(self.address, join(self.path, self.levels[0]), self.document, selection)
        return block.reshape(part.stop - part.start, *block.shape[-2:])

    def _check_window(self, plane: tuple[int, int], channels: Sequence[int], window: tuple[int, ...]) -> None:
        y0, y1, x0, x1 = window
        height, width = self.size
        if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
            raise BadArgument(f"{self.place}: expected a window inside {height} x {width}, got {window}")
        if not (0 <= plane[0] < self._extent("t") and 0 <= plane[1] < self._extent("z")):
            raise BadArgument(f"{self.place}: there is no plane (t, z) = {plane}")
        if not channels or not all(0 <= c < len(self.channels) for c in channels):
            raise BadArgument(
                f"{self.place}: expected channels out of 0..{len(self.channels) - 1}, got {channels}"
            )


def channel_index(image: Image, channel: str | int) -> int:
    """Return the index of a channel given by name or index (``"0"`` too, when no channel is called so)."""
    if isinstance(channel, str) and channel in image.channels:
        return image.channels.index(channel)
    text = str(channel)
    if text.isdecimal() and int(text) < len(image.channels):
        return int(text)
    names = ", ".join(f"{index}: {name!r}" for index, name in enumerate(image.channels))
    raise BadArgument(f"{image.place}: there is no channel {channel!r}; there are {names}")


def image_at(
    address: Address,
    path: str,
    group: Group,
    *,
    well: tuple[str, str] | None = None,
    acquisition: int | None = None,
    finest: int = 0,
) -> Image:
    """Describe the image whose group was read from ``path``; ``well`` and ``acquisition`` are what its plate says.

    Levels finer than ``finest`` are left out.

    Raises:
        BadArgument: there is no level ``finest``.
        BadStore: no or bad multiscales metadata, a path that leaves the store, no array, or not pixels.
    """
    where = str(address.child(path))
    multiscale = parse_multiscale(group.ome, where=where, finest=finest)
    for level in multiscale.levels:
        inner_key(level, where=where)
    finest_path = join(path, multiscale.levels[0])
    array_metadata = find_array(address, finest_path, zarr_format=group.zarr_format)
    if array_metadata is None:
        raise BadStore(
            f"{where}: expected an array at {multiscale.levels[0]!r}, as the metadata say; none is there"
        )
    document, remark = array_metadata
    array = plain_form(document) or open_array(address, finest_path, document)
    _check_array(array, multiscale, where)
    count = array.shape[multiscale.axes.index("c")] if "c" in multiscale.axes else 1
    return Image(
        address=address,
        path=path,
        axes=multiscale.axes,
        shape=tuple(array.shape),
        dtype=array.dtype.newbyteorder("="),
        channels=channel_names(group.ome, count),
        spacing_um=multiscale.spacing_um,
        scale=multiscale.scale,
        translation=multiscale.translation,
        units=multiscale.units,
        levels=multiscale.levels,
        zarr_format=group.zarr_format,
        ngff="0.4" if group.zarr_format == 2 else "0.5",
        chunks=(array.chunks[-2], array.chunks[-1]),
        shards=(array.shards[-2], array.shards[-1]) if array.shards else None,
        well=well,
        field=path.rpartition("/")[2] if well else None,
        name=multiscale.name,
        acquisition=acquisition,
        is_stand_in=is_stand_in(group),
        remarks=tuple(filter(None, (remark, _misplaced_ome(group)))),
        has_all_chunks=_own_attributes(group).get("chunks") == "all",
        document=document,
        described=_digest_of_metadata(group.ome),
    )


def _misplaced_ome(group: Group) -> str:
    """Remark on OME metadata that lie where the other zarr format keeps them; empty where they do not."""
    if not group.has_misplaced_ome:
        return ""
    place = "under 'ome'" if group.zarr_format == 2 else "at the top of the attributes, not under 'ome'"
    return f"its OME metadata are {place}, which is not their place in zarr v{group.zarr_format}; read"


def is_stand_in(group: Group) -> bool:
    """Whether a group shows a label in place of pixels that are in another store."""
    return _own_attributes(group).get("image") == STAND_IN["platelayer"]["image"]


def _check_array(array: Any, multiscale: Multiscale, where: str) -> None:
    if array.ndim != len(multiscale.axes):
        raise BadStore(
            f"{where}: expected {len(multiscale.axes)} axes ({', '.join(multiscale.axes)}) as the metadata say, "
            f"got an array of shape {array.shape}; correct the axes"
        )
    if array.dtype.kind not in PIXEL_KINDS:
        raise BadStore(
            f"{where}: expected pixels of integers or floats, got dtype {array.dtype}; convert the image"
        )
    if 0 in array.shape:
        raise BadStore(f"{where}: expected at least one pixel along each axis, got shape {array.shape}")


def _own_attributes(group: Group) -> dict[str, Any]:
    """The entry that this program writes into the attributes of a group; empty where there is none."""
    entry = group.attributes.get("platelayer")
    return entry if isinstance(entry, dict) else {}


def _digest_of_metadata(ome: dict[str, Any]) -> str:
    parts = {key: ome[key] for key in ("multiscales", "omero") if key in ome}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _contiguous(channels: Sequence[int]) -> list[slice]:
    """Join neighbouring channels into one slice each, so that each slice is one read."""
    slices: list[slice] = []
    for channel in channels:
        if slices and slices[-1].stop == channel:
            slices[-1] = slice(slices[-1].start, channel + 1)
        else:
            slices.append(slice(channel, channel + 1))
    return slices
