"""Writing of label stacks block by block, with all pyramid levels of a block, into a staging area.

Workers write concurrently without locks, because no two blocks share a file. Equal pixels give equal bytes in any
order of the blocks, and writing a block again changes nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import zarr
from numcodecs import Zstd

from pipeline.errors import BadArgument
from pipeline.stack import MAX_ID
from pipeline.store.ome.arrays import Selection, open_array, parts_of, read_region
from pipeline.store.ome.groups import find_group, join, read_json, with_ome, write_group
from pipeline.store.ome.image import Image, is_stand_in
from pipeline.store.ome.label_images.layout import BLOCK, LabelLayout, layout_for
from pipeline.store.ome.label_images.reading import ATTRIBUTE, labels_path, layer_names
from pipeline.store.places.address import Address

SCRATCH = ".platelayer"
"""Folder of an output for unfinished work."""

STAGING = f"{SCRATCH}/staging"
"""Default staging area, for labels that belong to no run."""

JOURNAL = "publish.json"
"""Ending of the name of the journal of publishing, after the name of the stack."""


UPLOADS = 8
"""Concurrent uploads of the files of a block."""


@dataclass(frozen=True, kw_only=True)
class LabelWriter:
    """A label stack being written; made by `create_labels`, picklable, used by many workers concurrently."""

    address: Address
    """The output collection."""
    path: str
    """The image the labels belong to."""
    names: tuple[str, ...]
    """Label groups, layer 0 first."""
    layout: LabelLayout
    """Levels, blocks and chunks."""
    documents: tuple[str, ...]
    """Metadata of each level's array."""
    staging: str = STAGING
    """Staging folder below the address in which they are written."""
    origin: str = ""
    """Fingerprint of the work the labels come from; kept in their attributes."""
    fresh: bool = False
    """Whether nothing was staged when the writer was made, so that every block has to be written despite its mark."""

    @property
    def name(self) -> str:
        """Name of the stack."""
        return self.names[0]

    @property
    def block(self) -> int:
        """Side of the blocks."""
        return self.layout.block

    def blocks(self) -> list[tuple[int, int, int, int]]:
        """Windows (y0, y1, x0, x1) that cover the image, each fit for one `write`."""
        return self.layout.blocks()

    def write(self, plane: tuple[int, int], layer: int, y0: int, x0: int, block: np.ndarray) -> None:
        """Write ids ``(h, w)`` of one layer and (t, z) plane, on all levels that blocks write.

        The block starts at a multiple of `block` and ends at one or with the image. Chunks without objects
        are not written.

        Raises:
            BadArgument: the block is not aligned, lies outside, or holds ids that do not fit uint32.
        """
        window = y0, y0 + block.shape[0], x0, x0 + block.shape[1]
        for level in range(self.layout.block_levels):
            self.write_level(plane, layer, level, window, [block])
            # Halved from level to level: reading every 8th pixel of the block costs as much as reading it.
            block = np.ascontiguousarray(block[::2, ::2])

    def write_level(
        self,
        plane: tuple[int, int],
        layer: int,
        level: int,
        window: tuple[int, int, int, int],
        strips: Iterable[np.ndarray],
    ) -> None:
        """Write one level of a block from strips of it side by side, one after the other.

        Strips as wide as a chunk are encoded without a copy while they are in the processor's cache.

        Args:
            plane: (t, z).
            layer: layer of the stack.
            level: level of the pyramid, of those that blocks write (`LabelLayout.block_levels`).
            window: the block (y0, y1, x0, x1), in pixels of level 0.
            strips: ids ``(h, w)`` of every ``2**level``-th pixel of the block, in both directions.

        Raises:
            BadArgument: as `write`; or the strips do not begin at multiples of the chunk, or do not fill the block.
        """
        self._check(layer, window)
        y0, y1, x0, x1 = (
            -(-bound >> level) for bound in window
        )  # Rounded up: y0 and x0 are multiples already.
        left = x0
        for ids in strips:
            if ids.shape[0] != y1 - y0 or left % self.layout.chunks(level)[-1] or left + ids.shape[1] > x1:
                raise BadArgument(
                    f"expected strips of {y1 - y0} rows that begin at multiples of {self.layout.chunks(level)[-1]} "
                    f"and end by column {x1}, got {ids.shape} at column {left}"
                )
            self._write(layer, level, self.layout.selection(plane, _window(y0, left, ids)), _checked(ids))
            left += ids.shape[1]
        if left != x1:
            raise BadArgument(f"expected strips up to column {x1}, got them up to {left}")

    def coarsen(self, layer: int) -> None:
        """Make the coarse levels of a layer after all of its blocks were written; may be repeated."""
        place = self.staged(self.names[layer])
        for level in range(self.layout.block_levels, len(self.documents)):
            self._reduce(layer, level, set(self.address.list(join(place, str(level - 1)))))

    def finish(self) -> None:
        """Write the groups' metadata into the staging folder, after everything else; may be repeated."""
        zarr_format = self.layout.zarr_format
        image = find_group(self.address, self.path, zarr_format=zarr_format)
        # A mirror without pixels has no image to point to, and validators follow the link.
        has_pixels = image is not None and "multiscales" in image.ome and not is_stand_in(image)
        source = "../../" if has_pixels else None
        for layer, name in enumerate(self.names):
            place = self.staged(name)
            self.address.sweep(place)
            attributes = with_ome({}, self.layout.metadata(name, image=source), ngff=self.layout.ngff)
            entry = {"stack": list(self.names), "layer": layer}
            attributes[ATTRIBUTE] = entry | ({"origin": self.origin} if self.origin else {})
            write_group(self.address, place, attributes, zarr_format=zarr_format)

    def staged(self, name: str = "") -> str:
        """Path of a label group in the staging folder."""
        return join(self.staging, labels_path(self.path, name))

    @property
    def journal(self) -> str:
        """Key of the journal of publishing."""
        return join(self.staged(), f"{self.name}.{JOURNAL}")

    @property
    def is_published(self) -> bool:
        """Whether the stack was published from this staging area and has not been replaced since."""
        journal = read_json(self.address, self.journal)
        return journal is not None and bool(journal.get("done")) and self.is_in_place

    @property
    def is_in_place(self) -> bool:
        """Whether the published labels of that name have the layers and the origin of this stack."""
        place = labels_path(self.path, self.name)
        group = find_group(self.address, place, zarr_format=self.layout.zarr_format)
        entry = group.attributes.get(ATTRIBUTE) if group else None
        return isinstance(entry, dict) and (entry.get("stack"), entry.get("origin", "")) == (
            list(self.names),
            self.origin,
        )

    def _check(self, layer: int, window: tuple[int, int, int, int]) -> None:
        if not 0 <= layer < len(self.names):
            raise BadArgument(f"expected a layer below {len(self.names)}, got {layer}")
        self.layout.check_window(*window)

    def _write(self, layer: int, level: int, selection: Selection, ids: np.ndarray) -> None:
        """Write ids ``(h, w)`` chunk by chunk, without the chunks that are empty.

        The bytes are those that zarr writes; doing it here takes half the time and one thread.
        """
        path, chunks = join(self.staged(self.names[layer]), str(level)), self.layout.chunks(level)
        top, left = selection[-2].start, selection[-1].start
        full: list[tuple[str, np.ndarray]] = []
        for part in parts_of(selection, chunks):
            y, x = part[-2:]
            piece = ids[y.start - top : y.stop - top, x.start - left : x.stop - left]
            # A sample suffices for most chunks; max is several times as fast as any.
            if piece[::16, ::16].max(initial=0) or piece.max(initial=0):
                index = tuple(bounds.start // n for bounds, n in zip(part, chunks, strict=True))
                full.append((join(path, self.layout.chunk_key(index)), piece))
        write_all(self.address, [(key, encoded(piece, chunks[-2:])) for key, piece in full])

    def _reduce(self, layer: int, level: int, present: set[str]) -> None:
        """Make one coarse level from the next finer one, reading only where there are chunks."""
        path, document = join(self.staged(self.names[layer]), str(level - 1)), self.documents[level - 1]
        for target, source in self.layout.halvings(level):
            if any(key in present for key in _keys(open_array(self.address, path, document), source)):
                fine = read_region(self.address, path, document, source)
                coarse = fine[..., ::2, ::2]
                self._write(layer, level, target, coarse.reshape(coarse.shape[-2:]))


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

    A repeated call for the same stack keeps the blocks that were written; `LabelWriter.fresh` is True if there were
    none. A stack that was published from this staging folder is not staged again. The default staging folder, which
    belongs to no run, is always cleared.

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
    layout = layout_for(image, chunk=chunk, block=block)
    files = layout.documents()
    main = "zarr.json" if layout.zarr_format == 3 else ".zarray"
    writer = LabelWriter(
        address=address,
        path=path,
        names=layer_names(name, layers),
        layout=layout,
        documents=tuple(documents[main].decode() for documents in files),
        staging=staging,
        origin=origin,
    )
    return writer if writer.is_published else _stage(writer, files)


def _stage(writer: LabelWriter, files: Sequence[dict[str, bytes]]) -> LabelWriter:
    """Write the arrays' metadata and remove the journal of an older publication."""
    if writer.staging == STAGING:
        for name in writer.names:
            writer.address.remove(writer.staged(name))
    elif _is_staged(writer, files):
        return writer
    if read_json(writer.address, writer.journal) is not None:
        writer.address.remove(writer.journal)
    for layer, level in product(writer.names, range(len(files))):
        for key, data in files[level].items():
            writer.address.write_bytes(join(writer.staged(layer), str(level), key), data)
    return replace(writer, fresh=True)


def _is_staged(writer: LabelWriter, files: Sequence[dict[str, bytes]]) -> bool:
    """Whether an earlier call wrote all metadata, or publishing has begun."""
    journal = read_json(writer.address, writer.journal)
    if journal is not None and not journal.get("done"):
        return True
    last = join(writer.staged(writer.names[-1]), str(len(files) - 1), list(files[-1])[-1])
    return writer.address.read_bytes_or_none(last) is not None


def _window(y: int, x: int, ids: np.ndarray) -> tuple[slice, slice]:
    return slice(y, y + ids.shape[0]), slice(x, x + ids.shape[1])


def _checked(ids: np.ndarray) -> np.ndarray:
    if ids.dtype != np.uint32 and (int(ids.min()) < 0 or int(ids.max()) > MAX_ID):
        raise BadArgument(f"ids must be from 0 to {MAX_ID}, got {ids.min()} to {ids.max()}")
    return ids.astype(np.uint32, copy=False)


def encoded(ids: np.ndarray, chunk: tuple[int, ...]) -> bytes:
    """Encode the ids of one chunk as zarr does for label arrays; beyond the end of the image they are 0."""
    whole = np.ascontiguousarray(ids, "<u4")
    if ids.shape != chunk[-2:]:
        whole = np.zeros(chunk, "<u4")
        whole[: ids.shape[0], : ids.shape[1]] = ids
    return bytes(Zstd(level=0).encode(whole))


def write_all(address: Address, files: list[tuple[str, bytes]]) -> None:
    """Write files, concurrently where each costs a round trip."""
    if address.is_local or len(files) < 2:
        for key, data in files:
            address.write_bytes(key, data)
        return
    with ThreadPoolExecutor(UPLOADS) as pool:
        for done in [pool.submit(address.write_bytes, key, data) for key, data in files]:
            done.result()


def _keys(array: zarr.Array, selection: Selection) -> Iterator[str]:
    """Yield the keys of the chunks that a region meets."""
    ranges = [range(p.start // n, -(-p.stop // n)) for p, n in zip(selection, array.chunks, strict=True)]
    for index in product(*ranges):
        yield array.metadata.encode_chunk_key(index)
