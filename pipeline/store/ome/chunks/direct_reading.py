"""Reading of a few chunks of a local array in the calling thread, for images that are no larger.

zarr reads chunks in an event loop, and opens and decodes each of them in further threads. That is efficient for many
chunks and for servers, but takes several times as long as decoding the one chunk of a small local image.
"""

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.store.ome.chunks.array_form import ArrayForm, plain_form
from pipeline.store.places.address import Address
from pipeline.store.places.chunk_length import HEADER, check_length

if TYPE_CHECKING:
    import zarr

FEW = 4
"""Upper limit of the chunks that are read one after the other; more are read concurrently by zarr."""


def read_few_chunks(
    address: Address, path: str, document: str, array: "zarr.Array", selection: tuple[slice, ...]
) -> np.ndarray | None:
    """Read a region of a local array; None where zarr has to do it.

    zarr reads from servers, many chunks, shards and unusual codecs, and damaged files, which the caller reports.
    """
    form = plain_form(document) if address.is_local else None
    if form is None or form.shards or _count(array, selection) > FEW:
        return None
    result = np.empty([part.stop - part.start for part in selection], array.dtype.newbyteorder("="))
    try:
        for key, inside, outside in _parts(array, selection):
            data = address.read_bytes_or_none(f"{path}/{key}" if path else key)
            result[outside] = array.fill_value if data is None else _decoded(data, form)[inside]
    except Exception:  # Any error of a decoder: zarr reads the file again, and the caller reports it.
        return None
    return result


def _count(array: "zarr.Array", selection: tuple[slice, ...]) -> int:
    """Number of chunks that a region meets."""
    number = 1
    for part, step in zip(selection, array.chunks, strict=True):
        number *= (part.stop - 1) // step - part.start // step + 1
    return number


def _parts(
    array: "zarr.Array", selection: tuple[slice, ...]
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


def _decoded(data: bytes, form: ArrayForm) -> np.ndarray:
    """Decode a chunk; the errors of the codec when the file is damaged."""
    check_length(len(data), data[:HEADER], blosc=form.compressor == "blosc")
    plain = _codec(form.compressor).decode(data) if form.compressor else data
    return np.frombuffer(plain, form.dtype).reshape(form.chunks)


@cache
def _codec(name: str) -> Any:
    """Return a codec for decoding; its other options matter to an encoder only."""
    import numcodecs  # Imported late, because listing a store needs no codec.

    return numcodecs.get_codec({"id": name})
