"""The form of an array read from its metadata document without zarr, whose import takes longer than listing a plate.

Only plain forms are supported: a regular grid, numbers in C order, at most one of the common compressors, and shards
of such chunks. All other documents, and invalid ones, are left to zarr.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

COMPRESSORS = frozenset({"zstd", "blosc", "gzip", "zlib"})
"""Compressors of plain arrays, as zarr and numcodecs name them."""

DATA_TYPES = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"}
)
"""Types of zarr v3 that are numbers."""


@dataclass(frozen=True)
class ArrayForm:
    """The form of a plain array; the attributes are named as those of `zarr.Array`."""

    shape: tuple[int, ...]
    """Pixels per axis."""
    dtype: np.dtype
    """Type of the pixels, in the byte order of the files."""
    chunks: tuple[int, ...]
    """Extent of a chunk per axis."""
    shards: tuple[int, ...] | None
    """Extent of a file that holds several chunks; None where each chunk is a file."""
    compressor: str | None
    """Name of the compressor of each chunk; None where they are not compressed."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


@lru_cache(maxsize=256)
def plain_form(document: str) -> ArrayForm | None:
    """Return the form of an array, None unless it is plain; cached, because the fields of a plate are alike."""
    try:
        metadata = json.loads(document)
        form = _form_v2(metadata) if metadata["zarr_format"] == 2 else _form_v3(metadata)
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return form if form is not None and _is_sound(form) else None


def _is_sound(form: ArrayForm) -> bool:
    """Whether the extents are positive integers, and array and grid have the same number of axes."""
    grids = [grid for grid in (form.chunks, form.shards) if grid is not None]
    whole = all(isinstance(n, int) and n > 0 for grid in (form.shape, *grids) for n in grid)
    return whole and all(len(grid) == form.ndim for grid in grids)


def _form_v2(metadata: dict[str, Any]) -> ArrayForm | None:
    compressor = metadata["compressor"]["id"] if metadata["compressor"] else None
    dtype = np.dtype(metadata["dtype"])
    is_plain = not metadata["filters"] and metadata["order"] == "C" and dtype.kind in "buif"
    if not is_plain or "fill_value" not in metadata or not (compressor is None or compressor in COMPRESSORS):
        return None
    return ArrayForm(tuple(metadata["shape"]), dtype, tuple(metadata["chunks"]), None, compressor)


def _form_v3(metadata: dict[str, Any]) -> ArrayForm | None:
    grid, outer = metadata["chunk_grid"], metadata["codecs"]
    is_plain = grid["name"] == "regular" and metadata["data_type"] in DATA_TYPES and "fill_value" in metadata
    if not is_plain or metadata.get("storage_transformers"):
        return None
    files = tuple(grid["configuration"]["chunk_shape"])
    sharded = outer[0]["name"] == "sharding_indexed" and len(outer) == 1
    inner = outer[0]["configuration"]["codecs"] if sharded else outer
    names = [codec["name"] for codec in inner]
    if names[0] != "bytes" or len(names) > 2 or not COMPRESSORS.issuperset(names[1:]):
        return None
    order = (inner[0].get("configuration") or {}).get("endian", "little")
    dtype = np.dtype(metadata["data_type"]).newbyteorder("<" if order == "little" else ">")
    chunks = tuple(outer[0]["configuration"]["chunk_shape"]) if sharded else files
    compressor = names[1] if len(names) == 2 else None
    return ArrayForm(tuple(metadata["shape"]), dtype, chunks, files if sharded else None, compressor)
