"""The objects of a run that are most worth a look: cut at a tile border, of unusual size or shape, or much overlapped.

The list is for visual inspection and no statistical test. The most extreme objects of each reason are taken in turn,
so that all reasons are represented. Only tables are used.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pipeline.report.run.numbers import area_column
from pipeline.report.wells import with_image

UNUSUAL = 3.5
"""Robust standard deviations from the median beyond which an area or a shape is listed."""

LEAST_SPREAD = 0.05
"""Least standard deviation of the logarithm of a size or shape: objects that are all alike have no outliers of 1 %."""

OVERLAPPED = 0.2
"""Share of an object's pixels that others cover too, from which it is listed."""

FEWEST = 20
"""Objects below which no area or shape counts as unusual."""

MOST = 48
"""Objects that are listed at most."""

PLACE = ("image", "t", "z", "label", "centroid_y", "centroid_x", "bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1")
"""Columns that say where an object is."""


def doubtful_objects(objects: pd.DataFrame, *, core_px: int | None = None, most: int = MOST) -> pd.DataFrame:
    """Return the objects to inspect first, the most extreme of each reason in turn.

    Args:
        objects: object table of a run, with a column ``image`` or with row, column and field that make it up.
        core_px: side of the tiles' cores; None where images were not tiled.
        most: number of objects to return at most.

    Returns:
        The columns that say where an object is, its area, ``reason`` (all that apply, in words) and ``score`` (how
        unusual it is for the first of them, larger is more so).
    """
    objects = with_image(objects).reset_index(drop=True)
    by_reason = pd.DataFrame(dict(_scores(objects, core_px)), index=objects.index)
    chosen = _in_turn(by_reason, most)
    area = area_column(objects)[0]
    table = objects.loc[chosen, [*(name for name in PLACE if name in objects.columns), area]].copy()
    scores = by_reason.loc[chosen].to_numpy(float)
    table["reason"] = [", ".join(by_reason.columns[~np.isnan(row)]) for row in scores]
    table["score"] = [float(row[~np.isnan(row)][0]) for row in scores]
    return table.reset_index(drop=True)


def _scores(objects: pd.DataFrame, core_px: int | None) -> Iterator[tuple[str, pd.Series]]:
    """Yield each reason with its score per object; NaN where it does not apply."""
    if core_px:
        yield "ends at a tile border", _straight_sides(objects, core_px)
    if "overlap_px" in objects.columns:
        share = objects["overlap_px"] / objects["area_px"]
        yield "much overlapped", share.where(share >= OVERLAPPED)
    if len(objects) < FEWEST:
        return
    area = _deviations(objects["area_px"])
    yield "large", area.where(area > UNUSUAL)
    yield "small", (-area).where(area < -UNUSUAL)
    if {"major_axis_px", "minor_axis_px"} <= set(objects.columns):
        yield from _shapes(
            objects[~objects["touches_edge"]] if "touches_edge" in objects.columns else objects
        )


def _shapes(inside: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """Yield the reasons that concern the shape of objects that lie inside the image."""
    major, minor = (inside[f"{axis}_axis_px"].clip(lower=1.0) for axis in ("major", "minor"))
    long = _deviations(major / minor)
    yield "long", long.where(long > UNUSUAL)
    # An ellipse of the same moments has the area pi/4 times its axes; an object with bays or branches has less.
    ragged = -_deviations(inside["area_px"] / (np.pi / 4 * major * minor))
    yield "ragged", ragged.where(ragged > UNUSUAL)


def _straight_sides(objects: pd.DataFrame, core_px: int) -> pd.Series:
    """Number of sides of the bounding box that lie on a tile border; NaN for none, and at the border of the image."""
    sides = sum((objects[f"bbox_{side}"] % core_px == 0).astype(float) for side in ("y0", "x0", "y1", "x1"))
    inner = ~objects["touches_edge"] if "touches_edge" in objects.columns else True
    counted: pd.Series = pd.Series(sides, index=objects.index).where((pd.Series(sides) > 0) & inner)
    return counted


def _deviations(values: pd.Series) -> pd.Series:
    """Distance of the logarithm of positive values from its median in standard deviations, both robust."""
    logarithm = pd.Series(np.log(values.to_numpy(float)), index=values.index)
    centred = logarithm - logarithm.median()
    return centred / max(1.4826 * float(centred.abs().median()), LEAST_SPREAD)


def _in_turn(scores: pd.DataFrame, most: int) -> list[int]:
    """Return index values: the highest score of each reason, then the second of each, and so on."""
    ranked = [scores[reason].dropna().sort_values(ascending=False, kind="stable").index for reason in scores]
    chosen: dict[int, None] = {}
    for turn in range(max((len(order) for order in ranked), default=0)):
        for order in ranked:
            if turn < len(order) and len(chosen) < most:
                chosen.setdefault(int(order[turn]))
    return list(chosen)
