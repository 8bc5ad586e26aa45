"""A test for traces of the tiling: objects near tile borders compared with those near randomly shifted borders.

Three statistics per run: the number of centroids near a border, the size of objects near a border, and the number of
sides of bounding boxes that coincide with a border (a cut object has one). Values near a border are divided by those
in the ring around it, so that slow trends over a field cancel; the null distribution is that of the same grid shifted
at random within each image. Cut objects change all three statistics, exact stitching none. Tables only, no pixels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.errors import BadArgument
from pipeline.report.run.seam_grid import NEAR_BINS, RING_BINS, Grid, Marks, Totals, lay_grid

LEVEL = 0.01
"""A trace is claimed below this p-value (adjusted for the three tests)."""

ENOUGH_OBJECTS = 30
"""Least number of objects near borders for a verdict."""

LARGEST_NEAR_SHARE = 1 / 16
"""The near strip takes at most this part of a tile, so that shifted grids keep clear of the real one."""

NEEDED = ("centroid_y", "centroid_x", "bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1", "area_px")


@dataclass(frozen=True, kw_only=True)
class SeamTest:
    """One statistic at the tile borders, as a ratio to what is expected without a seam."""

    name: str
    """What is compared."""
    ratio: float
    """1 means no trace; NaN when there is nothing to compare."""
    low: float
    """2.5 percentile of the ratio over the shifted grids."""
    high: float
    """97.5 percentile."""
    p: float
    """Permutation p-value, adjusted for the three tests (Holm)."""


@dataclass(frozen=True, kw_only=True)
class Seam:
    """A piece of a tile border between two corners of the grid."""

    image: str
    """Name of the image."""
    axis: str
    """``y`` for a horizontal border, ``x`` for a vertical one."""
    border_px: int
    """Where the border is."""
    along_px: int
    """Where along it most straight sides lie."""
    shape_px: tuple[int, int]
    """Size (y, x) of the image."""
    straight_sides: int
    """Sides of bounding boxes that coincide with this piece."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeamReport:
    """The answer for a whole run."""

    core_px: tuple[int, int]
    """Tile core (y, x); borders are its multiples."""
    near_px: int
    """Half width of the strip that counts as near."""
    borders: int
    """Borders that were tested, over all images and both axes."""
    objects: int
    """Objects in the tested images."""
    objects_near: int
    """Objects near a tested border; one near two borders counts twice."""
    straight_sides: int
    """Sides of bounding boxes that coincide with a tested border."""
    shifts: int
    """Shifted grids."""
    seed: int
    """Seed of the shifts."""
    tests: tuple[SeamTest, ...]
    """Density, area, straight edges; empty when no border could be tested."""
    profile: pd.DataFrame
    """``distance_px``, and ``density`` and ``area`` with ``_low`` and ``_high``: relative to the ring's mean."""
    worst: tuple[Seam, ...]
    """Pieces of border with most straight sides, worst first."""

    @property
    def verdict(self) -> str:
        """``trace``, ``clear``, ``few`` (too few objects to tell) or ``untiled`` (no border to test)."""
        if not self.tests:
            return "untiled"
        if any(test.p < LEVEL for test in self.tests):
            return "trace"
        return "clear" if self.objects_near >= ENOUGH_OBJECTS else "few"


def seam_quality(
    objects: pd.DataFrame,
    shapes: Mapping[str, tuple[int, int]],
    *,
    core_px: int | tuple[int, int],
    shifts: int = 999,
    seed: int = 0,
) -> SeamReport:
    """Test whether objects near tile borders differ from objects elsewhere.

    ``objects`` is the object table with a column ``image``; ``shapes`` gives ``(y, x)`` of every image. Borders
    too close to the edge of an image are left out. The same input and seed give the same report.
    """
    core = (core_px, core_px) if isinstance(core_px, int) else (int(core_px[0]), int(core_px[1]))
    if min(core) < 1 or shifts < 1:
        raise BadArgument(f"core_px and shifts must be at least 1, got {core_px!r} and {shifts!r}")
    if lacking := [name for name in ("image", *NEEDED) if name not in objects.columns]:
        raise BadArgument(f"object table lacks {lacking}; seam quality needs 'image' and {NEEDED}")
    step = _bin_px(objects, core)
    observed, null, borders, seen = Totals.zeros(1), Totals.zeros(shifts), 0, 0
    rng = np.random.default_rng(seed)
    for grid, near in _grids(objects, shapes, core, step):
        observed += grid.totals(near, np.zeros(1, int))
        null += grid.totals(near, rng.choice(grid.shifts_px, size=shifts))
        borders += grid.borders.size
        seen += near.objects if grid.first else 0
    return SeamReport(
        core_px=core,
        near_px=NEAR_BINS * step,
        borders=borders,
        objects=seen,
        objects_near=int(observed.near),
        straight_sides=int(observed.sides.sum()),
        shifts=shifts,
        seed=seed,
        tests=_tests(observed, null) if borders else (),
        profile=_profile(observed, null, step) if borders else pd.DataFrame(),
        worst=worst_seams(objects, shapes, core_px=core),
    )


def worst_seams(
    objects: pd.DataFrame,
    shapes: Mapping[str, tuple[int, int]],
    *,
    core_px: tuple[int, int],
    limit: int = 6,
) -> tuple[Seam, ...]:
    """Pieces of tile border with most sides of bounding boxes on them, worst first; ties by image and place."""
    sides = pd.concat(
        [_sides_on_borders(objects, shapes, core_px, axis, side) for axis in "yx" for side in "01"],
        ignore_index=True,
    )
    if sides.empty:
        return ()
    pieces = sides.groupby(["image", "axis", "border_px", "piece"], sort=True)["along_px"]
    table = pieces.agg(["size", "median"]).reset_index()
    table = table.sort_values("size", ascending=False, kind="stable").head(limit)
    return tuple(
        Seam(
            image=str(row["image"]),
            axis=str(row["axis"]),
            border_px=int(row["border_px"]),
            along_px=int(row["median"]),
            shape_px=shapes[str(row["image"])],
            straight_sides=int(row["size"]),
        )
        for row in table.to_dict("records")
    )


def _sides_on_borders(
    objects: pd.DataFrame,
    shapes: Mapping[str, tuple[int, int]],
    core_px: tuple[int, int],
    axis: str,
    side: str,
) -> pd.DataFrame:
    across = "yx".index(axis)
    along = objects[f"centroid_{'xy'[across]}"].to_numpy(float)
    at = objects[f"bbox_{axis}{side}"].to_numpy(np.int64)
    length = objects["image"].map({name: shape[across] for name, shape in shapes.items()}).to_numpy(float)
    on = (at % core_px[across] == 0) & (at > 0) & (at < length) & np.isfinite(along)
    return pd.DataFrame(
        {
            "image": objects["image"].to_numpy(object)[on],
            "axis": axis,
            "border_px": at[on],
            "piece": (along[on] // core_px[1 - across]).astype(int),
            "along_px": along[on],
        }
    )


def _bin_px(objects: pd.DataFrame, core: tuple[int, int]) -> int:
    # half a typical object on either side of the border: the pieces of a cut object have their centroids there
    extent = np.r_[
        objects["bbox_y1"].to_numpy() - objects["bbox_y0"].to_numpy(),
        objects["bbox_x1"].to_numpy() - objects["bbox_x0"].to_numpy(),
    ]
    half = float(np.median(extent)) / 2 if extent.size else 1.0
    return max(1, round(min(half, min(core) * LARGEST_NEAR_SHARE) / NEAR_BINS))


def _grids(
    objects: pd.DataFrame, shapes: Mapping[str, tuple[int, int]], core: tuple[int, int], step: int
) -> Iterator[tuple[Grid, Marks]]:
    for name, rows in objects.groupby("image", sort=True):
        if name not in shapes:
            raise BadArgument(f"no shape for image {name!r}; shapes holds {len(shapes)} images")
        first = True
        for axis, length, core_length in zip("yx", shapes[str(name)], core):
            grid = lay_grid(length, core_length, step, first=first)
            if grid is not None:
                first = False
                yield grid, grid.marks(rows, axis)


def _tests(observed: Totals, null: Totals) -> tuple[SeamTest, ...]:
    # one half is added to counts that may be zero
    expected = null.sides.mean() + 0.5
    pairs = {
        "objects near borders": (observed.density(), null.density()),
        "area near borders": (observed.area(), null.area()),
        "straight sides on borders": ((observed.sides + 0.5) / expected, (null.sides + 0.5) / expected),
    }
    raw = [
        _p_value(float(value[0]), chance, upper_only=name.startswith("straight"))
        for name, (value, chance) in pairs.items()
    ]
    return tuple(
        SeamTest(
            name=name,
            ratio=float(value[0]),
            low=float(np.nanquantile(chance, 0.025)),
            high=float(np.nanquantile(chance, 0.975)),
            p=p,
        )
        for (name, (value, chance)), p in zip(pairs.items(), _holm(raw))
    )


def _p_value(value: float, chance: np.ndarray, *, upper_only: bool) -> float:
    above = (1 + int((chance >= value).sum())) / (1 + chance.size)
    if upper_only:
        return above
    below = (1 + int((chance <= value).sum())) / (1 + chance.size)
    return min(1.0, 2 * min(above, below))


def _holm(raw: list[float]) -> list[float]:
    adjusted, largest = [1.0] * len(raw), 0.0
    for rank, index in enumerate(sorted(range(len(raw)), key=raw.__getitem__)):
        largest = max(largest, min(1.0, raw[index] * (len(raw) - rank)))
        adjusted[index] = largest
    return adjusted


def _profile(observed: Totals, null: Totals, step: int) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {"distance_px": (np.arange(NEAR_BINS + RING_BINS) + 0.5) * step}
    for name in ("density", "area"):
        columns[name] = getattr(observed, f"{name}_profile")()[:, 0]
        chance = getattr(null, f"{name}_profile")()
        columns[f"{name}_low"] = np.nanquantile(chance, 0.025, axis=1)
        columns[f"{name}_high"] = np.nanquantile(chance, 0.975, axis=1)
    return pd.DataFrame(columns)
