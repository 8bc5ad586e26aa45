"""Label stacks as TIFF and OME-TIFF, tile by tile: one page (or channel) per layer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from pipeline.masks.sweep import Reader
from pipeline.tiling import windows

TILE = 1024
"""Side of the tiles of a file."""

BIG_BYTES = 2**31
"""Files of more bytes (not encoded) are written as BigTIFF."""


def write_label_pages(
    path: Path,
    read: Reader,
    size: tuple[int, int],
    *,
    spacing_um: tuple[float, float] | None,
    ome: bool,
    name: str,
) -> int:
    """Write a label stack, uint16 where its ids allow it; returns the number of objects.

    Args:
        path: the file.
        read: reads a window of the stack ``(L, y, x)``.
        size: height and width.
        spacing_um: pixel size (y, x), written where it is known.
        ome: write OME-XML with the layers as channels.
        name: name of the image in OME-XML.
    """
    layers = len(read(0, 1, 0, 1))
    ids = _ids(read, size)
    dtype = np.dtype(np.uint16 if not len(ids) or int(ids[-1]) < 2**16 else np.uint32)
    options: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack", "tile": (TILE, TILE)}
    options["metadata"] = _metadata(name, layers, spacing_um) if ome else None
    if spacing_um:
        options |= {"resolution": (1e4 / spacing_um[1], 1e4 / spacing_um[0]), "resolutionunit": "CENTIMETER"}
    shape = (layers, *size)
    is_big = int(np.prod(shape)) * dtype.itemsize > BIG_BYTES
    with tifffile.TiffWriter(path, ome=ome, bigtiff=is_big) as file:
        file.write(_tiles(read, size, layers, dtype), shape=shape, dtype=dtype, **options)
    return len(ids)


def _metadata(name: str, layers: int, spacing_um: tuple[float, float] | None) -> dict[str, Any]:
    described: dict[str, Any] = {"axes": "CYX", "Name": name}
    described["Channel"] = {
        "Name": [name if not layer else f"{name}_layer{layer}" for layer in range(layers)]
    }
    if spacing_um:
        described |= {"PhysicalSizeY": spacing_um[0], "PhysicalSizeX": spacing_um[1]}
        described |= {"PhysicalSizeYUnit": "µm", "PhysicalSizeXUnit": "µm"}
    return described


def _ids(read: Reader, size: tuple[int, int]) -> np.ndarray:
    """Ids of the objects in ascending order."""
    ids = np.zeros(0, np.uint32)
    for window in windows(size, TILE):
        ids = np.union1d(ids, read(*window))
    return ids[ids > 0]


def _tiles(
    read: Callable[[int, int, int, int], np.ndarray], size: tuple[int, int], layers: int, dtype: np.dtype
) -> Iterator[np.ndarray]:
    for layer in range(layers):
        for window in windows(size, TILE):
            ids = read(*window)[layer]
            tile = np.zeros((TILE, TILE), dtype)
            tile[: ids.shape[0], : ids.shape[1]] = ids
            yield tile
