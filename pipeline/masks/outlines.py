"""Outlines of objects as polygons, and polygons as pixels: exact in both directions.

Outlines run along the edges between pixels, so their vertices are integers and a pixel (y, x) spans
``x .. x + 1``, ``y .. y + 1`` (the convention of QuPath, ImageJ and COCO). A polygon covers a pixel when it covers
its centre; centres on an edge belong to the polygon on the right and below, so neighbours never share a pixel.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from pipeline.masks.objects import MaskObject, object_of_runs

Ring = np.ndarray
"""Vertices ``(n, 2)`` as (x, y); the last one is joined to the first."""

Polygon = list[Ring]
"""An outer ring, and the rings of its holes."""


def polygons_of(item: MaskObject) -> list[Polygon]:
    """Return the outline of an object: a polygon per 4-connected part, with its holes, vertices int64.

    Parts that touch at a corner only are polygons of their own, which share that point.
    """
    mask = item.crop()
    top, _, left, _ = item.box
    outer: list[Ring] = []
    holes: list[Ring] = []
    for ring in _rings(mask):
        x, y = ring[0]
        is_outer = y < mask.shape[0] and x < mask.shape[1] and mask[y, x]
        (outer if is_outer else holes).append(ring)
    offset = np.array([left, top])
    if not holes or len(outer) == 1:
        polygons = [[ring] for ring in outer]
        polygons[0] += holes
    else:
        parts, _ = ndimage.label(mask)
        owner = {int(parts[ring[0][1], ring[0][0]]): [ring] for ring in outer}
        for ring in holes:  # the pixel above a hole's first vertex belongs to the part around it
            owner[int(parts[ring[0][1] - 1, ring[0][0]])].append(ring)
        polygons = list(owner.values())
    return [[ring + offset for ring in polygon] for polygon in polygons]


def _rings(mask: np.ndarray) -> list[Ring]:
    """Trace all closed outlines of a mask, each from its topmost, leftmost vertex to the right.

    In a row of pixel corners, outline vertices sorted by x are joined two by two; likewise in a column. Where two
    pixels touch at a corner only, the vertex counts twice, once for each pixel.
    """
    x, y, beside, below = _vertices(mask)
    right = _partners(np.lexsort((beside, x, y)))
    down = _partners(np.lexsort((below, y, x)))
    visited = bytearray(len(x))
    points = np.stack([x, y], axis=1)
    rings: list[Ring] = []
    for start in np.lexsort((beside, x, y)).tolist():
        if visited[start]:
            continue
        path, vertex = [], start
        while not visited[vertex]:
            other = right[vertex]
            visited[vertex] = visited[other] = 1
            path += [vertex, other]
            vertex = down[other]
        rings += _simple(points[path])
    return rings


def _simple(ring: Ring) -> list[Ring]:
    """Cut a ring at the points that it visits twice, so that a hole that touches the outline becomes a hole.

    Each ring that is returned begins with its topmost, leftmost vertex.
    """
    path = [(int(x), int(y)) for x, y in ring]
    if len(set(path)) == len(path):
        return [ring]
    loops: list[Ring] = []
    stack: list[tuple[int, int]] = []
    for point in path:
        if point in stack:
            start = stack.index(point)
            loops.append(_from_first(stack[start:]))
            del stack[start:]
        stack.append(point)
    return [*loops, _from_first(stack)]


def _from_first(path: list[tuple[int, int]]) -> Ring:
    first = min(range(len(path)), key=lambda index: (path[index][1], path[index][0]))
    return np.array(path[first:] + path[:first])


def _vertices(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the corners of a mask's outline: x, y, and the order of twins within their row and their column."""
    wide = np.pad(mask, 1)
    nw, ne, sw, se = wide[:-1, :-1], wide[:-1, 1:], wide[1:, :-1], wide[1:, 1:]
    corner = nw ^ ne ^ sw ^ se
    falling = nw & se & ~ne & ~sw
    rising = ne & sw & ~nw & ~se
    columns: list[list[np.ndarray]] = []
    for where, twins in ((corner, [(0, 0)]), (falling, [(0, 0), (1, 1)]), (rising, [(0, 1), (1, 0)])):
        y, x = np.nonzero(where)
        for beside, below in twins:
            columns.append([x, y, np.full(len(x), beside), np.full(len(x), below)])
    joined = [np.concatenate(parts) for parts in zip(*columns)]
    return joined[0], joined[1], joined[2], joined[3]


def _partners(order: np.ndarray) -> list[int]:
    """Join the first with the second, the third with the fourth, ... of an order."""
    partner = np.empty(len(order), np.int64)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner.tolist()


def object_of_rings(label: int, rings: Sequence[Ring]) -> MaskObject:
    """Return the pixels whose centres lie inside of an odd number of rings (a polygon, its holes, its other parts)."""
    closed = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in rings if len(ring) > 2]
    if not closed:
        nothing = np.zeros(0, np.int64)
        return MaskObject(label, nothing, nothing, nothing)
    start = np.concatenate(closed)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in closed])
    swap = start[:, 1] > end[:, 1]
    start[swap], end[swap] = end[swap], start[swap]
    first = np.ceil(start[:, 1] - 0.5).astype(np.int64)
    count = np.ceil(end[:, 1] - 0.5).astype(np.int64) - first
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (end - start)[edge]
    crossing = start[edge, 0] + (row + 0.5 - start[edge, 1]) * slope[:, 0] / slope[:, 1]
    order = np.lexsort((crossing, row))
    column = np.ceil(crossing[order] - 0.5).astype(np.int64)
    y, x0, x1 = row[order][0::2], column[0::2], column[1::2]
    full = x0 < x1
    return object_of_runs(label, y[full], x0[full], x1[full])
