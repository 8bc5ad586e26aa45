"""Counting objects by their distance from the borders of a grid, for the real grid and for shifted ones.

Along one axis of one image: positions become prefix sums, so that a grid costs a few look-ups per border whatever
the number of objects. A shift moves all borders within the image by the same amount, around the end, and keeps
their number; shifts that bring a border close to a real one are left out, or a seam would hide in its own null.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

NEAR_BINS = 2
"""Bins of distance that count as near."""

RING_BINS = 6
"""Bins beyond them that near is compared with."""

BINS = NEAR_BINS + RING_BINS


@dataclass(frozen=True, kw_only=True, eq=False)
class Marks:
    """Prefix sums along one axis of one image, each of length ``length + 1``."""

    count: np.ndarray
    """Objects whose centroid lies before a position."""
    log_area: np.ndarray
    """Sum of the logarithms of their areas."""
    sides: np.ndarray
    """Sides of bounding boxes exactly at a position; not summed up."""
    objects: int
    """Objects in the image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Totals:
    """Sums over borders and images, for one or many grids; the last axis is the grid."""

    count: np.ndarray
    """``(BINS, n)`` objects by distance."""
    log_area: np.ndarray
    """``(BINS, n)`` sum of the logarithms of their areas."""
    sides: np.ndarray
    """``(n,)`` sides of bounding boxes on a border."""

    @classmethod
    def zeros(cls, n: int) -> "Totals":
        """Nothing counted yet."""
        return cls(count=np.zeros((BINS, n)), log_area=np.zeros((BINS, n)), sides=np.zeros(n))

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            count=self.count + other.count,
            log_area=self.log_area + other.log_area,
            sides=self.sides + other.sides,
        )

    @property
    def near(self) -> float:
        """Objects near a border of the first grid."""
        return float(self.count[:NEAR_BINS, 0].sum())

    def density(self) -> np.ndarray:
        """``(n,)`` objects per area near the borders over those in the ring; half an object is added to both."""
        near = (self.count[:NEAR_BINS].sum(axis=0) + 0.5) / NEAR_BINS
        return near / ((self.count[NEAR_BINS:].sum(axis=0) + 0.5) / RING_BINS)

    def area(self) -> np.ndarray:
        """``(n,)`` geometric mean area near the borders over that in the ring; 1 where one of them is empty."""
        near = self._mean_log_area(slice(0, NEAR_BINS))
        ring = self._mean_log_area(slice(NEAR_BINS, BINS))
        return np.where(np.isfinite(near - ring), np.exp(near - ring), 1.0)

    def density_profile(self) -> np.ndarray:
        """``(BINS, n)`` objects by distance over the mean of the ring."""
        return (self.count + 0.5) / (self.count[NEAR_BINS:].mean(axis=0) + 0.5)

    def area_profile(self) -> np.ndarray:
        """``(BINS, n)`` geometric mean area by distance over that of the ring; 1 in empty bins."""
        with np.errstate(invalid="ignore", divide="ignore"):
            logs = self.log_area / self.count - self._mean_log_area(slice(NEAR_BINS, BINS))
        return np.where(np.isfinite(logs), np.exp(logs), 1.0)

    def _mean_log_area(self, bins: slice) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: np.ndarray = self.log_area[bins].sum(axis=0) / self.count[bins].sum(axis=0)
        return mean


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """The tile borders across one axis of one image, and where else they may be laid."""

    length: int
    """Pixels along the axis."""
    step: int
    """Width of a bin of distance in pixels."""
    borders: np.ndarray
    """Positions of the tested borders."""
    shifts_px: np.ndarray
    """Shifts that keep clear of the real borders."""
    first: bool
    """Whether this is the first tested axis of its image."""

    def marks(self, objects: pd.DataFrame, axis: str) -> Marks:
        """Sort the objects of the image along ``axis`` (``y`` or ``x``)."""
        place = np.clip(objects[f"centroid_{axis}"].to_numpy(float), 0, self.length - 1).astype(np.int64)
        logs = np.log(np.maximum(objects["area_px"].to_numpy(float), 1))
        sides = np.r_[objects[f"bbox_{axis}0"].to_numpy(), objects[f"bbox_{axis}1"].to_numpy()]
        return Marks(
            count=np.r_[0, np.bincount(place, minlength=self.length).cumsum()],
            log_area=np.r_[0, np.bincount(place, weights=logs, minlength=self.length).cumsum()],
            sides=np.bincount(np.clip(sides, 0, self.length).astype(np.int64), minlength=self.length + 1),
            objects=len(objects),
        )

    def totals(self, marks: Marks, shifts: np.ndarray) -> Totals:
        """Count for the grid moved by each of ``shifts`` (0 is the grid itself)."""
        reach = BINS * self.step
        span = self.length - 2 * reach + 1
        borders = reach + (self.borders[:, None] - reach + shifts[None, :]) % span
        return Totals(
            count=np.stack([self._strip(marks.count, borders, near) for near in range(BINS)]),
            log_area=np.stack([self._strip(marks.log_area, borders, near) for near in range(BINS)]),
            sides=marks.sides[borders].sum(axis=0).astype(float),
        )

    def _strip(self, prefix: np.ndarray, borders: np.ndarray, index: int) -> np.ndarray:
        inner, outer = index * self.step, (index + 1) * self.step
        after = prefix[borders + outer] - prefix[borders + inner]
        before = prefix[borders - inner] - prefix[borders - outer]
        return np.asarray((after + before).sum(axis=0), float)


def lay_grid(length: int, core: int, step: int, *, first: bool = True) -> Grid | None:
    """The testable borders at multiples of ``core`` along ``length`` pixels; None where there are none.

    A border is testable when its ring lies within the image and the grid has somewhere else to go.
    """
    reach = BINS * step
    every = np.arange(core, length, core)
    tested = every[(every >= reach) & (every <= length - reach)]
    span = length - 2 * reach + 1
    if tested.size == 0 or span < 2:
        return None
    shifts = np.arange(1, span)
    clear = np.ones(shifts.size, bool)
    distance = _distance(length, every)
    for border in tested:
        clear &= distance[reach + (border - reach + shifts) % span] >= 2 * NEAR_BINS * step
    if not clear.any():
        return None
    return Grid(length=length, step=step, borders=tested, shifts_px=shifts[clear], first=first)


def _distance(length: int, borders: np.ndarray) -> np.ndarray:
    # to the nearest real border, tested or not
    return np.min(np.abs(np.arange(length + 1)[None, :] - borders[:, None]), axis=0)
