"""Outlines of objects as SVG paths, which stay thin and crisp at any size, on a phone and in print.

Paths are in image pixels: the pixel at row 0, column 0 covers the square from (0, 0) to (1, 1). Every object of
a stack is drawn by itself, so those that overlap are both visible. Knows arrays only.
"""

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import find_objects
from skimage.measure import approximate_polygon, find_contours


def contours(stack: np.ndarray, *, tolerance_px: float = 0.6) -> Iterator[tuple[int, int, str]]:
    """Yield ``(id, layer, SVG path)`` of every object of a label stack ``(L, y, x)``, by layer, then by id.

    Holes are further rings of the same path. ``tolerance_px`` is how far a straight piece may be from the line.
    """
    for index, layer in enumerate(stack):
        dense, ids = _dense(layer)
        for number, box in enumerate(find_objects(dense), start=1):
            if box is not None:
                yield int(ids[number - 1]), index, _path(dense[box] == number, box, tolerance_px)


def line(y0: float, x0: float, y1: float, x1: float) -> str:
    """A straight line as an SVG path."""
    return f"M{_text(x0)} {_text(y0)}L{_text(x1)} {_text(y1)}"


def _dense(layer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # find_objects returns a list as long as the largest id, which may be in the millions
    ids = np.unique(layer)
    ids = ids[ids > 0]
    dense = np.searchsorted(ids, layer) + 1
    return np.where(layer > 0, dense, 0), ids


def _path(mask: np.ndarray, box: tuple[slice, slice], tolerance_px: float) -> str:
    padded = np.pad(mask, 1)
    rings = find_contours(padded.astype(np.uint8), 0.5, fully_connected="high")
    # -1 for the padding, +0.5 because a pixel's centre is half a pixel from its corner
    corner = np.array([box[0].start - 0.5, box[1].start - 0.5])
    return "".join(_ring(_simple(ring, tolerance_px) + corner) for ring in rings)


def _simple(ring: np.ndarray, tolerance_px: float) -> np.ndarray:
    points = approximate_polygon(ring, tolerance_px)
    return points if len(points) > 3 else ring  # a speck of a pixel or two would collapse to a line


def _ring(points: np.ndarray) -> str:
    pairs = [f"{_text(x)} {_text(y)}" for y, x in points[:-1]]
    return "M" + "L".join(pairs) + "Z"


def _text(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
