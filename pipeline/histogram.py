"""Histograms of intensities and of noise that add up exactly over any cut of an image into blocks.

Integers of up to 16 bit have one bin per value. Float and wider integer pixels are counted twice: first by the
upper 16 bits of their order-preserving float32 code (`count_codes`), which no outlier can stretch, then in bins
that divide the codes where the pixels are (`make_bins`): a bin is never wider than 1/128 of its value, and no bin
finer than a code holds more than about 1/65,536 of the pixels, so percentiles are that exact.

Noise is counted in cells of 8 x 8 px at multiples of 8: blocks whose origins are multiples of 8 add up exactly.
Pure numpy.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from pipeline.errors import BadArgument, BadStore

CODES = 65536
"""Number of 16-bit float codes, and of bins that are divided among them."""

CELL_PX = 8
"""Side of a noise cell; origins of blocks must be multiples of it."""

TEXTURED = 0.75
"""Share of the 2 x 2 px quads of a cell that must hold different values for the cell to count as textured: flat
(padded, saturated, masked) regions carry no noise, and the sharp outline of an object leaves its cells partly flat."""

TEXTURED_CELLS = 0.05
"""Share of textured cells below which the noise of an image counts as unknown, that is 0."""

HALF_NORMAL_MEDIAN = 0.674490
"""Median of ``|x|`` for a standard normal ``x``."""


@dataclass(frozen=True)
class Bins:
    """The bins of a histogram: one per value, or ``starts`` (C, 65537), the first bin of each float code by channel."""

    dtype: np.dtype
    starts: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of bins of a channel."""
        if self.starts is not None:
            return int(self.starts[:, -1].max())
        info = np.iinfo(np.uint8 if self.dtype.kind == "b" else self.dtype)
        return int(info.max) - int(info.min) + 1

    def index(self, pixels: np.ndarray, channel: int) -> np.ndarray:
        """Bin of each pixel of a channel."""
        if self.starts is None:
            return pixels.astype(np.int64) - self._lowest if self._lowest else pixels
        code, edges = _codes(pixels), _code_edges()
        first, past = self.starts[channel][code], self.starts[channel][code + 1]
        within = (pixels.astype(np.float64) - edges[code]) / (edges[code + 1] - edges[code])
        return first + np.clip((within * (past - first)).astype(np.int64), 0, past - first - 1)

    def centres(self, channel: int, bins: np.ndarray) -> np.ndarray:
        """Values of some bins of a channel, given by their indices: exact for integers of up to 16 bit."""
        if self.starts is None:
            return self._lowest + bins.astype(np.float64)
        starts, edges = self.starts[channel], _code_edges()
        number = np.diff(starts)
        width = np.diff(edges) / np.maximum(number, 1)
        place = np.arange(starts[-1]) - np.repeat(starts[:-1], number)
        centres = np.repeat(edges[:-1], number) + (place + 0.5) * np.repeat(width, number)
        return centres[bins]

    @property
    def _lowest(self) -> int:
        """Smallest value of the type of the pixels."""
        return 0 if self.dtype.kind in "bu" else int(np.iinfo(self.dtype).min)


@dataclass(frozen=True)
class Histogram:
    """Counts of intensities and of local differences; blocks of one image add up exactly."""

    counts: np.ndarray
    """Pixels by bin, ``(C, bins)``."""
    bins: Bins
    differences: np.ndarray
    """Quads of textured cells by the code of their mixed difference, ``(C, 32768)``."""
    cells: int
    """Number of noise cells, textured or not."""

    def __add__(self, other: "Histogram") -> "Histogram":
        """Return the sum of two histograms."""
        if len(self.bins) != len(other.bins) or self.bins.dtype != other.bins.dtype:
            raise BadArgument("histograms of different bins cannot be added; take both with the same bins")
        return Histogram(
            self.counts + other.counts,
            self.bins,
            self.differences + other.differences,
            self.cells + other.cells,
        )

    def noise(self, channel: int) -> float:
        """Standard deviation of the noise of a channel; 0 where it cannot be determined.

        The mixed difference ``a - b - c + d`` of four neighbours has twice the deviation of independent noise and
        no contribution of a flat or tilted background; its median absolute value ignores the few outlines. (Immerkaer,
        CVIU 64, 1996, uses the same kind of mask; the median instead of the mean is Donoho's, 1995.)
        """
        counts = self.differences[channel]
        quads = counts.sum()
        if quads < TEXTURED_CELLS * self.cells * (CELL_PX // 2) ** 2 or not quads:
            return 0.0
        return _median(counts) / (2 * HALF_NORMAL_MEDIAN)


def _median(counts: np.ndarray) -> float:
    """Median of values counted by code; pixels of a code are spread evenly halfway to the occupied neighbour codes."""
    codes = np.flatnonzero(counts)
    values = _code_edges()[codes + CODES // 2]
    middles = (values[:-1] + values[1:]) / 2
    edges = np.concatenate([values[:1], middles, values[-1:]])
    cumulated = np.concatenate([[0], np.cumsum(counts[codes])])
    return float(np.interp(cumulated[-1] / 2, cumulated, edges))


def needs_codes(dtype: np.dtype) -> bool:
    """Whether the bins of this type depend on where the pixels of the image are."""
    return dtype.kind == "f" or dtype.itemsize > 2


def check_finite(block: np.ndarray, *, origin: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Return a block ``(C, ..., y, x)``; BadStore names the first value that is not finite (``origin``: y, x)."""
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        place = tuple(int(i[0]) for i in np.nonzero(~np.isfinite(block)))
        raise BadStore(
            f"expected finite intensities, got {block[place]} in channel {place[0]} at y={place[-2] + origin[0]}, "
            f"x={place[-1] + origin[1]}; replace NaN and infinity in the image before segmenting it"
        )
    return block


def count_codes(block: np.ndarray, *, origin: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Pixels of a block ``(C, ..., y, x)`` by float code, ``(C, 65536)``; BadStore where one is not finite."""
    check_finite(block, origin=origin)
    return np.stack([np.bincount(_codes(pixels).reshape(-1), minlength=CODES) for pixels in block])


def make_bins(dtype: np.dtype, codes: np.ndarray | None = None) -> Bins:
    """Bins for an image of ``dtype``; ``codes`` are its counts by code where the type `needs_codes`."""
    if codes is None:
        return Bins(dtype)
    share = codes / np.maximum(codes.sum(axis=1, keepdims=True), 1)
    number = np.where(codes > 0, 1 + np.floor(share * CODES).astype(np.int64), 0)
    return Bins(dtype, np.pad(np.cumsum(number, axis=1), ((0, 0), (1, 0))))


def histogram(block: np.ndarray, bins: Bins) -> Histogram:
    """Histogram of a block ``(C, y, x)``, whose origin is at multiples of `CELL_PX`."""
    counts = [
        np.bincount(bins.index(pixels, c).reshape(-1), minlength=len(bins)) for c, pixels in enumerate(block)
    ]
    differences = np.stack([_count_differences(pixels) for pixels in block])
    height, width = block.shape[-2:]
    return Histogram(np.stack(counts), bins, differences, (height // CELL_PX) * (width // CELL_PX))


def _count_differences(pixels: np.ndarray) -> np.ndarray:
    """Absolute mixed differences of the 2 x 2 px quads in textured cells, by code."""
    height, width = (extent // CELL_PX for extent in pixels.shape)
    cells = pixels[: height * CELL_PX, : width * CELL_PX]
    quads = cells[::2, ::2], cells[::2, 1::2], cells[1::2, ::2], cells[1::2, 1::2]
    exact = np.dtype(np.float64 if needs_codes(pixels.dtype) else np.int32)
    a, b, c, d = (np.asarray(quad, exact) for quad in quads)
    side = CELL_PX // 2
    uneven = (a != b) | (a != c) | (a != d)
    textured = _cell_sums(uneven, side) >= TEXTURED * side**2
    differences = np.abs(a - b - c + d)[textured.repeat(side, axis=0).repeat(side, axis=1)]
    if needs_codes(pixels.dtype):
        return np.bincount(_codes(differences) - CODES // 2, minlength=CODES // 2)
    counts = np.bincount(differences)
    # The weights are whole numbers far below 2**53, so that their sums are exact.
    return np.bincount(_integer_codes()[: len(counts)], counts, minlength=CODES // 2).astype(np.int64)


def _cell_sums(flags: np.ndarray, side: int) -> np.ndarray:
    """Number of true values in each cell of ``side`` x ``side``."""
    ones = flags.view(np.uint8)
    rows = sum((ones[start::side] for start in range(1, side)), ones[::side])
    return sum((rows[:, start::side] for start in range(1, side)), rows[:, ::side])


@cache
def _integer_codes() -> np.ndarray:
    """Code of every absolute mixed difference of pixels of up to 16 bit, counted from the code of 0."""
    return _codes(np.arange(2 * CODES)) - CODES // 2


def _codes(values: np.ndarray) -> np.ndarray:
    """Upper 16 bits of the float32 of each value, transformed so that they sort like the values."""
    largest = np.finfo(np.float32).max
    single = np.add(
        np.clip(values, -largest, largest), 0.0, dtype=np.float32, casting="same_kind"
    )  # Negative zero becomes zero.
    raw = single.view(np.uint32)
    ordered = np.where(raw >> np.uint32(31), ~raw, raw | np.uint32(1 << 31))
    return (ordered >> np.uint32(16)).astype(np.int64)


@cache
def _code_edges() -> np.ndarray:
    """Lower edge of each code as a value, and the upper edge of the last; infinity and beyond are clipped."""
    ordered = np.arange(CODES, dtype=np.uint32) << np.uint32(16)
    infinity = int(np.float32(np.inf).view(np.uint32))
    size = np.minimum(np.where(ordered >> np.uint32(31), ordered, ~ordered) & 0x7FFFFFFF, infinity)
    sign = np.where(ordered >> np.uint32(31), 1.0, -1.0)
    largest = float(np.finfo(np.float32).max)
    values = sign * np.minimum(size.astype(np.uint32).view(np.float32).astype(np.float64), largest)
    return np.append(values, largest)
