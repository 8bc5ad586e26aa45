"""Writing a label stack block by block, all pyramid levels of a block at once, into a staging place.

Invariant: no two blocks share a file, on any level that blocks write; the coarse levels, where they would, are
made when the stack is published. Chunks depend on the image and on ``chunk`` and ``block``, never on the tiles
of the network. The same pixels give the same bytes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from pipeline.errors import BadArgument
from pipeline.stack import MAX_ID
from pipeline.store.address import Address
from pipeline.store.arrays import Selection, new_document, open_array, parts_of, read_region, write_region
from pipeline.store.groups import find_group, join, read_json, with_ome, write_group, zarr_format_of
from pipeline.store.image import Image
from pipeline.store.label_reading import ATTRIBUTE, labels_path, layer_names
from pipeline.store.ngff import multiscales_metadata
from pipeline.store.writing import level_count

CHUNK = 1024
"""Default chunk (y and x) of label arrays."""

BLOCK = 2048
"""Default block: what one call of `LabelWriter.write` covers."""

SMALLEST_CHUNK = 256
"""Levels whose share of a block is smaller than this are made when the stack is published."""

SCRATCH = ".platelayer"
"""Folder of an output for what is not finished."""

STAGING = f"{SCRATCH}/staging"
"""Default staging place, for labels that belong to no run."""

JOURNAL = "publish.json"
"""Name of the journal of a stack that is being published, after the stack's own name."""


@dataclass(frozen=True, kw_only=True)
class LabelWriter:
    """A label stack being written; made by `create_labels`, picklable, used by many workers at once."""

    address: Address
    """The output collection."""
    path: str
    """The image the labels belong to."""
    names: tuple[str, ...]
    """Label groups, layer 0 first."""
    staging: str
    """Where they are written, below the address."""
    fresh: bool
    """Nothing was staged when the writer was made: every block has to be written, whatever marks there are."""
    axes: tuple[str, ...]
    """Axes of the image without channels."""
    units: tuple[str | None, ...]
    """Unit per axis."""
    scale: tuple[float, ...]
    """Pixel size per axis on level 0."""
    translation: tuple[float, ...]
    """Position of the first pixel per axis."""
    ngff: str
    """OME-Zarr version."""
    block: int
    """Blocks start at multiples of this and are multiples of it, or end with the image."""
    shapes: tuple[tuple[int, ...], ...]
    """Shape of each level."""
    block_levels: int
    """So many levels are written by `write`; the others by `finish`."""
    documents: tuple[str, ...]
    """Metadata of each level's array."""
    origin: str = ""
    """Fingerprint of the work the labels come from; kept in their attributes."""

    @property
    def name(self) -> str:
        """Name of the stack."""
        return self.names[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.shapes[0][-2], self.shapes[0][-1]

    def blocks(self) -> list[tuple[int, int, int, int]]:
        """Windows (y0, y1, x0, x1) that cover the image, each fit for one `write`."""
        height, width = self.size
        ys, xs = range(0, height, self.block), range(0, width, self.block)
        return [(y, min(y + self.block, height), x, min(x + self.block, width)) for y, x in product(ys, xs)]

    def write(self, plane: tuple[int, int], layer: int, y0: int, x0: int, block: np.ndarray) -> None:
        """Write ids ``(h, w)`` of one layer and (t, z) plane, on all levels that blocks write.

        The block starts at a multiple of `block` and ends at one or with the image. Blocks without objects
        write nothing. Writing the same block again is harmless.

        Raises:
            BadArgument: the block is not aligned, lies outside, or holds ids that do not fit uint32.
        """
        ids = self._checked(layer, y0, x0, block)
        if not ids.any():
            return
        for level in range(self.block_levels):
            part = ids[:: 2**level, :: 2**level]
            y, x = y0 >> level, x0 >> level
            window = slice(y, y + part.shape[0]), slice(x, x + part.shape[1])
            self._write(layer, level, self._selection(plane, window), part)

    def finish(self) -> None:
        """Make the coarse levels and the groups' metadata in the staging place; may be repeated."""
        image = find_group(self.address, self.path, zarr_format=zarr_format_of(self.ngff))
        source = "../../" if image is not None and "multiscales" in image.ome else None
        for layer, name in enumerate(self.names):
            place = self.staged(name)
            self.address.sweep(place)
            for level in range(self.block_levels, len(self.shapes)):
                self._reduce(layer, level, set(self.address.list(join(place, str(level - 1)))))
            attributes = with_ome({}, self._metadata(name, source), ngff=self.ngff)
            origin = {"origin": self.origin} if self.origin else {}
            attributes[ATTRIBUTE] = {"stack": list(self.names), "layer": layer, **origin}
            write_group(self.address, place, attributes, zarr_format=zarr_format_of(self.ngff))

    def staged(self, name: str = "") -> str:
        """Path of a label group in the staging place."""
        return join(self.staging, labels_path(self.path, name))

    @property
    def journal(self) -> str:
        """Key of the journal of publishing."""
        return join(self.staged(), f"{self.name}.{JOURNAL}")

    @property
    def is_published(self) -> bool:
        """Whether the stack was published from this staging place, and what is in its place is still this."""
        journal = read_json(self.address, self.journal)
        return journal is not None and bool(journal.get("done")) and self.is_in_place

    @property
    def is_in_place(self) -> bool:
        """Whether the labels in the stack's place have its layers and its origin."""
        group = find_group(
            self.address, labels_path(self.path, self.name), zarr_format=zarr_format_of(self.ngff)
        )
        own = group.attributes.get(ATTRIBUTE) if group else None
        return (
            isinstance(own, dict)
            and own.get("stack") == list(self.names)
            and own.get("origin", "") == self.origin
        )

    def _checked(self, layer: int, y0: int, x0: int, block: np.ndarray) -> np.ndarray:
        if not 0 <= layer < len(self.names):
            raise BadArgument(f"expected a layer below {len(self.names)}, got {layer}")
        starts_and_stops = ((y0, y0 + block.shape[0]), (x0, x0 + block.shape[1]))
        for (start, stop), extent in zip(starts_and_stops, self.size, strict=True):
            if start % self.block or not start < stop <= extent or (stop % self.block and stop != extent):
                raise BadArgument(
                    f"a block must start and end at multiples of {self.block} or with the image {self.size}, "
                    f"got {block.shape} at {(y0, x0)}"
                )
        if block.dtype != np.uint32 and block.size and (int(block.min()) < 0 or int(block.max()) > MAX_ID):
            raise BadArgument(f"ids must be from 0 to {MAX_ID}, got {block.min()} to {block.max()}")
        return block.astype(np.uint32, copy=False)

    def _selection(self, plane: tuple[int, int], window: tuple[slice, slice]) -> Selection:
        index = {"t": plane[0], "z": plane[1]}
        return (*(slice(index[axis], index[axis] + 1) for axis in self.axes[:-2]), *window)

    def _write(self, layer: int, level: int, selection: Selection, ids: np.ndarray) -> None:
        """Write ids ``(h, w)`` without the chunks that are empty."""
        path = join(self.staged(self.names[layer]), str(level))
        document = self.documents[level]
        y, x = selection[-2].start, selection[-1].start
        full = [
            (part, piece)
            for part in parts_of(selection, _chunks_of(document))
            if (
                piece := ids[part[-2].start - y : part[-2].stop - y, part[-1].start - x : part[-1].stop - x]
            ).any()
        ]
        if len(full) == len(list(parts_of(selection, _chunks_of(document)))):
            full = [(selection, ids)]
        for part, piece in full:
            write_region(self.address, path, document, part, piece.reshape([s.stop - s.start for s in part]))

    def _reduce(self, layer: int, level: int, present: set[str]) -> None:
        """Make one coarse level from the next finer one, reading only chunks that are there."""
        path = join(self.staged(self.names[layer]), str(level - 1))
        for target, source in self._halvings(level):
            array = open_array(self.address, path, self.documents[level - 1])
            if not any(key in present for key in _keys(array, source)):
                continue
            fine = read_region(self.address, path, self.documents[level - 1], source)
            self._write(layer, level, target, fine[..., ::2, ::2].reshape(fine[..., ::2, ::2].shape[-2:]))

    def _halvings(self, level: int) -> Iterator[tuple[Selection, Selection]]:
        """Yield (files of a level, the region of the finer level they are made from)."""
        fine = self.shapes[level - 1]
        whole = tuple(slice(0, extent) for extent in self.shapes[level])
        for target in parts_of(whole, _chunks_of(self.documents[level])):
            window = tuple(
                slice(2 * part.start, min(2 * part.stop, extent))
                for part, extent in zip(target[-2:], fine[-2:], strict=True)
            )
            yield target, (*target[:-2], *window)

    def _metadata(self, name: str, image: str | None) -> dict[str, object]:
        scales = [
            [*self.scale[:-2], self.scale[-2] * 2**level, self.scale[-1] * 2**level]
            for level in range(len(self.shapes))
        ]
        # In a mirror without pixels there is no image to point to, and validators follow the link.
        source: dict[str, object] = {"source": {"image": image}} if image else {}
        version: dict[str, object] = {"version": self.ngff} if self.ngff == "0.4" else {}
        ome = multiscales_metadata(
            axes=self.axes,
            units=self.units,
            scales=scales,
            translation=self.translation,
            name=name,
            ngff=self.ngff,
        )
        return {**ome, "image-label": {**version, **source}}


def create_labels(
    address: Address,
    path: str,
    *,
    name: str,
    layers: int,
    image: Image,
    staging: str = STAGING,
    chunk: int | None = None,
    block: int = BLOCK,
    origin: str = "",
) -> LabelWriter:
    """Begin a label stack for an image: writes the arrays' metadata into the staging place.

    Calling it again for the same stack is harmless and keeps the blocks that are there; `LabelWriter.fresh`
    says that there were none. What was published from this staging place already is not staged again.

    Args:
        address: the output collection (the image's own, or another one with the same layout).
        path: place of the image in it.
        name: name of the stack and of its layer 0.
        layers: number of layers, at least 1.
        image: the image that was segmented; gives axes, size, scale and version.
        staging: place for unfinished labels below ``address``, one for each run.
        chunk: chunk of the arrays in y and x, divides ``block``; 1024 or the block, if smaller, when None.
        block: what one `LabelWriter.write` covers, a power of two.
        origin: fingerprint of the work the labels come from, kept in their attributes (see `label_origin`).
    """
    chunk = min(CHUNK, block) if chunk is None else chunk
    _check_layout(chunk, block)
    keep = [index for index, axis in enumerate(image.axes) if axis != "c"]
    shapes = _shapes(tuple(image.shape[index] for index in keep))
    axes = tuple(image.axes[index] for index in keep)
    files = [
        new_document(
            shape=shape,
            dtype=np.dtype(np.uint32),
            chunks=_chunk(shape, level, chunk, block),
            shards=None,
            axes=axes,
            codec="label",
            zarr_format=image.zarr_format,
        )
        for level, shape in enumerate(shapes)
    ]
    writer = LabelWriter(
        address=address,
        path=path,
        names=layer_names(name, layers),
        staging=staging,
        fresh=False,
        axes=axes,
        units=tuple(image.units[index] for index in keep),
        scale=tuple(image.scale[index] for index in keep),
        translation=tuple(image.translation[index] for index in keep),
        ngff=image.ngff,
        origin=origin,
        block=block,
        shapes=tuple(shapes),
        block_levels=min(len(shapes), (block // SMALLEST_CHUNK).bit_length() or 1),
        documents=tuple(
            file["zarr.json" if image.zarr_format == 3 else ".zarray"].decode() for file in files
        ),
    )
    return writer if writer.is_published else _stage(writer, files)


def _stage(writer: LabelWriter, files: list[dict[str, bytes]]) -> LabelWriter:
    """Write the arrays' metadata, the journal of an older publication removed."""
    if writer.staging == STAGING:
        for name in writer.names:  # what a killed process left is not ours
            writer.address.remove(writer.staged(name))
    elif _is_staged(writer, files):
        return writer
    writer.address.remove(writer.journal)
    for layer in writer.names:
        for level, documents in enumerate(files):
            for key, data in documents.items():
                writer.address.write_bytes(join(writer.staged(layer), str(level), key), data)
    return replace(writer, fresh=True)


def _is_staged(writer: LabelWriter, files: list[dict[str, bytes]]) -> bool:
    """Whether an earlier call wrote all metadata, or publishing has begun."""
    journal = read_json(writer.address, writer.journal)
    if journal is not None and not journal.get("done"):
        return True
    last = join(writer.staged(writer.names[-1]), str(len(files) - 1), list(files[-1])[-1])
    return writer.address.find_bytes(last) is not None


def _check_layout(chunk: int, block: int) -> None:
    if block < 1 or block & (block - 1):
        raise BadArgument(f"expected a block that is a power of two, got {block}")
    if chunk < 1 or block % chunk:
        raise BadArgument(f"expected a chunk that divides the block {block}, got {chunk}")


def _shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    levels = level_count((shape[-2], shape[-1]))
    return [(*shape[:-2], *(-(-n // 2**level) for n in shape[-2:])) for level in range(levels)]


def _chunk(shape: tuple[int, ...], level: int, chunk: int, block: int) -> tuple[int, ...]:
    """Chunk of a level: within a block where blocks write it, of ordinary size where they do not."""
    share = block >> level
    side = min(chunk, share) if share >= SMALLEST_CHUNK or level == 0 else min(chunk, 2 * SMALLEST_CHUNK)
    return (*(1 for _ in shape[:-2]), *(min(side, n) for n in shape[-2:]))


@lru_cache(maxsize=1024)
def _chunks_of(document: str) -> tuple[int, ...]:
    found = json.loads(document)
    chunks = found["chunks"] if "chunks" in found else found["chunk_grid"]["configuration"]["chunk_shape"]
    return tuple(chunks)


def _keys(array: object, selection: Selection) -> Iterator[str]:
    chunks, encode = array.chunks, array.metadata.encode_chunk_key  # type: ignore[attr-defined]
    ranges = [range(p.start // size, -(-p.stop // size)) for p, size in zip(selection, chunks, strict=True)]
    for index in product(*ranges):
        yield encode(index)
