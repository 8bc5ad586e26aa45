"""The stages of the main job, as plain functions that run on any worker.

predict   read core and halo, normalise, network, layers      -> scratch: layer mask, or the tile's own stack
describe  scratch -> components, rows, border, spans          -> scratch: pieces
paint     pieces and their place in the stitching table       -> labels and their pyramid
Each writes its result whole and then its mark; doing a piece of work twice writes the same bytes.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import zarr

from flows.segmenters import SegmenterRef, loaded
from pipeline import measure, normalise
from pipeline.errors import BadStore
from pipeline.links import match_links
from pipeline.normalise import Histogram, Limits
from pipeline.segment import Traits, bits, bits_dtype, checked_answer
from pipeline.spans import Spans, spans_of_bits, spans_of_stack
from pipeline.spans import paint as painted
from pipeline.stitch import Pieces, border_spans, describe, from_bytes, to_bytes
from pipeline.store.images import Image
from pipeline.store.labels import BLOCK, LabelWriter
from pipeline.store.ledger import Ledger
from pipeline.tiling import Box, Tile, round_up, tiles


@dataclass(frozen=True, kw_only=True)
class Work:
    """All a worker has to know of an image; small, and pickled with every tile."""

    ledger: Ledger
    image: Image
    key: str
    """Name of the image in the scratch: its path and the digest of its pixels."""
    segmenter: SegmenterRef
    traits: Traits
    channels: tuple[int, ...]
    core: int
    halo: int

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width of a plane."""
        return self.image.shape[-2], self.image.shape[-1]

    def frame(self, plane: int) -> measure.Frame:
        """The plane as measurements see it."""
        return measure.Frame(*self.extent, plane=plane)

    def tiles(self) -> Iterable[Tile]:
        """Tiles of the network."""
        return tiles(self.extent, core=self.core, halo=self.halo, stride=self.traits.stride)

    def blocks(self) -> Iterable[Tile]:
        """Blocks in which labels are painted."""
        return tiles(self.extent, core=BLOCK)

    def units(self) -> Iterable[Tile]:
        """What is described at once: blocks of the mask, or tiles whose objects are numbered already."""
        return self.blocks() if self.traits.link == "touch" else self.tiles()

    def read(self, plane: int, box: Box) -> np.ndarray:
        """Pixels ``(C, y, x)`` of the job's channels, native dtype."""
        where = self.image.planes[plane]
        return self.image.read(where, self.channels, box.y0, box.y1, box.x0, box.x1)


@dataclass(frozen=True)
class Item:
    """One piece of work: a tile or block of a plane of an image."""

    work: Work
    plane: int
    tile: Tile

    @property
    def key(self) -> str:
        """Name of the mark."""
        return f"{self.plane}_{self.tile.key}"

    def __str__(self) -> str:
        path = self.work.image.path or "image"
        return f"{path} plane {self.plane} tile {self.tile.row},{self.tile.column}"


def value_range(item: Item) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and maximum per channel of a block."""
    return normalise.value_range(item.work.read(item.plane, item.tile.core))


def histogram(item: Item, low: np.ndarray, width: np.ndarray, bins: int) -> Histogram:
    """Histogram per channel of a block."""
    return normalise.histogram(item.work.read(item.plane, item.tile.core), low, width, bins)


def predict(item: Item, limits: Limits) -> dict[str, Any]:
    """Segment a tile and keep what lies in its core (touch) or in its whole read (match)."""
    work, tile = item.work, item.tile
    started = time.perf_counter()
    block = limits.apply(_finite(work.read(item.plane, tile.read)))
    read = time.perf_counter()
    layers = checked_answer(loaded(work.segmenter)(block), tile.read.shape, work.traits.name)
    answered = time.perf_counter()
    if work.traits.link == "touch":
        _write_mask(item, layers[(slice(None), *tile.core.within(tile.read))])
    else:
        work.ledger.write(_stack_key(work, item.key), to_bytes({"stack": _dense(layers)}))
    work.ledger.mark("predict", work.key, item.key)
    written = time.perf_counter()
    return {"read_s": read - started, "network_s": answered - read, "write_s": written - answered}


def _finite(block: np.ndarray) -> np.ndarray:
    """Refuse NaN and infinity also where no histogram was taken."""
    if block.dtype.kind == "f":
        normalise.value_range(block)
    return block


def _write_mask(item: Item, layers: np.ndarray) -> None:
    if layers.dtype != bool or len(layers) > item.work.traits.layers:
        traits = item.work.traits
        raise BadStore(
            f"segmenter {traits.name} said it returns {traits.layers} boolean layers, got {len(layers)} of "
            f"{layers.dtype}; give it the attributes link and layers that hold for every block"
        )
    core = item.tile.core
    mask_array(item.work)[item.plane, core.y0 : core.y1, core.x0 : core.x1] = bits(layers).astype(
        bits_dtype(item.work.traits.layers)
    )


def _dense(stack: np.ndarray) -> np.ndarray:
    """Number local objects 1 ... n in the order of their ids."""
    ids, inverse = np.unique(stack, return_inverse=True)
    start = 0 if len(ids) and ids[0] == 0 else 1
    return (inverse.reshape(stack.shape) + start).astype(np.uint32)


def _stack_key(work: Work, key: str) -> str:
    return f"stacks/{work.key}/{key}.npz"


def create_mask(work: Work) -> None:
    """Make the empty layer mask of an image, chunk = core, unless a run before this one did."""
    side = round_up(work.core, work.traits.stride)
    height, width = work.extent
    zarr.create_array(
        store=work.ledger.output.child(f"{work.ledger.folder}/mask/{work.key}").zarr_store(),
        shape=(len(work.image.planes), height, width),
        chunks=(1, min(side, height), min(side, width)),
        dtype=bits_dtype(work.traits.layers),
        fill_value=0,
        overwrite=True,
    )


def mask_array(work: Work) -> zarr.Array:
    """The layer mask of an image."""
    return _open_mask(work.ledger, work.key)


@lru_cache(maxsize=64)
def _open_mask(ledger: Ledger, key: str) -> zarr.Array:
    return zarr.open_array(store=ledger.output.child(f"{ledger.folder}/mask/{key}").zarr_store(), mode="r+")


def pieces_keys(item: Item) -> tuple[str, str]:
    """Keys of what `describe_unit` writes: what joining needs, and the spans that painting needs."""
    place = f"pieces/{item.work.key}/{item.key}"
    return f"{place}.rows.npz", f"{place}.spans.npz"


def describe_unit(item: Item, core_of_neighbour: Mapping[str, Box] | None = None) -> int:
    """Find the pieces of a unit, measure them and write what joining and painting need; their number."""
    work, core = item.work, item.tile.core
    channels = list(work.read(item.plane, core))
    if work.traits.link == "touch":
        mask = mask_array(work)[item.plane, core.y0 : core.y1, core.x0 : core.x1]
        pieces = describe(*spans_of_bits(np.asarray(mask)), core, work.frame(item.plane), channels=channels)
        extra = _border_columns(pieces, core)
    else:
        pieces, extra = _describe_stack(item, channels)
    rows, spans = pieces_keys(item)
    own = pieces.spans
    table = {
        "layer": own.layer,
        "y": own.y,
        "x0": own.x0,
        "x1": own.x1,
        "piece": pieces.span_piece.astype(np.uint32),
    }
    work.ledger.write(spans, to_bytes(table))
    facts = {"layer": pieces.layer, "pairs": pieces.pairs, "pair_pixels": pieces.pair_pixels}
    work.ledger.write(
        rows, to_bytes({f"row.{name}": column for name, column in pieces.rows.items()} | facts | extra)
    )
    return len(pieces)


def _border_columns(pieces: Pieces, core: Box) -> dict[str, np.ndarray]:
    spans, piece = border_spans(pieces, core)
    columns = {"layer": spans.layer, "y": spans.y, "x0": spans.x0, "x1": spans.x1, "piece": piece}
    return {f"border.{name}": column for name, column in columns.items()}


def _describe_stack(item: Item, channels: Sequence[np.ndarray]) -> tuple[Pieces, dict[str, np.ndarray]]:
    """Pieces of a tile that numbered its objects itself, and their links to the tiles after it."""
    work, tile = item.work, item.tile
    stack = _read_stack(work, item.key)
    y, x = tile.core.within(tile.read)
    spans, stretches, ids = spans_of_stack(np.ascontiguousarray(stack[:, y, x]))
    own, piece = np.unique(ids, return_inverse=True)
    pieces = describe(spans, stretches, tile.core, work.frame(item.plane), channels=channels, piece=piece)
    links, ambiguous = [], 0
    for other in _later_neighbours(work, tile):
        band = _common(tile.read, other.read)
        there = _read_stack(work, f"{item.plane}_{other.key}")
        matches = match_links(
            stack[(slice(None), *band.within(tile.read))], there[(slice(None), *band.within(other.read))]
        )
        place = np.full((len(matches.pairs), 2), (other.row, other.column))
        links.append(np.concatenate([matches.pairs, place], axis=1))
        ambiguous += len(matches.ambiguous)
    table = np.concatenate(links or [np.zeros((0, 4), np.int64)])
    return pieces, {"ids": own, "links": table, "ambiguous": np.array(ambiguous)}


def _read_stack(work: Work, key: str) -> np.ndarray:
    return from_bytes(work.ledger.read(_stack_key(work, key)))["stack"]


def _later_neighbours(work: Work, tile: Tile) -> list[Tile]:
    """The neighbours to the right and below, so that each pair of tiles is compared once."""
    wanted = {(tile.row, tile.column + 1), *((tile.row + 1, tile.column + step) for step in (-1, 0, 1))}
    return [other for other in work.tiles() if (other.row, other.column) in wanted]


def _common(a: Box, b: Box) -> Box:
    y0, x0 = max(a.y0, b.y0), max(a.x0, b.x0)
    return Box(y0, max(min(a.y1, b.y1), y0), x0, max(min(a.x1, b.x1), x0))


@dataclass(frozen=True)
class PaintItem:
    """A block to paint: the units that meet it, with id and output layer of each of their pieces."""

    item: Item
    units: tuple[Item, ...]
    ids: tuple[np.ndarray, ...]
    layers: tuple[np.ndarray, ...]
    writer: LabelWriter

    def __str__(self) -> str:
        return str(self.item)


def paint_block(todo: PaintItem) -> int:
    """Write a block of every output layer that has something in it, and its part of the pyramids."""
    item, work = todo.item, todo.item.work
    core = item.tile.core
    drawn = 0
    canvas: dict[int, np.ndarray] = {}
    for unit, ids, layers in zip(todo.units, todo.ids, todo.layers):
        spans, piece = _clipped(unit, core)
        for layer in np.unique(layers[ids > 0]):
            here = (layers == layer)[piece] & (ids > 0)[piece]
            if here.any():
                image = painted(spans.take(here), ids[piece[here]], core.shape)
                canvas[int(layer)] = canvas[int(layer)] + image if int(layer) in canvas else image
    for layer, image in canvas.items():
        todo.writer.write(work.image.planes[item.plane], layer, core.y0, core.x0, image)
        drawn += 1
    work.ledger.mark("paint", work.key, item.key)
    return drawn


def _clipped(unit: Item, box: Box) -> tuple[Spans, np.ndarray]:
    """Spans of a unit inside a block, in block coordinates, and their pieces."""
    table = from_bytes(unit.work.ledger.read(pieces_keys(unit)[1]))
    core = unit.tile.core
    y = table["y"] + np.int32(core.y0 - box.y0)
    x0 = np.maximum(table["x0"] + np.int32(core.x0 - box.x0), 0)
    x1 = np.minimum(table["x1"] + np.int32(core.x0 - box.x0), box.x1 - box.x0)
    inside = (y >= 0) & (y < box.y1 - box.y0) & (x0 < x1)
    none = np.zeros(len(y), bool)
    spans = Spans(layer=table["layer"], y=y, x0=x0, x1=x1, stretch=y, shared=none).take(inside)
    return spans, table["piece"][inside]
