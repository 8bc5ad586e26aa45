"""Reading of a few chunks of a local array in the calling thread, for images that are no larger.

zarr reads chunks in an event loop of its own, and opens and decodes each of them in further threads. That serves many
chunks and servers well, but costs a small image on a disk several times what its chunk takes to decode.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numcodecs
import numpy as np
import zarr

from pipeline.store.places.address import Address
from pipeline.store.places.chunk_cache import HEADER, check_length

FEW = 4
"""Chunks that are read one after the other; of more, several are read at once by zarr."""

CODECS = {"zstd": "zstd", "blosc": "blosc", "gzip": "gzip", "zlib": "zlib"}
"""Compressors that are decoded here, as zarr and numcodecs name them."""


@dataclass(frozen=True)
class ChunkFormat:
    """How each file of an array is encoded: pixels in C order, compressed as a whole or not."""

    dtype: np.dtype
    """Type of the pixels in the file."""
    codec: Any
    """The numcodecs codec; None for plain pixels."""
    is_blosc: bool = False
    """Whether the codec is Blosc, which does not notice that a chunk is cut off."""

    def decoded(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """Decode a chunk; the errors of the codec when the file is damaged."""
        check_length(len(data), data[:HEADER], blosc=self.is_blosc)
        plain = self.codec.decode(data) if self.codec else data
        return np.frombuffer(plain, self.dtype).reshape(shape)


def read_few_chunks(
    address: Address, path: str, document: str, array: zarr.Array, selection: tuple[slice, ...]
) -> np.ndarray | None:
    """Read a region of a local array; None where zarr has to do it.

    That is so for servers, for many chunks, for shards and unusual codecs, and for files that are damaged, which
    the caller is to report.
    """
    found = _format(document) if address.is_local else None
    if found is None or _count(array, selection) > FEW:
        return None
    result = np.empty([part.stop - part.start for part in selection], array.dtype.newbyteorder("="))
    try:
        for key, inside, outside in _parts(array, selection):
            data = address.read_bytes_or_none(f"{path}/{key}" if path else key)
            result[outside] = array.fill_value if data is None else found.decoded(data, array.chunks)[inside]
    except (
        Exception
    ):  # whatever a decoder says of a damaged file: zarr reads it again, and the caller names it
        return None
    return result


def _count(array: zarr.Array, selection: tuple[slice, ...]) -> int:
    """Number of chunks that a region meets."""
    number = 1
    for part, step in zip(selection, array.chunks, strict=True):
        number *= (part.stop - 1) // step - part.start // step + 1
    return number


def _parts(
    array: zarr.Array, selection: tuple[slice, ...]
) -> Iterator[tuple[str, tuple[slice, ...], tuple[slice, ...]]]:
    """Yield the key of each chunk of a region, its part inside the chunk, and its place in the result."""
    ranges = [range(p.start // n, (p.stop - 1) // n + 1) for p, n in zip(selection, array.chunks)]
    for index in product(*ranges):
        starts = [i * n for i, n in zip(index, array.chunks)]
        bounds = [
            (max(part.start, start), min(part.stop, start + n))
            for part, start, n in zip(selection, starts, array.chunks)
        ]
        inside = tuple(slice(a - start, b - start) for (a, b), start in zip(bounds, starts))
        outside = tuple(slice(a - part.start, b - part.start) for (a, b), part in zip(bounds, selection))
        yield array.metadata.encode_chunk_key(index), inside, outside


@lru_cache(maxsize=256)
def _format(document: str) -> ChunkFormat | None:
    """How the chunks of an array are encoded, by its metadata; None where only zarr decodes them."""
    found = json.loads(document)
    try:
        return _format_v2(found) if found["zarr_format"] == 2 else _format_v3(found)
    except (KeyError, TypeError, ValueError):
        return None


def _format_v2(found: dict[str, Any]) -> ChunkFormat | None:
    if found.get("filters") or found["order"] != "C":
        return None
    compressor = found["compressor"]
    return _simple(np.dtype(found["dtype"]), compressor["id"] if compressor else None)


def _format_v3(found: dict[str, Any]) -> ChunkFormat | None:
    names = [codec["name"] for codec in found["codecs"]]
    if names[0] != "bytes" or len(names) > 2:
        return None
    order = found["codecs"][0].get("configuration", {}).get("endian", "little")
    dtype = np.dtype(found["data_type"]).newbyteorder("<" if order == "little" else ">")
    return _simple(dtype, names[1] if len(names) == 2 else None)


def _simple(dtype: np.dtype, compressor: str | None) -> ChunkFormat | None:
    if compressor is None:
        return ChunkFormat(dtype, None)
    known = CODECS.get(compressor)
    return ChunkFormat(dtype, numcodecs.get_codec({"id": known}), known == "blosc") if known else None
