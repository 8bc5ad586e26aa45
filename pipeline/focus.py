"""Focus and saturation of an image, from sums over blocks that add up exactly for any cut of the image.

Focus is the normalised energy of the Laplacian (Subbarao, Choi and Nikzad, "Focusing techniques", Optical Engineering
32, 1993; Pertuz, Puig and Garcia, Pattern Recognition 46, 2013): the mean square of the Laplacian over the variance of
the image, both on squares of 4 px. Each square is summed twice, over the black and over the white pixels of a
checkerboard, and the square of a number is replaced by the product of both: noise of single pixels then cancels on
average, so that a dim sharp image has the focus of a bright one. The Laplacian is taken inside of cells of 16 px, which
start at multiples of 16 px of the image; a block counts the cells that start in it. Pure numpy.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.measure import Columns
from pipeline.tiling import Box, round_up

SQUARE_PX = 4
"""Side of the squares that are summed: finer detail is noise more often than signal."""

CELL_SQUARES = 4
"""Squares along the side of a cell; the Laplacian is taken at those in its middle."""

CELL_PX = CELL_SQUARES * SQUARE_PX

MAD_OF_NORMAL = 0.674490
"""Median absolute deviation of the standard normal distribution."""

LEAST_CORRELATION = 0.2
"""Correlation of the two halves below which an image has too little structure to have a focus."""


def cells_over(core: Box, extent: tuple[int, int]) -> Box:
    """The complete cells of an image of height and width ``extent`` that start in a block; empty if there are none."""
    y0, y1 = _cell_range(core.y0, core.y1, extent[0])
    x0, x1 = _cell_range(core.x0, core.x1, extent[1])
    return Box(y0, y1, x0, x1)


def _cell_range(start: int, stop: int, length: int) -> tuple[int, int]:
    first, last = round_up(start, CELL_PX), min(round_up(stop, CELL_PX), length // CELL_PX * CELL_PX)
    return min(first, last), last


def quality_sums(block: np.ndarray, cells: np.ndarray) -> Columns:
    """Add up a block for `focus_of` and `saturation_of`; every column has one value per channel.

    Args:
        block: pixels ``(C, y, x)`` of the block.
        cells: pixels ``(C, y, x)`` of the cells that start in it (`cells_over`).
    """
    rows = [_top_values(pixels) | _contrast(part) for pixels, part in zip(block, cells, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _contrast(pixels: np.ndarray) -> dict[str, np.generic | int]:
    """Sums of both halves of every square, of their products, and of the products of their Laplacians."""
    exact = pixels.dtype.kind != "f" and pixels.dtype.itemsize <= 2
    black, white = _squares(pixels, exact=exact)
    return {
        "squares": black.size,
        "black": black.sum(),
        "white": white.sum(),
        "black_black": np.square(black).sum(),
        "white_white": np.square(white).sum(),
        "black_white": (black * white).sum(),
        "laplacians": (_laplacian(black) * _laplacian(white)).sum(),
    }


def _squares(pixels: np.ndarray, *, exact: bool) -> list[np.ndarray]:
    """Sums of the pixels of each colour of the checkerboard over each square, two arrays of int64 or float64."""
    kind = np.dtype(np.int32 if exact else np.float64)
    # Whole rows first: half of the additions are then over contiguous pixels.
    even, odd = (np.add(pixels[y::SQUARE_PX], pixels[y + 2 :: SQUARE_PX], dtype=kind) for y in (0, 1))
    sums = []
    for colour in (0, 1):
        rows = (even[:, colour:], odd[:, 1 - colour :])
        total = sum(row[:, x::SQUARE_PX] for row in rows for x in (0, 2)).astype(np.int64 if exact else kind)
        if exact:
            # Centred at the middle of the type: variances stay equal, and squares of a block fit into 64 bits.
            total -= SQUARE_PX**2 // 2 * (int(np.iinfo(pixels.dtype).max) // 2)
        sums.append(total)
    return sums


def _laplacian(squares: np.ndarray) -> np.ndarray:
    """Laplacian at the middle squares of each cell, from squares of the same cell only."""
    rows, columns = (length // CELL_SQUARES for length in squares.shape)
    cells = squares.reshape(rows, CELL_SQUARES, columns, CELL_SQUARES)
    middle, before, after = slice(1, -1), slice(0, -2), slice(2, None)
    result: np.ndarray = 4 * cells[:, middle, :, middle]
    for y, x in ((before, middle), (after, middle), (middle, before), (middle, after)):
        result -= cells[:, y, :, x]
    return result


def _top_values(pixels: np.ndarray) -> dict[str, np.generic | int]:
    """The two largest values of a block, the number of pixels of each, and the number of all pixels."""
    rows = pixels.max(axis=1)
    top = rows.max()
    brightest = pixels[rows == top]
    below = np.concatenate([rows[rows < top], brightest[brightest < top]])
    second = below.max() if below.size else top
    return {
        "px": pixels.size,
        "top": top,
        "at_top": int(np.count_nonzero(brightest == top)),
        "second": second,
        "at_second": int(np.count_nonzero(pixels == second)) if second < top else 0,
    }


def focus_of(parts: Sequence[Columns], channel: int) -> float:
    """Focus of a channel of an image, from the sums of all its blocks; NaN where there is only noise.

    Sharp images have about 0.3 to 1, images that are blurred by several pixels a tenth of that.
    """
    names = ("squares", "black", "white", "black_black", "white_white", "black_white", "laplacians")
    count, black, white, square_black, square_white, product, laplacians = (
        sum(part[name][channel].item() for part in parts) for name in names
    )
    # Exact integers up to this line; each term is the squared number of squares times a variance.
    common = count * product - black * white
    spread = (count * square_black - black**2) * (count * square_white - white**2)
    if spread <= 0 or common < LEAST_CORRELATION * math.sqrt(spread):
        return math.nan
    return laplacians * count * CELL_SQUARES**2 / (CELL_SQUARES - 2) ** 2 / common


def saturation_of(parts: Sequence[Columns], channel: int) -> float:
    """Share of the pixels of a channel that are clipped, from the sums of all blocks of an image; NaN for one value.

    Pixels of the largest value are clipped where that is the largest of its integer type, or where they pile up:
    where they are more than those of the next smaller value. Otherwise the share is 0.
    """
    counts: dict[int | float, int] = {}
    for part in parts:
        for value, count in (("top", "at_top"), ("second", "at_second")):
            level = part[value][channel].item()
            counts[level] = counts.get(level, 0) + part[count][channel].item()
    second, top = sorted(counts)[-2:] if len(counts) > 1 else (None, next(iter(counts)))
    dtype = parts[0]["top"].dtype
    if dtype.kind in "iu" and top == np.iinfo(dtype).max:
        piled = True
    elif second is None or not math.isfinite(top):
        return math.nan
    else:
        piled = counts[top] > counts[second]
    return counts[top] / sum(part["px"][channel].item() for part in parts) if piled else 0.0


BLURRED, SATURATED = "out of focus", "saturated"
"""Flags of images."""

FEWEST_IMAGES = 5
"""Least number of images in a run for a comparison of their focus."""

BLURRED_SHARE = 0.4
"""Share of the median focus below which an image may be out of focus."""

BLURRED_DEVIATIONS = 5.0
"""Robust standard deviations of the logarithm of the focus by which such an image must also be below the median."""

SATURATED_SHARE = 0.001
"""Share of clipped pixels from which a channel of an image is called saturated."""


def flags(
    focus: Mapping[str, Mapping[str, float | None]], saturated: Mapping[str, Mapping[str, float | None]]
) -> dict[str, list[str]]:
    """Flags of the images of a run: `BLURRED` and `SATURATED`, with the channels they concern.

    Args:
        focus: focus by image and channel.
        saturated: share of clipped pixels, likewise.

    Returns:
        ``{image: ["out of focus (DAPI)", "saturated (GFP)"]}``, without images that have no flag.
    """
    reasons: dict[str, list[str]] = {}
    names = dict.fromkeys(channel for values in focus.values() for channel in values)
    blurred: dict[str, list[str]] = {}
    for channel in names:
        values = np.array([_number(by_channel.get(channel)) for by_channel in focus.values()])
        for image, is_blurred in zip(focus, out_of_focus(values)):
            if is_blurred:
                blurred.setdefault(image, []).append(channel)
    clipped = {
        image: [channel for channel, share in values.items() if (share or 0) >= SATURATED_SHARE]
        for image, values in saturated.items()
    }
    for flag, channels in ((BLURRED, blurred), (SATURATED, clipped)):
        for image, concerned in channels.items():
            if concerned:
                reasons.setdefault(image, []).append(f"{flag} ({', '.join(concerned)})")
    return reasons


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def out_of_focus(values: np.ndarray) -> np.ndarray:
    """Find the images of a run that are far less sharp than the others, by their focus in one channel (NaN: unknown).

    An image is out of focus below `BLURRED_SHARE` of the median of the run and `BLURRED_DEVIATIONS` standard deviations
    below it, which come from the median absolute deviation of the logarithms; never among fewer than `FEWEST_IMAGES`.
    """
    known = np.isfinite(values)
    if known.sum() < FEWEST_IMAGES:
        return np.zeros(len(values), bool)
    logs = np.log(np.maximum(np.where(known, values, 1.0), 1e-6))
    median = np.median(logs[known])
    deviation = float(np.median(np.abs(logs[known] - median))) / MAD_OF_NORMAL
    limit = min(math.log(BLURRED_SHARE), -BLURRED_DEVIATIONS * deviation)
    return known & (logs - median < limit)
