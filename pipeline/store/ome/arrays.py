"""Zarr arrays opened from a metadata document that is sent with the task, so that only chunks are requested.

Invariant: what a region read returns is what the chunks hold; a chunk that cannot be decoded is named, never
replaced by zeros. An absent chunk has the fill value, as zarr defines it.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import BadStore
from pipeline.store.ome.chunks.direct_reading import read_few_chunks
from pipeline.store.ome.groups import join, read_json
from pipeline.store.places.access import mark_of_environment
from pipeline.store.places.address import Address
from pipeline.store.places.chunk_length import ends_in_blosc
from pipeline.store.places.faults import explained, is_backend_fault, store_fault

if (
    TYPE_CHECKING
):  # imported where an array is opened: commands that list a store take half the time without zarr
    import zarr

SMALLEST_PX = 256
"""The pyramid ends with the first level whose longer side is no longer than this."""

Selection = tuple[slice, ...]
"""One slice with start and stop per axis."""


def find_array(address: Address, path: str, *, zarr_format: int) -> tuple[str, str] | None:
    """Read an array's metadata document as JSON text, with the separator that the names of its chunks have.

    Returns the document and a remark, empty unless the separator was corrected; None when there is no array.
    """
    document = read_json(address, join(path, "zarr.json" if zarr_format == 3 else ".zarray"))
    if document is None or (zarr_format == 3 and document.get("node_type") != "array"):
        return None
    # Attributes do not matter for pixels, and may hold values such as NaN, which are never equal.
    plain = {**document, "attributes": {}} if zarr_format == 3 else document
    corrected, remark = _with_actual_separator(address, path, plain)
    return json.dumps(corrected, sort_keys=True), remark


def _with_actual_separator(
    address: Address, path: str, document: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Return an array's metadata with the separator that the names of its chunks have, and a remark on a change.

    The names are compared on a disk, where it costs no request, and where ``.zarray`` does not name the separator.
    Metadata that fit the files, and those of arrays without files, are returned unchanged with an empty remark.
    """
    is_v2 = document.get("zarr_format") == 2
    declared = _declared_separator(document)
    if declared is None or not (address.is_local or (is_v2 and "dimension_separator" not in document)):
        return document, ""
    stem = [] if is_v2 or document["chunk_key_encoding"]["name"] == "v2" else ["c"]
    if address.exists(join(path, declared.join([*stem, *("0" for _ in document["shape"])]))):
        return document, ""
    actual = _separator_of(address.children(path))
    if actual is None or actual == declared:
        return document, ""
    field = "dimension_separator in .zarray" if is_v2 else "the separator of chunk_key_encoding in zarr.json"
    return (
        _with_separator(document, actual),
        f"chunks are named with {actual!r}, the metadata say {declared!r}; they were read as they are named "
        f"(to correct the store, set {field} to {actual!r})",
    )


def _declared_separator(document: dict[str, Any]) -> str | None:
    """Read the separator of chunk names from an array's metadata; None for an encoding that is not known."""
    if document.get("zarr_format") == 2:
        return document.get("dimension_separator") or "."
    encoding = document.get("chunk_key_encoding") or {}
    default = {"default": "/", "v2": "."}.get(encoding.get("name", ""))
    return (encoding.get("configuration") or {}).get("separator", default)


def _with_separator(document: dict[str, Any], separator: str) -> dict[str, Any]:
    if document.get("zarr_format") == 2:
        return {**document, "dimension_separator": separator}
    encoding = document["chunk_key_encoding"]
    options = {**(encoding.get("configuration") or {}), "separator": separator}
    return {**document, "chunk_key_encoding": {**encoding, "configuration": options}}


def _separator_of(names: Iterable[str]) -> str | None:
    """Recognise the separator by the names directly below an array: ``0.0.0`` and ``c.0.0``, or ``0`` and ``c``."""
    for name in names:
        if re.fullmatch(r"(c\.)?\d+(\.\d+)+", name):
            return "."
        if name == "c" or name.isdecimal():
            return "/"
    return None


def new_document(
    *,
    shape: Sequence[int],
    dtype: np.dtype,
    chunks: Sequence[int],
    shards: Sequence[int] | None,
    axes: Sequence[str],
    codec: str,
    zarr_format: int,
) -> dict[str, bytes]:
    """Return the metadata files of a new array, name to bytes; ``codec`` is ``image`` or ``label``."""
    import zarr
    from zarr.storage import MemoryStore

    memory = MemoryStore()
    options: dict[str, Any] = {"compressors": _compressor(codec, zarr_format), "zarr_format": zarr_format}
    if zarr_format == 3:
        options |= {"dimension_names": tuple(axes), "shards": tuple(shards) if shards else None}
    else:
        options |= {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    zarr.create_array(
        memory,
        shape=tuple(shape),
        dtype=dtype,
        chunks=tuple(chunks),
        fill_value=0,
        **options,
    )
    return {key: buffer.to_bytes() for key, buffer in memory._store_dict.items()}


def open_array(address: Address, path: str, document: str, *, read_only: bool = True) -> "zarr.Array":
    """Open an array by its document, without reading it again; cached per process."""
    return _open_array(address, path, document, read_only, os.getpid(), mark_of_environment(address.url))


@lru_cache(maxsize=4096)
def _open_array(
    address: Address, path: str, document: str, read_only: bool, pid: int, mark: str
) -> "zarr.Array":
    import zarr
    from zarr.storage import StorePath

    from pipeline.store.places.chunk_cache import RecentChunks, WholeChunks

    below = address.zarr_store(read_only=read_only)
    if read_only and not address.is_local:
        below = RecentChunks(below, url=address.url, shard_bytes=_shard_bytes(document))
    place = StorePath(WholeChunks(below, blosc=ends_in_blosc(document)), path)
    try:
        # zarr's check for empty chunks takes longer than compressing them; label writers make their own check.
        opened = zarr.AsyncArray(_metadata(document), place, config={"write_empty_chunks": True})
        return zarr.Array(opened)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise BadStore(f"{address}/{path}: this array cannot be read ({reason}); rewrite it") from None


@lru_cache(maxsize=256)
def _metadata(document: str) -> Any:
    """Parse a metadata document, cached because the fields of a plate have equal ones."""
    import zarr
    from zarr.storage import MemoryStore, StorePath

    return zarr.Array.from_dict(StorePath(MemoryStore()), json.loads(document)).metadata


def _shard_bytes(document: str) -> int:
    """Uncompressed bytes of a shard; 0 for an array without shards."""
    metadata = json.loads(document)
    codecs = metadata.get("codecs") or [{}]
    if metadata.get("zarr_format") != 3 or codecs[0].get("name") != "sharding_indexed":
        return 0
    grid = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    return int(np.prod(grid)) * np.dtype(metadata["data_type"]).itemsize


def read_region(address: Address, path: str, document: str, selection: Selection) -> np.ndarray:
    """Read a region in the native byte order.

    Raises:
        BadStore: names the store and the reason, or the array and the index of the chunk that cannot be decoded.
    """
    array = open_array(address, path, document)
    few = read_few_chunks(address, path, document, array, selection)
    if few is not None:
        return few
    try:
        block = np.asarray(array[selection])
    except Exception as error:
        raise _blame(address, path, array, selection, error) from None
    return block.astype(block.dtype.newbyteorder("="), copy=False)


def write_region(address: Address, path: str, document: str, selection: Selection, block: np.ndarray) -> None:
    """Write a region that covers whole chunks (or shards); chunks of zeros are written as well."""
    array = open_array(address, path, document, read_only=False)
    with explained(f"{address}/{path}"):
        array[selection] = block


def parts_of(selection: Selection, step: Sequence[int]) -> Iterator[Selection]:
    """Cut a region that begins at a multiple of ``step`` into pieces of that size, the last ones smaller."""
    ranges = [range(part.start, part.stop, size) for part, size in zip(selection, step, strict=True)]
    for starts in product(*ranges):
        yield tuple(
            slice(start, min(start + size, part.stop))
            for start, size, part in zip(starts, step, selection, strict=True)
        )


def grid_of(array: "zarr.Array") -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (size, number) of the files' extents per axis: shards where there are some, else chunks."""
    size = tuple(array.shards or array.chunks)
    return size, tuple(-(-extent // step) for extent, step in zip(array.shape, size, strict=True))


def level_count(size: tuple[int, int]) -> int:
    """Number of pyramid levels for an image of this height and width."""
    count, longest = 1, max(size)
    while longest > SMALLEST_PX:
        count, longest = count + 1, -(-longest // 2)
    return count


def level_shapes(shape: tuple[int, ...], levels: int) -> tuple[tuple[int, ...], ...]:
    """Shape of each level: y and x halved, rounded up; other axes stay."""
    return tuple((*shape[:-2], *(-(-n // 2**level) for n in shape[-2:])) for level in range(levels))


def mean_of_2x2(block: np.ndarray) -> np.ndarray:
    """Halve the last two axes by the mean of 2x2 pixels, rounded for integers; an odd last line counts twice."""
    pad = [(0, 0)] * (block.ndim - 2) + [(0, block.shape[-2] % 2), (0, block.shape[-1] % 2)]
    even = np.pad(block, pad, mode="edge") if any(after for _, after in pad) else block
    wide = np.dtype(np.float32 if block.dtype == np.float32 else np.float64)
    total = np.zeros((*even.shape[:-2], even.shape[-2] // 2, even.shape[-1] // 2), wide)
    for top in (0, 1):
        for left in (0, 1):
            total += even[..., top::2, left::2]
    mean = total / 4
    return (np.rint(mean) if block.dtype.kind in "iub" else mean).astype(block.dtype)


def _compressor(codec: str, zarr_format: int) -> Any:
    if zarr_format == 3:
        from zarr.codecs import BloscCodec, ZstdCodec

        return (
            BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")
            if codec == "image"
            else ZstdCodec(level=0)
        )
    from numcodecs import Blosc, Zstd

    return Blosc(cname="zstd", clevel=3, shuffle=Blosc.BITSHUFFLE) if codec == "image" else Zstd(level=0)


def _blame(
    address: Address, path: str, array: "zarr.Array", selection: Selection, error: Exception
) -> Exception:
    """Find out which chunk made a read fail, by reading the chunks one by one."""
    if is_backend_fault(error):
        return store_fault(error, f"{address}/{path}")
    for index, part in _chunks_in(array, selection):
        try:
            array[part]
        except Exception as cause:
            if is_backend_fault(cause):
                return store_fault(cause, f"{address}/{path}")
            return BadStore(
                f"{address}/{path}: chunk {index} cannot be decoded ({type(cause).__name__}: {cause!s:.120}); "
                "copy the image again from its source"
            )
    return BadStore(
        f"{address}/{path}: reading failed once ({type(error).__name__}) and not again; try again"
    )


def _chunks_in(array: "zarr.Array", selection: Selection) -> Iterator[tuple[tuple[int, ...], Selection]]:
    ranges = [
        range(part.start // step, -(-part.stop // step))
        for part, step in zip(selection, array.chunks, strict=True)
    ]
    for index in product(*ranges):
        starts = [i * step for i, step in zip(index, array.chunks, strict=True)]
        stops = [min(s + step, n) for s, step, n in zip(starts, array.chunks, array.shape, strict=True)]
        yield index, tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))
