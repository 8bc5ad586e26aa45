"""Exact stitching: pieces of objects in blocks become objects of the image, independent of the division into blocks.

Each block is *described* separately (pieces, their additive rows, the spans at its border). The descriptions of an
image are *joined* once, in one process: links, components, filters on whole objects, canonical ids, output layers. The
image itself is never held in memory. These are pure functions of values, without storage or scheduler.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as value
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from pipeline import measure
from pipeline.errors import BadArgument
from pipeline.measure import Columns, Frame
from pipeline.spans import Runs, Spans, Stretches, components, runs_of
from pipeline.stack import MAX_ID, assign_layers
from pipeline.tiling import Box


@value(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", use_attribute_docstrings=True))
class Filters:
    """Filters of objects, applied to whole objects after stitching."""

    min_area: Annotated[int | None, Field(ge=0)] = None
    """Smallest area in px; default: what the model's card says."""
    max_area: Annotated[int | None, Field(ge=1)] = None
    """Largest area in px; default: no limit."""
    drop_edge: bool = False
    """Drop objects that touch the edge of the image."""

    def passing(self, rows: Columns) -> np.ndarray:
        """Return which objects pass the filters."""
        kept = rows["area"] >= (self.min_area or 0)
        if CERTAIN in rows:
            kept &= 2 * rows[CERTAIN] > rows["area"]
        if self.max_area is not None:
            kept &= rows["area"] <= self.max_area
        return kept & (rows["edge"] == 0) if self.drop_edge else kept


@dataclass(frozen=True)
class Pieces:
    """The pieces of objects in a block. Piece i is row i of ``rows``."""

    rows: Columns
    """Additive columns (see `pipeline.measure`), one row per piece."""
    layer: np.ndarray
    """Network layer of each piece."""
    overlaps: Columns
    """Pixels that several pieces cover, see `pipeline.measure.overlaps`."""
    runs: Runs
    """The runs of the block, in block coordinates, with their pieces."""
    spans: Spans
    """All spans of the block, in block coordinates."""
    span_piece: np.ndarray
    """Piece of each span."""

    def __len__(self) -> int:
        return len(self.layer)


def describe(
    spans: Spans,
    stretches: Stretches,
    box: Box,
    frame: Frame,
    *,
    channels: Sequence[np.ndarray] = (),
    piece: np.ndarray | None = None,
    certain: np.ndarray | None = None,
) -> Pieces:
    """Find the pieces of a block and sum their rows.

    Args:
        spans: spans of the block, in block coordinates.
        stretches: the cut points the spans refer to.
        box: position of the block in the image.
        frame: the image plane.
        channels: intensity images ``(y, x)`` of the block, native dtype.
        piece: piece of each span where it is already known (methods that number objects themselves); each of
            0 ... max must occur. Default: the 8-connected components of each layer.
        certain: pixels ``(y, x)`` by which whole objects are judged, bool; their number is the column `CERTAIN`.
    """  # fmt: skip
    if piece is None:
        piece, count = components(spans)
    else:
        count = int(piece.max()) + 1 if len(piece) else 0
    runs = runs_of(spans, piece)
    rows = measure.merge(measure.shapes(runs, box, frame), runs.value, count)
    covered = measure.covered_pixels(spans, stretches)
    columns: Columns = {}
    for number, channel in enumerate(channels):
        columns |= measure.intensities(covered, channel, number)
    rows |= measure.merge(columns, piece, count)
    if certain is not None:
        pixels = measure.counted(spans, stretches, certain)
        rows[CERTAIN] = np.bincount(piece, pixels, minlength=count).astype(np.int64)
    layer = np.zeros(count, np.uint8)
    layer[piece] = spans.layer
    columns["area"] = (spans.x1 - spans.x0).astype(np.int64)
    return Pieces(rows, layer, measure.overlaps(spans, piece, columns), runs, spans, piece)


def border_spans(pieces: Pieces, box: Box) -> tuple[Spans, np.ndarray]:
    """Spans that touch the border of the block, in image coordinates, and their pieces."""
    spans, (height, width) = pieces.spans, box.shape
    at_border = (spans.y == 0) | (spans.y == height - 1) | (spans.x0 == 0) | (spans.x1 == width)
    return spans.take(at_border).moved(box.y0, box.x0), pieces.span_piece[at_border]


DECIDING = ("area", "edge", "first")
"""Columns by which objects are filtered and numbered."""

CERTAIN = "certain"
"""Column of judged objects: an object stays if it is more than half of the area."""


@dataclass(frozen=True)
class Objects:
    """The objects of an image plane after filters; object i has canonical rank i in its plane."""

    layer: np.ndarray
    """Output layer, uint8."""
    area: np.ndarray
    """Area in px."""
    pairs: np.ndarray
    """``(n, 2)`` objects that overlap."""
    pair_pixels: np.ndarray
    """Pixels they share."""
    of_piece: np.ndarray
    """Object of each piece over all blocks, -1 where a filter dropped it."""

    def __len__(self) -> int:
        return len(self.layer)

    def ids_and_layers(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rank + 1 (uint32, 0 where dropped) and output layer of ``count`` pieces from number ``first`` on."""
        of_piece = self.of_piece[first : first + count]
        kept = of_piece >= 0
        layer = np.zeros(len(of_piece), np.uint8)
        layer[kept] = self.layer[of_piece[kept]]
        return (of_piece + 1).astype(np.uint32), layer


def join(
    rows: Columns,
    layer: np.ndarray,
    links: np.ndarray,
    pairs: np.ndarray,
    pair_pixels: np.ndarray,
    filters: Filters,
) -> Objects:
    """Reduce the pieces of all blocks to objects.

    Args:
        rows: the `DECIDING` columns of all pieces, and `CERTAIN` where objects are judged; others are ignored.
        layer: their network layers.
        links: ``(n, 2)`` pieces that are one object.
        pairs: ``(n, 2)`` pieces that share pixels.
        pair_pixels: how many.
        filters: applied to whole objects.

    Canonical ids are the rank of an object's first pixel in raster order, ties by network layer, so they do
    not depend on how the image was cut. Cost: sorts of pieces and links, O(n log n).
    """  # fmt: skip
    count = len(layer)
    total, group = _linked(links, count)
    merged = measure.Merger(group, total)
    # Layers of a group agree for `touch`; for `match` the smallest decides between equal first pixels.
    smallest = np.full(total, 255, np.uint8)
    np.minimum.at(smallest, group, layer)
    deciding = {name: merged(name, rows[name]) for name in (*DECIDING, CERTAIN) if name in rows}
    order = np.flatnonzero(filters.passing(deciding))
    order = order[np.lexsort((smallest[order], deciding["first"][order]))]
    rank = np.full(total, -1, np.int64)
    rank[order] = np.arange(len(order))
    of_piece = rank[group] if count else np.zeros(0, np.int64)
    if len(order) > MAX_ID:
        raise BadArgument(f"expected at most {MAX_ID} objects in an image, got {len(order)}; raise min_area")
    both = of_piece[pairs] if len(pairs) else np.zeros((0, 2), np.int64)
    real = (both >= 0).all(axis=1) & (both[:, 0] != both[:, 1])
    final, pixels = measure.add_pairs(np.sort(both[real], axis=1), pair_pixels[real])
    return Objects(assign_layers(len(order), final), deciding["area"][order], final, pixels, of_piece)


def _linked(links: np.ndarray, count: int) -> tuple[int, np.ndarray]:
    """Number of objects and object of each piece."""
    if not len(links):
        return count, np.arange(count)
    graph = csr_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)


def whole(rows: Columns, of_piece: np.ndarray, count: int) -> Columns:
    """Additive rows of whole objects, from those of their pieces; each column is taken out of ``rows``.

    ``of_piece``: object of each piece, 0 to ``count`` - 1, or -1 for none; each object has a piece.
    """
    kept = np.flatnonzero(of_piece >= 0)
    merged = measure.Merger(of_piece[kept], count)
    # Column by column, each in the place of the one before: millions of rows are not held twice.
    return {name: merged(name, rows.pop(name)[kept]) for name in list(rows)}
