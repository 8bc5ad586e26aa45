"""Absent chunks of an image: left out because they are empty, lost, or stored under other names.

In zarr an absent chunk is a legal chunk of the fill value, so reading never fails on it. Whether it was lost is
decided by evidence: the writer's own mark, the next coarser level, or that no chunk is there at all.
"""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import BadStore
from pipeline.store.ome.arrays import find_document, grid_of, open_array, read_region
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
"""Rest of a smoothing kernel, relative to the brightest pixel around, that floating point pixels may show."""


def absent_chunks(address: Address, path: str, document: str) -> tuple[tuple[int, ...], ...]:
    """List the indices of the files (chunks or shards) of an array that are not in the store, by one listing."""
    array = open_array(address, path, document)
    present = set(address.list(path))
    _, count = grid_of(array)
    encode = array.metadata.encode_chunk_key
    indices = product(*(range(number) for number in count))
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
    """Return those of the absent chunks inside which the next coarser level is not empty.

    Smoothing spreads the pixels of the neighbours some way into an empty chunk, so only what lies `SMOOTHING_PX`
    (of the coarser level) inside of it counts, or its middle where it is smaller.
    """
    path = join(image.path, image.levels[1]) if absent and len(image.levels) > 1 else ""
    found = find_array(image.address, path, zarr_format=image.zarr_format) if path else None
    if found is None:
        return ()
    document = found[0]
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
    """Whether the inner part of a block holds anything but the fill value."""
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
    """Say which file was looked for and which files are there instead."""
    path = join(image.path, image.levels[0])
    array = open_array(image.address, path, image.document)
    first = array.metadata.encode_chunk_key((0,) * array.ndim)
    others = [
        key for key in image.address.list(path) if not key.rpartition("/")[2].startswith((".z", "zarr.json"))
    ]
    there = f"{len(others)} other file(s), such as {others[0]!r}" if others else "no other file"
    return f"expected pixels, but not one chunk is there: looked for {first!r} and so on, found {there}"


def find_array(address: Address, path: str, *, zarr_format: int) -> tuple[str, str] | None:
    """Read an array's metadata as `find_document` does, with the separator that its chunks' names really have.

    Returns the metadata and a remark, empty unless something had to be corrected; None when there is no array.
    """
    document = find_document(address, path, zarr_format=zarr_format)
    return None if document is None else _with_actual_separator(address, path, document)


def _with_actual_separator(address: Address, path: str, document: str) -> tuple[str, str]:
    """Return an array's metadata with the separator that its chunks' names have, and a remark when it was changed.

    Looked at only on a disk, where it costs no request, or where ``.zarray`` does not name the separator. Metadata
    that fit the files, and those of arrays without files, are returned as they are, with an empty remark.
    """
    found = json.loads(document)
    is_v2 = found.get("zarr_format") == 2
    declared = _declared_separator(found)
    if declared is None or not (address.is_local or (is_v2 and "dimension_separator" not in found)):
        return document, ""
    stem = [] if is_v2 or found["chunk_key_encoding"]["name"] == "v2" else ["c"]
    if address.exists(join(path, declared.join([*stem, *("0" for _ in found["shape"])]))):
        return document, ""
    actual = _separator_of(address.children(path))
    if actual is None or actual == declared:
        return document, ""
    field = "dimension_separator in .zarray" if is_v2 else "the separator of chunk_key_encoding in zarr.json"
    return (
        json.dumps(_with_separator(found, actual), sort_keys=True),
        f"chunks are named with {actual!r}, the metadata say {declared!r}; they were read as they are named "
        f"(to correct the store, set {field} to {actual!r})",
    )


def _declared_separator(found: dict[str, Any]) -> str | None:
    """Read the separator of chunk names from an array's metadata; None for an encoding that is not known."""
    if found.get("zarr_format") == 2:
        return found.get("dimension_separator") or "."
    encoding = found.get("chunk_key_encoding") or {}
    default = {"default": "/", "v2": "."}.get(encoding.get("name", ""))
    return (encoding.get("configuration") or {}).get("separator", default)


def _with_separator(found: dict[str, Any], separator: str) -> dict[str, Any]:
    if found.get("zarr_format") == 2:
        return {**found, "dimension_separator": separator}
    encoding = found["chunk_key_encoding"]
    options = {**(encoding.get("configuration") or {}), "separator": separator}
    return {**found, "chunk_key_encoding": {**encoding, "configuration": options}}


def _separator_of(names: Iterable[str]) -> str | None:
    """Recognise the separator by the names directly below an array: ``0.0.0`` and ``c.0.0``, or ``0`` and ``c``."""
    for name in names:
        if re.fullmatch(r"(c\.)?\d+(\.\d+)+", name):
            return "."
        if name == "c" or name.isdecimal():
            return "/"
    return None
