"""From arrays to the pictures of a page: a grey image of bounded size with labelled SVG outlines over it.

Paths are in image pixels: the pixel at row 0, column 0 covers the square from (0, 0) to (1, 1). Every object of
a stack has an outline of its own, so objects that overlap are all visible.
Every picture gets a share of a byte budget, so that a page of hundreds stays small. Arrays come in through
callables; nothing here opens a store.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from scipy.ndimage import find_objects
from skimage.measure import approximate_polygon, find_contours

from pipeline.report.blocks import LegendEntry, Outline, Picture
from pipeline.report.overlay import (
    BRIGHTEST,
    eight_bit,
    encoded,
    encoded_lines,
    line_numbers,
    scaled_grey,
    shown_shape,
)
from pipeline.report.palette import layer_colour

PictureOf = Callable[[str], tuple[np.ndarray, np.ndarray | None, np.ndarray | None] | None]
"""``image name -> (grey (y, x), truth stack or None, prediction stack or None)``, or None without a picture.

The arrays of one picture have the same size; that may be a coarser level of a large image.
"""

WindowOf = Callable[[str, int, int, int, int], tuple[np.ndarray, np.ndarray | None]]
"""``(image name, y0, y1, x0, x1) -> (grey (h, w), prediction stack or None)`` at full resolution."""

LARGE_PX = 700
"""Longest side of a large picture."""

LARGE_BYTES = 70_000
"""Budget of a large picture."""

MOST_THUMBNAILS = 400
"""Images drawn as thumbnails; a 384-well plate with one field per well fits."""

THUMBNAIL_BYTES = 5_500_000
"""Budget of all thumbnails together."""

MOST_NAMED = 1500
"""Pictures with more objects get one outline per colour, without a name per object, so that a page stays quick."""


def thumbnail(
    anchor: str,
    title: str,
    grey: np.ndarray,
    lines: Callable[[tuple[int, int]], str],
    *,
    longest_px: int,
    budget_bytes: int,
    caption: str = "",
    group: str = "",
) -> Picture:
    """A small picture; ``lines`` draws the outlines at its size ``(y, x)``. The budget holds for both together."""
    shape = shown_shape((grey.shape[0], grey.shape[1]), longest_px)
    drawn = lines(shape)
    left = max(budget_bytes - len(drawn), budget_bytes // 2)
    return Picture(
        anchor=anchor,
        title=title,
        source=background(grey, longest_px=longest_px, budget_bytes=left),
        width=shape[1],
        height=shape[0],
        caption=caption,
        group=group,
        lines=drawn,
    )


def layer_lines(stack: np.ndarray | None) -> Callable[[tuple[int, int]], str]:
    """Draw the outlines of a label stack at a size, one colour per layer; nothing without a stack."""

    def draw(shape: tuple[int, int]) -> str:
        return "" if stack is None else encoded_lines(line_numbers(stack, shape))

    return draw


def thumbnail_px(number: int) -> int:
    """Longest side of the thumbnails of a gallery of so many."""
    return 480 if number <= 24 else 320 if number <= 96 else 240


def column_px(number: int) -> int:
    """Width of a column of the gallery of so many thumbnails, half their size."""
    return thumbnail_px(number) // 2


def background(grey: np.ndarray, *, longest_px: int = LARGE_PX, budget_bytes: int = LARGE_BYTES) -> str:
    """A darkened grey picture for outlines to lie on, as a data URI."""
    shape = shown_shape((grey.shape[0], grey.shape[1]), longest_px)
    return encoded(scaled_grey(eight_bit(grey, brightest=BRIGHTEST), shape), budget_bytes=budget_bytes)


def layer_outlines(stack: np.ndarray, *, shown_px: int = LARGE_PX) -> tuple[Outline, ...]:
    """Outline every object of a label stack, one colour and legend key per layer."""
    drawn = [
        Outline(
            path=path,
            colour=layer_colour(layer),
            key=f"layer{layer}",
            title=f"object {label}, output layer {layer}",
        )
        for label, layer, path in contours(stack, tolerance_px=tolerance_px(stack.shape[1:], shown_px))
    ]
    return merged(drawn)


def layer_legend(layers: int) -> tuple[LegendEntry, ...]:
    """What the colours of ``layer_outlines`` mean."""
    return tuple(
        LegendEntry(
            key=f"layer{layer}",
            label="objects" if layer == 0 else f"objects that overlap those above (layer {layer})",
            colour=layer_colour(layer),
        )
        for layer in range(layers)
    )


def merged(outlines: list[Outline]) -> tuple[Outline, ...]:
    """Keep outlines apart up to ``MOST_NAMED``; beyond, join those of one key, colour and dash into one path."""
    if len(outlines) <= MOST_NAMED:
        return tuple(outlines)
    joined: dict[tuple[str, str, bool], list[str]] = {}
    for outline in outlines:
        joined.setdefault((outline.key, outline.colour, outline.dashed), []).append(outline.path)
    return tuple(
        Outline(path="".join(paths), colour=colour, key=key, dashed=dashed)
        for (key, colour, dashed), paths in joined.items()
    )


def tolerance_px(shape: tuple[int, ...], shown_px: int) -> float:
    """Tolerance of the simplification of outlines: half a displayed pixel, at least half a pixel of the image."""
    return max(0.5, 0.5 * max(shape) / shown_px)


def fullest_part(stack: np.ndarray | None, shape: tuple[int, int], side_px: int) -> tuple[slice, slice]:
    """Return the window of a grid of ``side_px`` with most object pixels; the centre of an image without objects."""
    height, width = (min(side_px, length) for length in shape)
    tops = range(0, shape[0] - height + 1, max(1, height // 2))
    lefts = range(0, shape[1] - width + 1, max(1, width // 2))
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    if stack is not None and stack.any():
        filled = np.pad((stack > 0).any(axis=0).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        _, top, left = max((_sum(filled, y, x, height, width), -y, -x) for y in tops for x in lefts)
        top, left = -top, -left
    return slice(top, top + height), slice(left, left + width)


def _sum(prefix: np.ndarray, y: int, x: int, height: int, width: int) -> int:
    return int(prefix[y + height, x + width] - prefix[y, x + width] - prefix[y + height, x] + prefix[y, x])


def numbered(names: tuple[str, ...]) -> Mapping[str, str]:
    """Anchor of every image on the page: its number, because a name may hold anything."""
    return {name: f"image-{at}" for at, name in enumerate(names)}


def large_picture(
    anchor: str,
    title: str,
    grey: np.ndarray,
    outlines: tuple[Outline, ...],
    *,
    caption: str = "",
    group: str = "",
) -> Picture:
    """Lay outlines in pixels of ``grey`` over it."""
    return Picture(
        anchor=anchor,
        title=title,
        source=background(grey),
        width=grey.shape[1],
        height=grey.shape[0],
        caption=caption,
        group=group,
        outlines=outlines,
    )


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
