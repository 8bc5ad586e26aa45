"""The division of a label stack into levels, blocks and chunks.

Invariant: on every level that blocks write, a chunk lies within one block, so two blocks never share a file. The
layout depends on the image and on ``chunk`` and ``block``, never on the tiles of the network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

import numpy as np

from pipeline.errors import BadArgument
from pipeline.store.ome.arrays import Selection, level_shapes, new_document, parts_of
from pipeline.store.ome.groups import ZARR_FORMAT
from pipeline.store.ome.image import Image
from pipeline.store.ome.metadata import multiscales_metadata

CHUNK = 1024
"""Default chunk (y and x) of label arrays."""

BLOCK = 2048
"""Default side of a block, which one write covers."""

SMALLEST_CHUNK = 256
"""Levels on which a block is smaller than this are made from the next finer level at the end."""


@dataclass(frozen=True, kw_only=True)
class LabelLayout:
    """Axes, levels, blocks and chunks of the label images of one image."""

    axes: tuple[str, ...]
    """Axes of the image without channels."""
    units: tuple[str | None, ...]
    """Unit per axis."""
    scale: tuple[float, ...]
    """Pixel size per axis on level 0."""
    translation: tuple[float, ...]
    """Position of the first pixel per axis."""
    shape: tuple[int, ...]
    """Pixels per axis on level 0."""
    levels: int
    """Number of levels: as many as the image has, which validators demand."""
    ngff: str
    """OME-Zarr version."""
    chunk: int
    """Chunk in y and x; divides the block."""
    block: int
    """Blocks start at multiples of this and end at one or with the image; a power of two."""

    def __post_init__(self) -> None:
        if self.block < 1 or self.block & (self.block - 1):
            raise BadArgument(f"expected a block that is a power of two, got {self.block}")
        if self.chunk < 1 or self.block % self.chunk:
            raise BadArgument(f"expected a chunk that divides the block {self.block}, got {self.chunk}")

    @property
    def zarr_format(self) -> int:
        """2 or 3."""
        return ZARR_FORMAT[self.ngff]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.shape[-2], self.shape[-1]

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each level."""
        return level_shapes(self.shape, self.levels)

    @property
    def block_levels(self) -> int:
        """Number of levels that are written block by block; the coarser ones are made at the end."""
        return min(len(self.shapes), most_block_levels(self.block))

    @property
    def has_coarse_levels(self) -> bool:
        """Whether there are levels that no block writes."""
        return len(self.shapes) > self.block_levels

    def chunks(self, level: int) -> tuple[int, ...]:
        """Chunk of a level; on levels that blocks write it lies within a block."""
        share = self.block >> level if level < self.block_levels else 2 * SMALLEST_CHUNK
        shape = self.shapes[level]
        return (*(1 for _ in shape[:-2]), *(min(self.chunk, share, n) for n in shape[-2:]))

    def blocks(self) -> list[tuple[int, int, int, int]]:
        """Windows (y0, y1, x0, x1) that cover the image."""
        height, width = self.size
        ys, xs = range(0, height, self.block), range(0, width, self.block)
        return [(y, min(y + self.block, height), x, min(x + self.block, width)) for y, x in product(ys, xs)]

    def check_window(self, y0: int, y1: int, x0: int, x1: int) -> None:
        """Refuse a window that does not consist of whole blocks, because two writers could share a file."""
        for start, stop, extent in ((y0, y1, self.size[0]), (x0, x1, self.size[1])):
            if (
                start % self.block
                or not 0 <= start < stop <= extent
                or (stop % self.block and stop != extent)
            ):
                raise BadArgument(
                    f"a block must start and end at multiples of {self.block} or with the image {self.size}, "
                    f"got {(y0, y1, x0, x1)}"
                )

    def selection(self, plane: tuple[int, int], window: tuple[slice, slice]) -> Selection:
        """Region of an array for a (t, z) plane and a window of a level."""
        index = {"t": plane[0], "z": plane[1]}
        return (*(slice(index[axis], index[axis] + 1) for axis in self.axes[:-2]), *window)

    def halvings(self, level: int) -> Iterator[tuple[Selection, Selection]]:
        """Yield (a chunk of a coarse level, the region of the finer level it is made from)."""
        finer = self.shapes[level - 1]
        whole = tuple(slice(0, extent) for extent in self.shapes[level])
        for target in parts_of(whole, self.chunks(level)):
            window = tuple(
                slice(2 * part.start, min(2 * part.stop, extent))
                for part, extent in zip(target[-2:], finer[-2:], strict=True)
            )
            yield target, (*target[:-2], *window)

    def chunk_key(self, index: tuple[int, ...]) -> str:
        """Name of the file of a chunk below its array."""
        return "/".join((*("c",) * (self.zarr_format == 3), *map(str, index)))

    def documents(self) -> tuple[dict[str, bytes], ...]:
        """Metadata files of each level's array, name to bytes."""
        return _documents(self)

    def metadata(self, name: str, *, image: str | None) -> dict[str, Any]:
        """NGFF metadata of one label image; ``image`` is the path to its image, None where there is none."""
        version = {"version": self.ngff} if self.ngff == "0.4" else {}
        source = {"source": {"image": image}} if image else {}
        return {**self.multiscales(name), "image-label": {**version, **source}}

    def multiscales(self, name: str, *, folder: str = "") -> dict[str, Any]:
        """NGFF multiscales metadata whose levels are ``0``, ``1``, ... in a folder below the group."""
        return multiscales_metadata(
            axes=self.axes,
            units=self.units,
            scales=[
                [*self.scale[:-2], *(n * 2**level for n in self.scale[-2:])]
                for level in range(len(self.shapes))
            ],
            translation=self.translation,
            name=name,
            ngff=self.ngff,
            folder=folder,
        )


@lru_cache(maxsize=64)
def _documents(layout: LabelLayout) -> tuple[dict[str, bytes], ...]:
    """Metadata of the arrays of a layout; cached, because the fields of a plate are alike."""
    return tuple(
        new_document(
            shape=shape,
            dtype=np.dtype(np.uint32),
            chunks=layout.chunks(level),
            shards=None,
            axes=layout.axes,
            codec="label",
            zarr_format=layout.zarr_format,
        )
        for level, shape in enumerate(layout.shapes)
    )


def most_block_levels(block: int = BLOCK) -> int:
    """Most levels that are written block by block; a deeper pyramid has coarse levels besides."""
    return max((block // SMALLEST_CHUNK).bit_length(), 1)


def layout_for(image: Image, *, chunk: int | None = None, block: int = BLOCK) -> LabelLayout:
    """Return the layout of the labels of an image; ``chunk`` is `CHUNK`, or the block if that is smaller."""
    keep = [index for index, axis in enumerate(image.axes) if axis != "c"]
    return LabelLayout(
        axes=tuple(image.axes[index] for index in keep),
        units=tuple(image.units[index] for index in keep),
        scale=tuple(image.scale[index] for index in keep),
        translation=tuple(image.translation[index] for index in keep),
        shape=tuple(image.shape[index] for index in keep),
        levels=len(image.levels),
        ngff=image.ngff,
        chunk=min(CHUNK, block) if chunk is None else chunk,
        block=block,
    )
