"""The objects of a label stack one by one, in memory that depends on the image's width and not on its objects.

The stack is read in strips from top to bottom, twice: first for the last row of every id, then for the pixels. An
object is handed on after the strip that holds its last row, so only objects that cross the edge of a strip wait.
"""

from collections.abc import Callable, Iterator

import numpy as np

from pipeline.masks.objects import MaskObject
from pipeline.spans import runs_of, spans_of_stack

Reader = Callable[[int, int, int, int], np.ndarray]
"""Reads a window (y0, y1, x0, x1) of a label stack ``(L, y, x)``."""

STRIP_PX = 2**23
"""Pixels (of one layer) in a strip."""


def objects_of(read: Reader, size: tuple[int, int], *, strip_px: int = STRIP_PX) -> Iterator[MaskObject]:
    """Yield the objects of a stack, in the order of the strips in which they end, then of their ids."""
    ids, last = _last_rows(read, size, strip_px)
    waiting = np.zeros((4, 0), np.int64)  # rows: id, y, x0, x1
    for y0, y1 in _strips(size, strip_px):
        runs = np.concatenate([waiting, _runs(read(y0, y1, 0, size[1]), y0)], axis=1)
        ended = last[np.searchsorted(ids, runs[0])] < y1
        yield from _grouped(runs[:, ended])
        waiting = runs[:, ~ended]


def _last_rows(read: Reader, size: tuple[int, int], strip_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the ids in ascending order, and the last row of each."""
    ids, last = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for y0, y1 in _strips(size, strip_px):
        runs = _runs(read(y0, y1, 0, size[1]), y0)
        fresh, where = np.unique(runs[0], return_inverse=True)
        rows = np.zeros(len(fresh), np.int64)
        np.maximum.at(rows, where, runs[1])
        both, first = np.unique(np.concatenate([fresh, ids]), return_index=True)
        ids, last = both, np.concatenate([rows, last])[first]
    return ids, last


def _strips(size: tuple[int, int], strip_px: int) -> Iterator[tuple[int, int]]:
    rows = max(strip_px // size[1], 1)
    for y in range(0, size[0], rows):
        yield y, min(y + rows, size[0])


def _runs(stack: np.ndarray, top: int) -> np.ndarray:
    """Runs of a strip that begins at row ``top`` as int64 rows: id, y, x0, x1."""
    spans, _, values = spans_of_stack(stack)
    runs = runs_of(spans, values)
    return np.stack([column.astype(np.int64) for column in (runs.value, runs.y + top, runs.x0, runs.x1)])


def _grouped(runs: np.ndarray) -> Iterator[MaskObject]:
    order = np.lexsort((runs[2], runs[1], runs[0]))
    runs = runs[:, order]
    labels, starts = np.unique(runs[0], return_index=True)
    ends = np.append(starts[1:], runs.shape[1])
    for label, start, end in zip(labels.tolist(), starts.tolist(), ends.tolist()):
        yield MaskObject(label, runs[1, start:end], runs[2, start:end], runs[3, start:end])
