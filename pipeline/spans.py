"""Run-length encoding of layers: everything after the network is computed on horizontal runs of pixels.

Two encodings are used. *Spans* are runs of one row and layer that are cut wherever the set of covering layers changes;
areas, moments, intensities, overlaps and links are sums over spans. *Runs* are not cut by other layers and carry a
value; painting uses them. The cost follows the outlines of the objects and not the pixels, and no dense mask per layer
is ever made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Spans:
    """Spans as columns of equal length, sorted by layer, then ``y``, then ``x0``; ``x1`` is exclusive."""

    layer: np.ndarray
    """Network layer (touch) or layer of the local stack (match)."""
    y: np.ndarray
    """Row."""
    x0: np.ndarray
    """First column."""
    x1: np.ndarray
    """Column after the last."""
    stretch: np.ndarray
    """Index into `Stretches`: spans of several layers over the same pixels share it."""
    shared: np.ndarray
    """True where another layer covers the same pixels."""

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray | slice) -> "Spans":
        """Rows selected by a boolean mask, by indices or by a slice."""
        return Spans(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def moved(self, y: int, x: int) -> "Spans":
        """The same spans with the origin of their block added: image coordinates, int64."""
        rows, first, last = (column.astype(np.int64) for column in (self.y, self.x0, self.x1))
        return replace(self, y=rows + y, x0=first + x, x1=last + x)


def below_each_other(parts: Sequence[Spans]) -> Spans:
    """Spans of several blocks in one table."""
    return Spans(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Spans)})


@dataclass(frozen=True)
class Stretches:
    """Stretches of a block's flattened pixels over which no layer changes; the last one ends at ``size``."""

    starts: np.ndarray
    size: int

    @property
    def lengths(self) -> np.ndarray:
        """Pixels of each stretch."""
        return np.diff(self.starts, append=self.size)


def _stretches(changed: np.ndarray, shape: tuple[int, int]) -> Stretches:
    """Cut where ``changed`` is true (pixel i + 1 differs from i) and at the start of every row."""
    height, width = shape
    changed[width - 1 :: width] = True
    return Stretches(np.concatenate([[0], np.flatnonzero(changed) + 1]), height * width)


def _spans(stretches: Stretches, covered: np.ndarray, width: int) -> Spans:
    """Spans of the stretches for which ``covered`` ``(L, stretches)`` is true."""
    # Columns of the stretches first: there are fewer of them than spans.
    rows = stretches.starts // width
    firsts = stretches.starts - rows * width
    y, x0, x1 = (column.astype(np.int32) for column in (rows, firsts, firsts + stretches.lengths))
    shared = covered.sum(axis=0, dtype=np.uint16) > 1
    stretch = [np.flatnonzero(layer).astype(np.int32) for layer in covered]
    layers = np.repeat(np.arange(len(covered), dtype=np.uint8), [len(one) for one in stretch])
    cut = np.concatenate([*stretch, np.zeros(0, np.int32)])
    return Spans(layer=layers, y=y[cut], x0=x0[cut], x1=x1[cut], stretch=cut, shared=shared[cut])


def spans_of_bits(bits: np.ndarray) -> tuple[Spans, Stretches]:
    """Spans of a layer mask ``(y, x)`` of unsigned integers in which bit k says "on layer k"."""
    flat = bits.reshape(-1)
    if not flat.size:
        empty = Stretches(np.zeros(0, np.int64), 0)
        return _spans(empty, np.zeros((0, 0), bool), 1), empty
    stretches = _stretches(flat[1:] != flat[:-1], bits.shape)
    values = flat[stretches.starts]
    used = int(np.bitwise_or.reduce(values)).bit_length()
    covered = np.stack([(values >> values.dtype.type(k)) & 1 for k in range(used)] or [values[:0]]).astype(
        bool
    )
    return _spans(stretches, covered.reshape(used, len(values)), bits.shape[1]), stretches


def spans_of_stack(stack: np.ndarray) -> tuple[Spans, Stretches, np.ndarray]:
    """Spans of a label stack ``(L, y, x)`` and the id under each of them."""
    flat = stack.reshape(len(stack), -1)
    if not flat.size:
        return *spans_of_bits(np.zeros((0, 0), np.uint8)), np.zeros(0, stack.dtype)
    stretches = _stretches((flat[:, 1:] != flat[:, :-1]).any(axis=0), stack.shape[1:])
    values = flat[:, stretches.starts]
    spans = _spans(stretches, values != 0, stack.shape[2])
    return spans, stretches, values[spans.layer, spans.stretch]


def touching(spans: Spans) -> csr_array:
    """Graph of spans that touch: same layer, side by side in a row or 8-adjacent in consecutive rows.

    Any sorted set of spans will do, including the border spans of many blocks in image coordinates; linked spans
    contain 8-adjacent pixels of one layer, whatever the blocks are.
    """
    count = len(spans)
    if not count:
        return csr_array((0, 0), dtype=bool)
    y, x0, x1 = (column.astype(np.int64) for column in (spans.y, spans.x0, spans.x1))
    # One sortable key per pixel; two spare columns and one spare row keep rows and layers apart.
    width = int(x1.max()) + 2
    row = (spans.layer.astype(np.int64) * (int(y.max()) + 2) + y) * width
    starts, ends = row + x0, row + x1
    below = row + width
    low = np.searchsorted(ends, below + x0, side="left")
    high = np.searchsorted(starts, below + x1, side="right")
    beside = np.zeros(count, np.int64)
    beside[:-1] = starts[1:] == ends[:-1]
    degree = np.maximum(high - low, 0) + beside
    pointers = np.concatenate([[0], np.cumsum(degree)])
    within = np.arange(pointers[-1]) - np.repeat(pointers[:-1], degree)
    targets = np.repeat(low - beside, degree) + within
    first = pointers[:-1][beside == 1]
    targets[first] = np.flatnonzero(beside) + 1
    return csr_array((np.ones(len(targets), bool), targets, pointers), shape=(count, count))


def components(spans: Spans) -> tuple[np.ndarray, int]:
    """Component of each span and their number; numbered by layer, then by first pixel in raster order."""
    if not len(spans):
        return np.zeros(0, np.int64), 0
    # Fewer nodes: the spans of a run belong together.
    first = _first_of_runs(spans, spans.layer)
    lengths = np.diff(first, append=len(spans))
    runs = replace(spans.take(first), x1=spans.x1[first + lengths - 1])
    count, labels = connected_components(touching(runs), directed=False)
    return np.repeat(labels.astype(np.int64), lengths), int(count)


@dataclass(frozen=True)
class Runs:
    """Runs with a value each, sorted as `Spans` are; far fewer than spans where objects overlap."""

    y: np.ndarray
    """Row."""
    x0: np.ndarray
    """First column."""
    x1: np.ndarray
    """Column after the last."""
    value: np.ndarray
    """Value of the pixels, such as the number of a piece or an id."""

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray | slice) -> "Runs":
        """Rows selected by a boolean mask, by indices or by a slice."""
        return Runs(self.y[rows], self.x0[rows], self.x1[rows], self.value[rows])

    def inside(self, y0: int, y1: int, x0: int, x1: int) -> "Runs":
        """The part inside a rectangle, in its coordinates."""
        y = self.y - y0
        first, last = np.maximum(self.x0 - x0, 0), np.minimum(self.x1 - x0, x1 - x0)
        return Runs(y, first, last, self.value).take((y >= 0) & (y < y1 - y0) & (first < last))

    def halved(self) -> "Runs":
        """The runs of every second pixel of every second row, those with even coordinates."""
        even = self.take(self.y % 2 == 0)
        first, last = (even.x0 + 1) // 2, (even.x1 + 1) // 2
        return Runs(even.y // 2, first, last, even.value).take(first < last)


def runs_of(spans: Spans, value: np.ndarray) -> Runs:
    """Convert spans to runs: adjacent spans with the same value, cut by other layers, are merged."""
    first = _first_of_runs(spans, value)
    last = np.append(first[1:], len(spans))[: len(first)] - 1
    return Runs(spans.y[first], spans.x0[first], spans.x1[last], value[first])


def _first_of_runs(spans: Spans, value: np.ndarray) -> np.ndarray:
    """Index of the first span of each run: the next ones begin where the one before ends and have its value."""
    begins = np.ones(len(spans), bool)
    begins[1:] = spans.x0[1:] != spans.x1[:-1]
    for column in (value, spans.y):
        begins[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(begins)


def paint(runs: Runs, shape: tuple[int, int]) -> np.ndarray:
    """Decode runs that do not overlap into a uint32 image, which is 0 elsewhere.

    The image is written in one pass in the order of its memory, gaps and runs alternating.
    """
    starts = runs.y.astype(np.int64) * shape[1] + runs.x0
    order = np.argsort(starts, kind="stable")
    starts = starts[order]
    covered = (runs.x1 - runs.x0)[order]
    ends = starts + covered
    lengths = np.empty(2 * len(order) + 1, np.int64)
    lengths[0::2] = np.append(starts, shape[0] * shape[1]) - np.append(0, ends)
    lengths[1::2] = covered
    values = np.zeros(len(lengths), np.uint32)
    values[1::2] = runs.value[order]
    return np.repeat(values, lengths).reshape(shape)
