"""One object as a run-length encoding, the value that all formats are converted to and from.

A run is a stretch of one row. An object costs memory by its outline and not by its area, and objects may overlap.
Coordinates are pixels of the full image.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class MaskObject:
    """The pixels of one object; runs are sorted, and do not overlap."""

    label: int
    """Id of the object; 0 when its source gives none."""
    y: np.ndarray
    """Row of each run, int64."""
    x0: np.ndarray
    """First column of each run, int64."""
    x1: np.ndarray
    """Column after the last of each run, int64."""
    category: str = ""
    """Name of its class; empty where its source gives none."""

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int((self.x1 - self.x0).sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Bounding box (y0, y1, x0, x1)."""
        return int(self.y[0]), int(self.y[-1]) + 1, int(self.x0.min()), int(self.x1.max())

    @property
    def centroid(self) -> tuple[float, float]:
        """Mean position (y, x) of the pixels, in coordinates in which the first pixel spans 0 to 1."""
        length = self.x1 - self.x0
        y = float((length * (self.y + 0.5)).sum() / self.area)
        return y, float((length * (self.x0 + self.x1) / 2).sum() / self.area)

    def crop(self) -> np.ndarray:
        """Boolean mask of the bounding box."""
        top, bottom, left, right = self.box
        width = right - left
        changes = np.zeros((bottom - top) * width + 1, np.int8)
        start = (self.y - top) * width - left
        np.add.at(changes, start + self.x0, 1)
        np.add.at(changes, start + self.x1, -1)
        return np.cumsum(changes[:-1], dtype=np.int8).astype(bool).reshape(-1, width)


def object_of_runs(label: int, y: np.ndarray, x0: np.ndarray, x1: np.ndarray) -> MaskObject:
    """Make an object of any runs: sorted, and joined where they overlap or touch in a row."""
    y, x0, x1 = (np.asarray(column, np.int64) for column in (y, x0, x1))
    if not len(y):
        return MaskObject(label, y, x0, x1)
    width = int(x1.max()) + 2
    left = int(x0.min())
    starts, ends = y * (width - left) + x0 - left, y * (width - left) + x1 - left
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    begins = np.append(True, starts[1:] > ends[:-1])
    first = starts[begins]
    last = np.append(ends[np.flatnonzero(begins)[1:] - 1], ends[-1])
    rows = first // (width - left)
    base = rows * (width - left) - left
    return MaskObject(label, rows, first - base, last - base)


def object_of_mask(label: int, mask: np.ndarray, *, top: int = 0, left: int = 0) -> MaskObject:
    """Make an object of a boolean mask ``(h, w)`` whose first pixel is (top, left)."""
    wide = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    wide[:, 1:-1] = mask
    change = np.diff(wide, axis=1)
    y, x0 = np.nonzero(change == 1)
    _, x1 = np.nonzero(change == -1)
    return MaskObject(label, y.astype(np.int64) + top, x0.astype(np.int64) + left, x1.astype(np.int64) + left)


def clipped(item: MaskObject, size: tuple[int, int]) -> MaskObject:
    """The part of an object inside an image (height, width)."""
    x0, x1 = np.maximum(item.x0, 0), np.minimum(item.x1, size[1])
    inside = (item.y >= 0) & (item.y < size[0]) & (x0 < x1)
    return replace(item, y=item.y[inside], x0=x0[inside], x1=x1[inside])


def union(label: int, items: Iterable[MaskObject]) -> MaskObject:
    """All pixels of some objects as one."""
    parts = list(items)
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("y", "x0", "x1"))
    return object_of_runs(label, *columns)
