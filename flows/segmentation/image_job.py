"""The values that are sent to workers: an image with its settings (`ImageJob`), and one tile of it (`TileJob`).

They are small, frozen and hold no pixels: a stage finds in them its input and the keys it writes to.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from flows.execution.segmenters import SegmenterRef
from pipeline import measure
from pipeline.resample import Rescaling
from pipeline.segment import Traits
from pipeline.store.ledger import Ledger
from pipeline.store.ome.collection import Image
from pipeline.store.ome.label_images.layout import BLOCK, most_block_levels
from pipeline.store.places.chunk_cache import kept_for
from pipeline.tiling import Box, Tile, tile_at, tiles, tiles_at_edges

FIELD_TILES = 4
"""An image of at most so many tiles, over all planes, is processed by one worker in one call."""

FIELD_PX = 2 * BLOCK**2
"""Upper limit of the pixels of such an image, because they are held in memory."""


@dataclass(frozen=True, kw_only=True)
class ImageJob:
    """Everything that a worker needs to process an image; small, because it is pickled with every tile."""

    ledger: Ledger
    image: Image
    key: str
    """Name of the image in the scratch: its path and the digest of its pixels."""
    segmenter: SegmenterRef
    traits: Traits
    channels: tuple[int, ...]
    """Channels the segmenter sees, in its order."""
    measured: tuple[int, ...]
    """Channels whose intensities are measured."""
    core: int
    """Side of a tile's core in px, a multiple of the network's stride."""
    halo: int
    """Margin in px that is read around a core, a multiple of the stride too."""
    factor: float = 1.0
    """Network pixels per pixel of the image."""
    held: "HeldPixels | None" = field(default=None, compare=False, repr=False)
    """All pixels of a small image, while one worker processes it in one call."""

    def __str__(self) -> str:
        return self.image.path or "image"

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width of a plane."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels as `read` returns them."""
        return np.dtype(np.uint8) if self.image.dtype == bool else self.image.dtype

    @property
    def measured_names(self) -> list[str]:
        """Names of the measured channels, for the columns of the table."""
        return [self.image.channels[index] for index in self.measured]

    @property
    def rescaling(self) -> Rescaling | None:
        """The resampling to the scale of the network; None where the image is not resampled."""
        return None if self.factor == 1 else Rescaling(self.factor, self.extent, self.traits.stride)

    def frame(self, plane: int) -> measure.Frame:
        """Extent and index of a plane, for measurements."""
        return measure.Frame(*self.extent, plane=plane)

    def tiles(self) -> Iterable[Tile]:
        """Tiles of the network."""
        return tiles(self.extent, core=self.core, halo=self.halo, stride=self.traits.stride)

    def tile(self, row: int, column: int) -> Tile | None:
        """One of the tiles of the network; None outside of the image."""
        return tile_at(self.extent, row, column, core=self.core, halo=self.halo, stride=self.traits.stride)

    def blocks(self) -> Iterable[Tile]:
        """Blocks in which labels are painted."""
        return tiles(self.extent, core=BLOCK)

    def units(self) -> Iterable[Tile]:
        """The units of the stage `describe`: blocks of the mask (touch), or tiles with numbered objects (match)."""
        return self.blocks() if self.traits.link == "touch" else self.tiles()

    def tiles_at_edges(self) -> tuple[list[Tile], list[Tile]]:
        """Tiles of the network in the first column and in the first row."""
        return tiles_at_edges(self.extent, core=self.core, halo=self.halo, stride=self.traits.stride)

    def units_over(self, block: Tile) -> list[Tile]:
        """The units that intersect a block."""
        if self.traits.link == "touch":
            return [block]
        side, box = self.core, block.core
        rows, columns = (
            range(a // side, (b - 1) // side + 1) for a, b in ((box.y0, box.y1), (box.x0, box.x1))
        )
        return [tile for row in rows for column in columns if (tile := self.tile(row, column))]

    def read(self, plane: int, box: Box, channels: tuple[int, ...] | None = None) -> np.ndarray:
        """Read pixels ``(C, y, x)`` of some channels (default: the segmenter's), native dtype (bool as uint8)."""
        if self.held is not None:
            return self.held.read(plane, box, channels or self.channels)
        where = self.image.planes[plane]
        with kept_for(f"{self.ledger.run} {self.key}"):  # the key holds the digest of the pixels' files
            block = self.image.read(where, channels or self.channels, box.y0, box.y1, box.x0, box.x1)
        return block.astype(np.uint8) if block.dtype == bool else block

    @property
    def tile_count(self) -> int:
        """Tiles of the network over all planes."""
        side = self.core
        height, width = self.extent
        return len(self.image.planes) * -(-height // side) * -(-width // side)

    @property
    def is_field(self) -> bool:
        """Whether the image is a *field*: so small that one worker processes it in one call."""
        pixels = len(self.image.planes) * self.extent[0] * self.extent[1]
        return (
            self.tile_count <= FIELD_TILES
            and pixels <= FIELD_PX
            and len(self.image.levels) <= most_block_levels()
        )

    @property
    def whole(self) -> Tile:
        """The image as one tile."""
        box = Box(0, self.extent[0], 0, self.extent[1])
        return Tile(0, 0, box, box)

    @property
    def whole_item(self) -> "TileJob":
        """A job that covers the image: its plane 0 stands for all planes."""
        return TileJob(self, 0, self.whole)

    def holding(self) -> "ImageJob":
        """Read all pixels once; return the job with the pixels in memory."""
        channels = tuple(sorted({*self.channels, *self.measured}))
        planes = [self.read(plane, self.whole.core, channels) for plane in range(len(self.image.planes))]
        return replace(self, held=HeldPixels(channels, tuple(planes)))

    def items(self, tiles: Iterable[Tile]) -> "list[TileJob]":
        """Jobs for some tiles on every plane."""
        tiles = list(tiles)
        return [TileJob(self, plane, tile) for plane in range(len(self.image.planes)) for tile in tiles]


@dataclass(frozen=True)
class HeldPixels:
    """The pixels of a small image, in all channels that a run needs."""

    channels: tuple[int, ...]
    """Indices of the channels that are held."""
    planes: tuple[np.ndarray, ...]
    """``(C, y, x)`` of each (t, z) plane, as `ImageJob.read` returns them."""

    def read(self, plane: int, box: Box, channels: tuple[int, ...]) -> np.ndarray:
        """Pixels ``(C, y, x)`` of some channels in a box."""
        window = self.planes[plane][:, box.y0 : box.y1, box.x0 : box.x1]
        return window if channels == self.channels else window[[self.channels.index(c) for c in channels]]


@dataclass(frozen=True)
class TileJob:
    """A tile or block of one plane of an image, as a unit of work."""

    work: ImageJob
    plane: int
    tile: Tile

    @property
    def key(self) -> str:
        """Name of the mark that is written when the tile is done."""
        return f"{self.plane}_{self.tile.key}"

    def __str__(self) -> str:
        return f"{self.work} plane {self.plane} tile {self.tile.row},{self.tile.column}"
