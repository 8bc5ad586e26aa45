"""Tiles of an image: cores partition it, reads contain cores and overlap.

A tile is predicted on its read, and its result is used in its core. Origins and halos are multiples of the network's
total stride, so that every tile has the same sampling grid as the whole image. Index arithmetic only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as value

from pipeline.errors import BadArgument


@dataclass(frozen=True)
class Box:
    """A half-open rectangle of pixels."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def perimeter(self) -> int:
        """Length of the border in pixels."""
        return 2 * sum(self.shape)

    def intersection(self, other: "Box") -> "Box":
        """The pixels of both; a box without pixels where they do not meet."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        return Box(y0, max(min(self.y1, other.y1), y0), x0, max(min(self.x1, other.x1), x0))

    def within(self, outer: "Box") -> tuple[slice, slice]:
        """Slices that cut this box out of an array that covers ``outer``."""
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(self.x0 - outer.x0, self.x1 - outer.x0)


@dataclass(frozen=True)
class Tile:
    """A tile: ``read`` is the region that is predicted, ``core`` the part of it for which the result is used."""

    row: int
    column: int
    core: Box
    read: Box

    @property
    def key(self) -> str:
        """Name of the tile in marks, logs and reports."""
        return f"{self.row}_{self.column}"


@value(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", use_attribute_docstrings=True))
class Tiling:
    """How an image is cut for the network and for stitching."""

    core: Annotated[int, Field(ge=1, le=65536)] = 1024
    """Side of a tile's core in px; rounded up to a multiple of the network's stride."""
    halo: Annotated[int | None, Field(ge=0, le=8192)] = None
    """Margin in px read around the core; default: the radius of the network's receptive field."""


def round_up(value: int, step: int) -> int:
    """Smallest multiple of ``step`` that is at least ``value``."""
    return -(-value // step) * step


def tiles(shape: tuple[int, int], *, core: int, halo: int = 0, stride: int = 1) -> Iterator[Tile]:
    """Yield the tiles of an image of ``shape`` (y, x) in raster order; an image without pixels has none.

    ``core`` and ``halo`` are rounded up to multiples of ``stride``; reads are clipped at the image's border.
    """
    if core < 1 or halo < 0 or stride < 1:
        raise BadArgument(f"tiles: expected core >= 1, halo >= 0, stride >= 1, got {core}, {halo}, {stride}")
    core, halo = round_up(core, stride), round_up(halo, stride)
    for row, column in product(*(range(-(-extent // core)) for extent in shape)):
        yield _tile(shape, row, column, core, halo)


def windows(shape: tuple[int, int], side: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield ``(y0, y1, x0, x1)`` of squares of ``side`` px that cover an image of ``shape`` (y, x), in raster order."""
    for y, x in product(range(0, shape[0], side), range(0, shape[1], side)):
        yield y, min(y + side, shape[0]), x, min(x + side, shape[1])


def tiles_at_edges(
    shape: tuple[int, int], *, core: int, halo: int = 0, stride: int = 1
) -> tuple[list[Tile], list[Tile]]:
    """Return the tiles of the first column and those of the first row.

    Every tile has its rows in common with one of the former and its columns with one of the latter, so sums over all
    tiles of an image of any size are products of sums over these.
    """
    height, width = shape
    side = round_up(core, stride)
    down = (tile_at(shape, row, 0, core=core, halo=halo, stride=stride) for row in range(-(-height // side)))
    along = (
        tile_at(shape, 0, column, core=core, halo=halo, stride=stride) for column in range(-(-width // side))
    )
    return [tile for tile in down if tile], [tile for tile in along if tile]


def tile_at(
    shape: tuple[int, int], row: int, column: int, *, core: int, halo: int = 0, stride: int = 1
) -> Tile | None:
    """The one of `tiles` in a row and column; None outside of the image."""
    core, halo = round_up(core, stride), round_up(halo, stride)
    inside = 0 <= row * core < shape[0] and 0 <= column * core < shape[1]
    return _tile(shape, row, column, core, halo) if inside else None


def _tile(shape: tuple[int, int], row: int, column: int, core: int, halo: int) -> Tile:
    height, width = shape
    y, x = row * core, column * core
    box = Box(y, min(y + core, height), x, min(x + core, width))
    read = Box(max(y - halo, 0), min(box.y1 + halo, height), max(x - halo, 0), min(box.x1 + halo, width))
    return Tile(row, column, box, read)
