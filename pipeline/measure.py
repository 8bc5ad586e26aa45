"""Measurements of objects as sums, minima and maxima, so that merging tiles gives exactly those of the whole image.

Counts, coordinates and intensities of up to 16 bits are 64-bit integers: merging is exact and its order does not
matter. Other intensities are summed in double precision and agree within rounding. Pure numpy.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.spans import Runs, Spans, Stretches
from pipeline.tiling import Box

Columns = dict[str, np.ndarray]
"""Columns of equal length, one row per piece of an object or per object."""

PART_PX = 1 << 17
"""Pixels whose intensities are summed at once."""

INTENSITY_SUM = re.compile(r"sum_\d+")
"""Name of the column with the sum of the intensities of a channel."""

MINIMA = ("first", "y0", "x0")
MAXIMA = ("y1", "x1", "edge")


@dataclass(frozen=True)
class Frame:
    """The image plane a block lies in."""

    height: int
    width: int
    plane: int = 0
    """Number of the (t, z) plane: ids are ranked over all planes of an image."""


def _reducer(name: str) -> np.ufunc:
    """How rows of a column are merged."""
    if name in MINIMA or name.startswith("min_"):
        return np.minimum
    return np.maximum if name in MAXIMA or name.startswith("max_") else np.add


class Merger:
    """Merges the rows of each ``group`` (0 ... count - 1, none empty) into one row, in order of group."""

    def __init__(self, group: np.ndarray, count: int) -> None:
        # Numpy sorts integers of up to 16 bits by counting, several times as fast as by comparisons.
        self._order = np.argsort(group.astype(np.min_scalar_type(count)), kind="stable")
        self._starts = np.searchsorted(group[self._order], np.arange(count))

    def __call__(self, name: str, column: np.ndarray) -> np.ndarray:
        """Merge the column of that name."""
        ordered = column[self._order]
        return _reducer(name).reduceat(ordered, self._starts) if len(self._starts) else ordered[:0]


def merge(columns: Columns, group: np.ndarray, count: int) -> Columns:
    """Merge all columns, see `Merger`."""
    merger = Merger(group, count)
    return {name: merger(name, column) for name, column in columns.items()}


def shapes(runs: Runs, box: Box, frame: Frame) -> Columns:
    """Geometry of the runs of a block, in image coordinates: the rows that `merge` sums to pieces and objects."""
    y = runs.y.astype(np.int64) + box.y0
    x0, x1 = (column.astype(np.int64) + box.x0 for column in (runs.x0, runs.x1))
    area = x1 - x0
    sum_x = (x0 + x1 - 1) * area // 2
    at_edge = (y == 0) | (y == frame.height - 1) | (x0 == 0) | (x1 == frame.width)
    return {
        "area": area,
        "sum_y": y * area,
        "sum_x": sum_x,
        "sum_yy": y * y * area,
        "sum_xx": _squares(x1 - 1) - _squares(x0 - 1),
        "sum_xy": y * sum_x,
        "first": (frame.plane * frame.height + y) * frame.width + x0,
        # Sums need 64 bits; these columns stay smaller, because there may be millions of runs.
        "y0": y.astype(np.int32),
        "x0": x0.astype(np.int32),
        "y1": (y + 1).astype(np.int32),
        "x1": x1.astype(np.int32),
        "edge": at_edge.astype(np.uint8),
    }


def _squares(last: np.ndarray) -> np.ndarray:
    """0^2 + 1^2 + ... + last^2 (0 for last = -1)."""
    return last * (last + 1) * (2 * last + 1) // 6


@dataclass(frozen=True)
class CoveredPixels:
    """The pixels of a block that spans cover, packed one stretch after the other."""

    pixels: np.ndarray
    """Whether each pixel of the flattened block is covered."""
    ends: np.ndarray
    """Number of packed pixels up to the end of each covered stretch."""
    of_span: np.ndarray
    """Covered stretch of each span."""


def covered_pixels(spans: Spans, stretches: Stretches) -> CoveredPixels:
    """Find the pixels that the spans of a block cover; the background needs no sums."""
    covered, lengths = np.zeros(len(stretches.starts), bool), stretches.lengths
    covered[spans.stretch] = True
    of_stretch = np.cumsum(covered) - 1
    return CoveredPixels(np.repeat(covered, lengths), np.cumsum(lengths[covered]), of_stretch[spans.stretch])


def intensities(covered: CoveredPixels, channel: np.ndarray, number: int) -> Columns:
    """Sums, squares, minimum and maximum of channel ``number`` ``(y, x)`` under each span."""
    # Squares of 32-bit values overflow 64-bit sums, so such images are summed like floats.
    exact = channel.dtype.kind != "f" and channel.dtype.itemsize <= 2
    kind = np.dtype(np.int64 if exact else np.float64)
    dtypes = {"sum": kind, "sumsq": kind, "min": channel.dtype, "max": channel.dtype}
    values = {name: np.zeros(len(covered.ends), dtype) for name, dtype in dtypes.items()}
    packed, starts = channel.reshape(-1)[covered.pixels], np.append(0, covered.ends)
    # Part by part, because 64-bit copies of the whole block exceed the cache.
    cuts = np.searchsorted(covered.ends, np.arange(0, packed.size, PART_PX))
    for a, b in pairwise(np.append(cuts, len(covered.ends)).tolist()):
        if a == b:  # a stretch longer than a part
            continue
        part, firsts, rows = packed[starts[a] : starts[b]], starts[a:b] - starts[a], slice(a, b)
        wide = part.astype(kind)
        np.add.reduceat(wide, firsts, out=values["sum"][rows])
        np.minimum.reduceat(part, firsts, out=values["min"][rows])
        np.maximum.reduceat(part, firsts, out=values["max"][rows])
        np.add.reduceat(np.square(wide, out=wide), firsts, out=values["sumsq"][rows])
    return {f"{name}_{number}": column[covered.of_span] for name, column in values.items()}


def counted(spans: Spans, stretches: Stretches, mask: np.ndarray) -> np.ndarray:
    """Number of pixels of a mask ``(y, x)`` under each span."""
    if not len(stretches.starts):
        return np.zeros(len(spans), np.int64)
    return np.add.reduceat(mask.reshape(-1), stretches.starts, dtype=np.int64)[spans.stretch]


def overlaps(spans: Spans, piece: np.ndarray, columns: Columns) -> Columns:
    """Pixels that several pieces cover, summed for every set of pieces that cover the same pixels.

    Filters apply to whole objects after stitching; only then is it known which of these pixels are shared by
    remaining objects (`without_shared`).

    Args:
        spans: spans of a block.
        piece: piece of each span.
        columns: ``area`` and ``sum_<channel>`` of each span.

    Returns:
        One row per set and member, the rows of a set contiguous: ``set`` (0, 1, ...), ``piece``, and for the
        pixels of the set ``area`` and ``sum_<channel>``, the same in each of its rows.
    """
    shared = np.flatnonzero(spans.shared)
    # By stretch, then by piece, with one key: that of each layer ascends, so a stable sort has little to merge.
    key = spans.stretch[shared].astype(np.int64) * (int(piece.max(initial=0)) + 1) + piece[shared]
    order = shared[np.argsort(key, kind="stable")]
    starts = _group_starts(spans.stretch[order])
    sizes = np.diff(starts, append=len(order))
    sets = _set_numbers(piece[order], starts, sizes)
    example = np.unique(sets, return_index=True)[1]
    number = np.repeat(np.arange(len(example)), sizes[example])
    members = order[_ranges(starts[example], sizes[example])]
    rows = {"set": number, "piece": piece[members]}
    for name in [name for name in columns if name == "area" or INTENSITY_SUM.fullmatch(name)]:
        total = np.zeros(len(example), columns[name].dtype)
        np.add.at(total, sets, columns[name][order[starts]])
        rows[name] = total[number]
    return rows


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Indices ``start`` to ``start + size - 1`` of every group, one group after the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + sizes, sizes)


def _group_starts(sorted_values: np.ndarray) -> np.ndarray:
    """Index of the first of each group of equal values."""
    changed = np.ones(len(sorted_values), bool)
    changed[1:] = sorted_values[1:] != sorted_values[:-1]
    return np.flatnonzero(changed)


def _set_numbers(members: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Number the groups of ``members``: equal numbers for groups with the same members in the same order."""
    numbers = np.zeros(len(starts), np.int64)
    base, used = int(members.max(initial=0)) + 1, 1
    # Groups that have ended keep their numbers; those that go on get larger ones.
    for position in range(int(sizes.max(initial=0))):
        longer = np.flatnonzero(sizes > position)
        keys = numbers[longer] * base + members[starts[longer] + position]
        different, number = np.unique(keys, return_inverse=True)
        numbers[longer] = used + number
        used += len(different)
    return np.unique(numbers, return_inverse=True)[1]


def shared_pixels(overlapping: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of pieces that cover the same pixels ``(n, 2)``, first < second, and how many pixels they share."""
    number, piece, area = (overlapping[name] for name in ("set", "piece", "area"))
    pairs, pixels = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    # The members of a set are contiguous: compare at distance 1, 2, ... until no set is that large.
    for step in range(1, len(number)):
        same = number[step:] == number[:-step]
        if not same.any():
            break
        pairs.append(np.stack([piece[:-step][same], piece[step:][same]], axis=1))
        pixels.append(area[step:][same])
    return add_pairs(np.sort(np.concatenate(pairs), axis=1), np.concatenate(pixels))


def without_shared(rows: Columns, overlapping: Columns, owner: np.ndarray) -> Columns:
    """Area and intensity sums of pieces without the pixels that they share with another remaining object.

    Args:
        rows: additive columns of pieces.
        overlapping: the result of `overlaps` for them.
        owner: object of each piece, -1 where a filter dropped it.

    Returns:
        ``unshared`` in px and ``unshared_sum_<channel>``, one row per piece.
    """
    starts = _group_starts(overlapping["set"])
    owners = owner[overlapping["piece"]]
    if len(starts):
        least = np.minimum.reduceat(np.where(owners < 0, np.iinfo(owners.dtype).max, owners), starts)
        several = np.maximum.reduceat(owners, starts) > least
        counted = several[overlapping["set"]] & (owners >= 0)
    else:
        counted = np.zeros(0, bool)
    columns = {}
    for name in [name for name in overlapping if name not in ("set", "piece")]:
        rest = rows[name].copy()
        np.subtract.at(rest, overlapping["piece"][counted], overlapping[name][counted])
        columns["unshared" if name == "area" else f"unshared_{name}"] = rest
    return columns


def add_pairs(pairs: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum the pixels of equal pairs; pairs come back sorted."""
    if not len(pairs):
        return pairs.reshape(0, 2), pixels
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, pixels = pairs[order], pixels[order]
    new = np.concatenate([[True], (pairs[1:] != pairs[:-1]).any(axis=1)])
    return pairs[new], np.add.reduceat(pixels, np.flatnonzero(new))


def class_areas(areas: np.ndarray, classes: np.ndarray, count: int) -> Columns:
    """Area of each piece by class, 1 to ``count``: columns that add up, so that the class of most pixels is that of
    an object whose tiles saw different ones."""
    return {f"class_{k}": np.where(classes == k, areas, 0) for k in range(1, count + 1)}


def class_names(rows: Columns, names: Sequence[str]) -> np.ndarray:
    """Name of the class of each object: that of most of its pixels, of equal ones the first."""
    areas = np.stack([rows[f"class_{k}"] for k in range(1, len(names) + 1)])
    return np.array(names, object)[areas.argmax(0)]


def stacked(parts: Sequence[Columns]) -> Columns:
    """Concatenate the rows of several blocks with the same columns; the parts are emptied.

    Each column is removed from the parts as it is concatenated, so that millions of rows are not held twice.
    """
    names = list(parts[0]) if parts else []
    return {name: np.concatenate([part.pop(name) for part in parts]) for name in names}


def object_columns(rows: Columns, channels: Sequence[str], spacing_um: tuple[float, float] | None) -> Columns:
    """Turn additive rows of whole objects into the columns of the object table.

    Lengths are px unless the name says ``_um``. Axes, eccentricity and orientation are those of the ellipse
    with the same second moments (each pixel a unit square, as in scikit-image); orientation is the angle of the
    major axis against the y axis in radians, in (-pi/2, pi/2].
    """
    area = rows["area"].astype(float)
    table = {
        "centroid_y": rows["sum_y"] / area,
        "centroid_x": rows["sum_x"] / area,
        **{f"bbox_{side}": rows[side].astype(np.int64) for side in ("y0", "x0", "y1", "x1")},
        "area_px": rows["area"],
        "area_um2": area * (spacing_um[0] * spacing_um[1] if spacing_um else np.nan),
        **_ellipse(rows, area),
    }
    for number, channel in enumerate(channels):
        for name, column in _intensity_columns(rows, number, area).items():
            table[f"{name}_{channel}"] = column
    table["overlap_px"] = rows["area"] - rows["unshared"]
    table["touches_edge"] = rows["edge"] > 0
    return table


def _ellipse(rows: Columns, area: np.ndarray) -> dict[str, np.ndarray]:
    # Exact integer numerators, so that the difference of squares suffers no cancellation.
    yy = _central(rows["area"], rows["sum_yy"], rows["sum_y"], rows["sum_y"]) + 1 / 12
    xx = _central(rows["area"], rows["sum_xx"], rows["sum_x"], rows["sum_x"]) + 1 / 12
    xy = _central(rows["area"], rows["sum_xy"], rows["sum_y"], rows["sum_x"])
    root = np.sqrt((yy - xx) ** 2 + 4 * xy**2)
    major, minor = (yy + xx + root) / 2, np.maximum((yy + xx - root) / 2, 0)
    return {
        "major_axis_px": 4 * np.sqrt(major),
        "minor_axis_px": 4 * np.sqrt(minor),
        "eccentricity": np.sqrt(np.maximum(1 - minor / major, 0)),
        "orientation": 0.5 * np.arctan2(2 * xy, yy - xx),
    }


def _central(area: np.ndarray, both: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Central second moment sum(ab)/n - (sum a / n)(sum b / n), numerator about the integer part of the means."""
    mean_a, mean_b = a // area, b // area
    rest_a, rest_b = a - mean_a * area, b - mean_b * area
    about = both - mean_a * b - mean_b * a + mean_a * mean_b * area
    return about / area - (rest_a / area) * (rest_b / area)


def _intensity_columns(rows: Columns, number: int, area: np.ndarray) -> dict[str, np.ndarray]:
    total, unshared = rows[f"sum_{number}"], rows["unshared"]
    mean = total / area
    with np.errstate(invalid="ignore", divide="ignore"):
        unshared_mean = rows[f"unshared_sum_{number}"] / np.where(unshared, unshared, np.nan)
    return {
        "intensity_mean": mean,
        "intensity_std": np.sqrt(np.maximum(rows[f"sumsq_{number}"] / area - mean**2, 0)),
        "intensity_min": rows[f"min_{number}"].astype(total.dtype),
        "intensity_max": rows[f"max_{number}"].astype(total.dtype),
        "intensity_sum": total,
        "unshared_mean": unshared_mean,
    }
