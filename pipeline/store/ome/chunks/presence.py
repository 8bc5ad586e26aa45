"""Absent chunks of an image: omitted because they are empty, or lost.

In zarr an absent chunk is valid and has the fill value, so reading it never fails. Whether it was lost is decided by
evidence: a mark by the writer, the pixels of the next coarser level, or the absence of all chunks.
"""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import BadStore
from pipeline.store.ome.arrays import find_array, grid_of, open_array, read_region
from pipeline.store.ome.chunks.direct_reading import FEW
from pipeline.store.ome.groups import join
from pipeline.store.places.address import Address

if TYPE_CHECKING:
    from pipeline.store.ome.image import Image

SMOOTHING_PX = 4
"""Pixels of the coarser level into which a smoothing downsampler may spread the neighbours of an empty chunk.

Covers factor 2 and 4 with the Gaussian (4 sigma), binomial and Lanczos kernels of ome-zarr, ngff-zarr and ITK.
"""

ADVICE = (
    "copy the image again from its source; if what is absent was never recorded (masked, not scanned), "
    "give --absent-chunks zeros"
)
"""What a user can do about absent chunks."""

TOLERANCE = 1e-3
"""Residue of a smoothing kernel in floating point pixels, relative to the brightest pixel around, that is ignored."""


def absent_chunks(address: Address, path: str, document: str) -> tuple[tuple[int, ...], ...]:
    """List the indices of the files (chunks or shards) of an array that are not in the store, by one listing.

    Of a local array of few files, such as a field, each file is looked for: that is faster than walking its folders.
    """
    array = open_array(address, path, document)
    _, count = grid_of(array)
    encode = array.metadata.encode_chunk_key
    indices = list(product(*(range(number) for number in count)))
    if address.is_local and len(indices) <= FEW:
        return tuple(index for index in indices if not address.exists(join(path, encode(index))))
    present = set(address.list(path))
    return tuple(index for index in indices if encode(index) not in present)


def check_chunks(image: "Image") -> None:
    """Refuse an image whose absent chunks were lost: they would be read as the fill value.

    Raises:
        BadStore: the chunk, why it must have held pixels, and what to do.
    """
    absent = image.absent_chunks()
    level = f"{image.place}/{image.levels[0]}"
    if absent and len(absent) == _number_of_chunks(image):
        raise BadStore(f"{level}: {_nothing_found(image)}; {ADVICE}")
    lost = image.lost_chunks(absent)
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        reason = (
            "the store was written without leaving out chunks"
            if image.has_all_chunks
            else "the coarser level shows some"
        )
        raise BadStore(
            f"{level}: expected pixels in chunk {lost[0]}{more}, as {reason}, but it is missing; {ADVICE}"
        )


def shown_by_coarser_level(image: "Image", absent: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Return those absent chunks in which the next coarser level is not empty.

    Smoothing spreads the pixels of the neighbours into an empty chunk. So a margin of `SMOOTHING_PX` pixels of the
    coarser level is ignored; of a smaller chunk only the middle counts.
    """
    path = join(image.path, image.levels[1]) if absent and len(image.levels) > 1 else ""
    coarser = find_array(image.address, path, zarr_format=image.zarr_format) if path else None
    if coarser is None:
        return ()
    document = coarser[0]
    fine = open_array(image.address, join(image.path, image.levels[0]), image.document)
    coarse = open_array(image.address, path, document)
    size, _ = grid_of(fine)
    empty = fine.fill_value if fine.fill_value is not None else 0

    def shows(index: tuple[int, ...]) -> bool:
        outer, inner = _footprint(index, size, fine.shape, coarse.shape)
        block = read_region(image.address, path, document, outer)
        return _differs(block, block[inner], empty)

    return tuple(index for index in absent if shows(index))


def _footprint(
    index: tuple[int, ...], size: Sequence[int], fine: Sequence[int], coarse: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return a chunk's region on the coarser level, and the part of that region away from its border."""
    outer, inner = [], []
    for position, (i, step, n, small) in enumerate(zip(index, size, fine, coarse, strict=True)):
        first, last = i * step * small / n, min((i + 1) * step, n) * small / n
        start = min(int(-(-first // 1)), small - 1)
        stop = max(int(last), start + 1)
        length = stop - start
        margin = min(SMOOTHING_PX, (length - 1) // 2) if position >= len(fine) - 2 else 0
        # At the border of the image there is no neighbour that could be spread.
        outer.append(slice(start, stop))
        inner.append(slice(margin if start else 0, length - (margin if stop < small else 0)))
    return tuple(outer), tuple(inner)


def _differs(block: np.ndarray, inner: np.ndarray, empty: float) -> bool:
    """Whether the inner part of a block differs from the fill value."""
    if isinstance(empty, float) and np.isnan(empty):
        return bool((~np.isnan(inner)).any())
    if block.dtype.kind != "f":
        return bool((inner != empty).any())
    largest = float(np.nanmax(np.abs(block - empty), initial=0.0))
    return bool((np.abs(inner - empty) > TOLERANCE * largest).any())


def _number_of_chunks(image: "Image") -> int:
    array = open_array(image.address, join(image.path, image.levels[0]), image.document)
    return int(np.prod(grid_of(array)[1]))


def _nothing_found(image: "Image") -> str:
    """Describe which file was expected and which files exist instead."""
    path = join(image.path, image.levels[0])
    array = open_array(image.address, path, image.document)
    first = array.metadata.encode_chunk_key((0,) * array.ndim)
    others = [
        key for key in image.address.list(path) if not key.rpartition("/")[2].startswith((".z", "zarr.json"))
    ]
    files = f"{len(others)} other file(s), such as {others[0]!r}" if others else "no other file"
    return f"expected pixels, but not one chunk is there: looked for {first!r} and so on, found {files}"
