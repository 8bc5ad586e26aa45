"""The stages of the main job, as plain functions that run on any worker.

predict   read core and halo, normalise, network, layers      -> scratch: layer mask, or the label stack of the tile
describe  scratch -> components, rows, border, spans          -> scratch: pieces
Joining and painting have modules of their own. Each stage writes its whole result and then its mark; repeating a
unit of work writes the same bytes.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.execution.memory import keep_memory
from flows.execution.segmenters import SegmenterRef, loaded
from flows.segmentation.image_job import ImageJob, TileJob
from flows.segmentation.stages.layer_mask import read_mask, write_mask
from pipeline import focus, histogram
from pipeline.errors import BadArgument
from pipeline.histogram import Bins, Histogram
from pipeline.links import match_links
from pipeline.measure import class_areas
from pipeline.normalise import Limits
from pipeline.ownership import Ruling, Sight, ruled
from pipeline.segment import CLASS_STEP, bits, bits_dtype, checked_answer
from pipeline.spans import Runs, spans_of_bits, spans_of_stack
from pipeline.stitch import Pieces, border_spans, describe
from pipeline.store.ome.chunks.presence import check_chunks
from pipeline.tiling import Box, Tile


def ready(segmenter: SegmenterRef) -> None:
    """Load a segmenter, so that a segmenter that cannot be loaded or a missing GPU is reported before any work."""
    loaded(segmenter)


def check_pixels(work: ImageJob) -> None:
    """Refuse an image with lost chunks, which would be read as zeros."""
    check_chunks(work.image)


def count_codes(item: TileJob) -> np.ndarray:
    """Pixels of a block by channel and float code, from which the bins of its image are made."""
    core = item.tile.core
    return histogram.count_codes(item.work.read(item.plane, core), origin=(core.y0, core.x0))


def count_levels(job: tuple[TileJob, Bins]) -> Histogram:
    """Histogram per channel of a block, whose origin is at multiples of `histogram.CELL_PX`."""
    item, bins = job
    return histogram.histogram(
        item.work.read(item.plane, item.tile.core).astype(bins.dtype, copy=False), bins
    )


def predict(job: tuple[TileJob, Limits]) -> dict[str, Any]:
    """Segment a tile and write the layers of its core (touch) or the stack of its read (match); return the seconds."""
    keep_memory()
    item, limits = job
    started = time.perf_counter()
    block = network_input(item, limits)
    read = time.perf_counter()
    layers = loaded(item.work.segmenter)(block)
    answered = time.perf_counter()
    keep_answer(item, layers, block.shape[1:])
    written = time.perf_counter()
    return {"read_s": read - started, "network_s": answered - read, "write_s": written - answered}


def keep_answer(item: TileJob, answer: np.ndarray, shape: tuple[int, ...]) -> None:
    """Write what the segmenter made of a block ``(y, x)`` of ``shape`` into the scratch, and then the tile's mark."""
    work, tile = item.work, item.tile
    layers = checked_answer(answer, shape, work.traits.name)
    if work.rescaling:
        layers = work.rescaling.back(layers, work.rescaling.outer(tile.read), tile.read)
    if work.traits.link == "touch":
        _write_mask(item, layers[(slice(None), *tile.core.within(tile.read))])
    else:
        stack, ids = _dense(layers)
        codes = ids // CLASS_STEP if work.traits.classes else np.zeros(len(ids))
        if work.traits.classes and not np.isin(codes, np.arange(1, len(work.traits.classes) + 1)).all():
            raise BadArgument(
                f"segmenter {work.traits.name}: expected ids of the {len(work.traits.classes)} classes it named, "
                f"class * {CLASS_STEP} plus a number, got {int(ids.max())}"
            )
        columns = {"stack": stack, CLASSES: codes.astype(np.uint8)}
        work.ledger.write_columns(_stack_key(work, item.key), columns)
    work.ledger.mark("predict", work.key, item.key)


def network_input(item: TileJob, limits: Limits) -> np.ndarray:
    """Read and normalise the pixels of a tile, at the scale of the network."""
    work, box = item.work, item.tile.read
    rescaling = work.rescaling
    seen = rescaling.outer(box) if rescaling else box
    box = rescaling.support(seen) if rescaling else box
    raw = histogram.check_finite(work.read(item.plane, box), origin=(box.y0, box.x0))
    return rescaling.resample(limits.apply(raw), seen) if rescaling else limits.apply(raw)


def _write_mask(item: TileJob, layers: np.ndarray) -> None:
    traits = item.work.traits
    wrong = len(layers) != traits.mask_layers if traits.judged else len(layers) > traits.layers
    if layers.dtype != bool or wrong:
        raise BadArgument(
            f"segmenter {traits.name} said it returns {traits.mask_layers} boolean layers, got {len(layers)} of "
            f"{layers.dtype}; give it the attributes link and layers that hold for every block"
        )
    write_mask(item, bits(layers).astype(bits_dtype(traits.mask_layers)))


def _dense(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number local objects 1 ... n in the order of their ids; return the stack and the ids they had."""
    ids, inverse = np.unique(stack, return_inverse=True)
    start = 0 if len(ids) and ids[0] == 0 else 1
    return (inverse.reshape(stack.shape) + start).astype(np.uint32), ids[ids > 0]


def _stack_key(work: ImageJob, key: str) -> str:
    return f"stacks/{work.key}/{key}.safetensors"


ROW, BORDER, OVERLAP, QUALITY = "row.", "border.", "overlap.", "quality."
"""Prefixes in what describing writes: additive columns, spans at the border of the block, shared pixels, and sums for
focus and saturation."""

CLASSES = "classes"
"""Class of each object of a tile's stack, by its local number."""

RUNS = ".runs.safetensors"
"""Ending of the key that `describe_unit` writes last: a unit with such a key has been described."""


def pieces_keys(item: TileJob) -> tuple[str, str]:
    """Keys that `describe_unit` writes: the rows for joining and measuring, then the runs for painting."""
    place = f"pieces/{item.work.key}/{item.key}"
    return f"{place}.rows.safetensors", f"{place}{RUNS}"


def describe_unit(item: TileJob) -> int:
    """Find and measure the pieces of a unit and write their rows and runs; return their number."""
    keep_memory()
    work, core = item.work, item.tile.core
    block = work.read(item.plane, core, work.measured)
    channels = list(block)
    if work.traits.link == "touch":
        mask, certain = _judged(work, read_mask(work, item.plane, core))
        pieces = describe(
            *spans_of_bits(mask), core, work.frame(item.plane), channels=channels, certain=certain
        )
        extra = _border_columns(pieces, core)
    else:
        pieces, extra = _describe_stack(item, channels)
    rows, runs = pieces_keys(item)
    quality = focus.quality_sums(block, _cells(item, block))
    layer = {"layer": pieces.layer}
    tables = {ROW: pieces.rows, OVERLAP: pieces.overlaps, QUALITY: quality, "": layer | extra}
    work.ledger.write_columns(
        rows, {f"{p}{name}": column for p, t in tables.items() for name, column in t.items()}
    )
    work.ledger.write_columns(runs, _run_columns(pieces, core))
    return len(pieces)


def _judged(work: ImageJob, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Part a layer mask into the layers of objects and, where objects are judged, the pixels that count for them."""
    if not work.traits.judged:
        return mask, None
    last = mask.dtype.type(work.traits.layers)
    return mask & ~(mask.dtype.type(1) << last), (mask >> last).astype(bool)


def _cells(item: TileJob, block: np.ndarray) -> np.ndarray:
    """Pixels of the focus cells that start in a unit, of which ``block`` holds the pixels."""
    core = item.tile.core
    cells = focus.cells_over(core, item.work.extent)
    if 0 in cells.shape:  # The rest of an image at its border can be smaller than a cell.
        return block[:, :0, :0]
    if core.intersection(cells) == cells:
        return block[(slice(None), *cells.within(core))]
    return item.work.read(item.plane, cells, item.work.measured)


def _run_columns(pieces: Pieces, core: Box) -> dict[str, np.ndarray]:
    """The runs of a unit as columns of the smallest integer type, in coordinates of the unit."""
    runs, place = pieces.runs, np.min_scalar_type(max(core.shape))
    columns = {"y": runs.y, "x0": runs.x0, "x1": runs.x1}
    return {name: column.astype(place) for name, column in columns.items()} | {
        "piece": runs.value.astype(np.uint32)
    }


def read_runs(item: TileJob) -> Runs:
    """Read the runs of a unit, in its coordinates, with the numbers of their pieces."""
    table = item.work.ledger.read_columns(pieces_keys(item)[1])
    y, x0, x1 = (table[name].astype(np.int32) for name in ("y", "x0", "x1"))
    return Runs(y, x0, x1, table["piece"])


def _border_columns(pieces: Pieces, core: Box) -> dict[str, np.ndarray]:
    spans, piece = border_spans(pieces, core)
    columns = {"layer": spans.layer, "y": spans.y, "x0": spans.x0, "x1": spans.x1, "piece": piece}
    return {f"{BORDER}{name}": column for name, column in columns.items()}


def _describe_stack(item: TileJob, channels: Sequence[np.ndarray]) -> tuple[Pieces, dict[str, np.ndarray]]:
    """Pieces of a tile whose segmenter numbers objects, and their links to other tiles."""
    work, tile = item.work, item.tile
    sight = _sight(item, tile)
    ruling = _ruling(item, sight)
    spans, stretches, ids = spans_of_stack(np.ascontiguousarray(ruling.stack))
    labels, piece = np.unique(ids, return_inverse=True)
    pieces = describe(spans, stretches, tile.core, work.frame(item.plane), channels=channels, piece=piece)
    if work.traits.classes:
        classes = _classes(item, ruling)[labels - 1]
        pieces.rows.update(class_areas(pieces.rows["area"], classes, len(work.traits.classes)))
    links = [(number, part.label, *_place(part.source)) for number, part in ruling.adopted.items()]
    scores, ambiguous = [1.0] * len(links), 0
    for other in _neighbours(work, tile, LATER):
        band = tile.read.intersection(other.read)
        matches = match_links(sight.over(band), _sight(item, other).over(band))
        links += [(mine, theirs, *_place(other)) for mine, theirs in matches.pairs.tolist()]
        scores += matches.scores.tolist()
        ambiguous += len(matches.ambiguous)
    found = {"links": np.array(links, np.int64).reshape(-1, 4), "scores": np.array(scores, np.float64)}
    return pieces, {"ids": labels, "ambiguous": np.array(ambiguous)} | found


def _ruling(item: TileJob, sight: Sight) -> Ruling:
    """The objects of a core: those that the tile found, or those that the tiles with their centres found."""
    if item.work.traits.owner == "core":
        return Ruling(sight.over(item.tile.core), {})
    return ruled(sight, [_sight(item, other) for other in _neighbours(item.work, item.tile, AROUND)])


def _classes(item: TileJob, ruling: Ruling) -> np.ndarray:
    """Classes of the objects of a tile, and after them those of adopted objects, in the order of their numbers."""

    def read(tile: Tile) -> np.ndarray:
        key = _stack_key(item.work, f"{item.plane}_{tile.key}")
        return item.work.ledger.read_columns(key)[CLASSES]

    added = [read(part.source)[part.label - 1] for part in ruling.adopted.values()]
    return np.concatenate([read(item.tile), np.array(added, np.uint8)])


def _sight(item: TileJob, tile: Tile) -> Sight:
    """What a tile of the plane of ``item`` found."""
    key = _stack_key(item.work, f"{item.plane}_{tile.key}")
    return Sight(tile, item.work.ledger.read_columns(key)["stack"], item.work.extent)


def _place(tile: Tile) -> tuple[int, int]:
    return tile.row, tile.column


LATER = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Steps along rows and columns to the right neighbour and those below, so that each pair of tiles is compared once."""

AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), *LATER)
"""Steps to all neighbours, in raster order."""


def _neighbours(work: ImageJob, tile: Tile, steps: Sequence[tuple[int, int]]) -> list[Tile]:
    neighbours = [work.tile(tile.row + down, tile.column + right) for down, right in steps]
    return [other for other in neighbours if other is not None]
