"""The layer mask of an image: one bit per layer and pixel, the scratch between the network and all that follows.

It is stored like the chunks of a zarr array ``(plane, y, x)``, one chunk per tile core, so that tiles never share a
file, and packed without zarr, whose event loop costs more than a small chunk.
"""

from collections.abc import Iterator

import numpy as np

from flows.execution.parallel import parallel_map
from flows.segmentation.image_job import ImageJob, TileJob
from pipeline.errors import BadStore
from pipeline.segment import bits_dtype
from pipeline.tiling import Box, Tile


def write_mask(item: TileJob, bits: np.ndarray) -> None:
    """Write the mask ``(y, x)`` of the core of a tile, in the dtype of `bits_dtype`."""
    work, core = item.work, item.tile.core
    chunk = np.zeros(_chunk_shape(work), _dtype(work))
    chunk[: core.shape[0], : core.shape[1]] = bits
    work.ledger.write_packed(_key(work, item.plane, item.tile), chunk)


def read_mask(work: ImageJob, plane: int, box: Box) -> np.ndarray:
    """Read the mask in a box of a plane, from the chunks of all tiles that meet it.

    Raises:
        BadStore: a chunk is missing or damaged.
    """
    tiles = list(_tiles_over(work, box))
    chunks = parallel_map(
        lambda tile: _read_chunk(work, plane, tile), tiles, waits=not work.ledger.output.is_local
    )
    if len(tiles) == 1 and tiles[0].core == box:
        return chunks[0][: box.shape[0], : box.shape[1]]
    mask = np.zeros(box.shape, _dtype(work))
    for tile, chunk in zip(tiles, chunks, strict=True):
        part = tile.core.intersection(box)
        mask[part.within(box)] = chunk[part.within(tile.core)]
    return mask


def _read_chunk(work: ImageJob, plane: int, tile: Tile) -> np.ndarray:
    key = _key(work, plane, tile)
    try:
        return work.ledger.read_packed(key, _dtype(work), _chunk_shape(work))
    except ValueError as error:
        if isinstance(error, BadStore):
            raise
        raise BadStore(
            f"{work.ledger.output}/{work.ledger.folder}/{key}: expected the layers of a tile, got a damaged file; "
            "remove it and its mark, and give the same command again"
        ) from None


def _tiles_over(work: ImageJob, box: Box) -> Iterator[Tile]:
    """Tiles of the network whose cores meet a box."""
    side = work.core
    for row in range(box.y0 // side, (box.y1 - 1) // side + 1):
        for column in range(box.x0 // side, (box.x1 - 1) // side + 1):
            if (tile := work.tile(row, column)) is not None:
                yield tile


def _key(work: ImageJob, plane: int, tile: Tile) -> str:
    return f"mask/{work.key}/c/{plane}/{tile.row}/{tile.column}"


def _chunk_shape(work: ImageJob) -> tuple[int, int]:
    height, width = work.extent
    return min(work.core, height), min(work.core, width)


def _dtype(work: ImageJob) -> np.dtype:
    return bits_dtype(work.traits.mask_layers).newbyteorder("<")
