"""The numbers of a run per image: objects, sizes, intensities, overlap, failures.

Pure table work on the object table and the listing of images; what cannot be computed is NaN, never a guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline.errors import BadArgument
from pipeline.report.run.seams import SeamReport
from pipeline.report.wells import Places, places, with_image

DONE = "done"

INTENSITY = "intensity_mean_"

QUALITY = ("focus", "saturated")
"""Measures of the pixels of an image; columns of the listing are named ``<measure>_<channel>``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """The results of a run as tables."""

    title: str
    """Name of the plate or slide and of the labels."""
    objects: pd.DataFrame
    """Object table, with a column ``image`` or with row, column and field that make it up (``A/1/0``)."""
    images: pd.DataFrame
    """One row per image: ``image``; optional ``row``, ``column``, ``field``, ``status`` (``done`` or why not),
    ``reason``, ``failed_tiles``, ``retries``, ``height_px``, ``width_px``, ``condition``, ``role`` and ``dose`` of the
    layout, ``flags`` (what is unusual about its pixels, such as ``empty; out of focus (DAPI)``), ``focus_<channel>``
    and ``saturated_<channel>`` (share of clipped pixels)."""
    facts: Mapping[str, object]
    """Record of the run as a dictionary; see ``facts.fact_blocks`` for the keys it knows."""
    seams: SeamReport | None = None
    """Seam quality, when the images were tiled."""
    drift: tuple[str, ...] = ()
    """Differences of the plate from earlier ones, one sentence each."""
    layout_gaps: Mapping[str, list[str]] = field(default_factory=dict)
    """Places that only the plate or only the layout has, by a description."""

    def __post_init__(self) -> None:
        known = set(places(self.images).images)
        named = set(with_image(self.objects)["image"].unique())
        if strangers := sorted(named - known):
            raise BadArgument(
                f"{len(strangers)} images of the object table are not in the listing of images, first "
                f"{strangers[0]!r}; list every image"
            )


def channels(objects: pd.DataFrame) -> tuple[str, ...]:
    """Channel names for which the object table has a mean intensity."""
    return tuple(name.removeprefix(INTENSITY) for name in objects.columns if name.startswith(INTENSITY))


def area_column(objects: pd.DataFrame) -> tuple[str, str]:
    """Column and unit of the areas: square micrometres where every object has them, else pixels."""
    if "area_um2" in objects.columns and len(objects) and objects["area_um2"].notna().all():
        return "area_um2", "µm²"
    return "area_px", "px"


def per_image(run: Run) -> tuple[Places, pd.DataFrame]:
    """Places of the images and a table with one row each, in plate order.

    Columns: ``objects`` (NaN where the image is not done), ``area`` (median, unit of ``area_column``),
    ``overlapping`` (share of objects that overlap another), ``intensity_<channel>`` (median of the objects'
    means), ``covered`` (share of the image, where its size is known), ``status``, ``reason``, ``condition``, ``role``,
    ``dose``, ``flags``, ``focus_<channel>``, ``saturated_<channel>``, ``failed_tiles``, ``retries``.
    """
    where = places(run.images)
    listing = (
        run.images.assign(image=run.images["image"].astype(str)).set_index("image").loc[list(where.images)]
    )
    objects = with_image(run.objects)
    table = pd.DataFrame(index=listing.index)
    table["status"] = _column(listing, "status", DONE).astype(str)
    table["reason"] = _column(listing, "reason", "").fillna("").astype(str)
    table["condition"] = _column(listing, "condition", "").fillna("").astype(str)
    table["role"] = _column(listing, "role", "").fillna("").astype(str)
    table["dose"] = _column(listing, "dose", np.nan).astype(float)
    table["flags"] = _column(listing, "flags", "").fillna("").astype(str)
    table["failed_tiles"] = _column(listing, "failed_tiles", 0).fillna(0).astype(int)
    table["retries"] = _column(listing, "retries", 0).fillna(0).astype(int)
    for name in quality_columns(listing):
        table[name] = listing[name].astype(float)
    groups = objects.groupby("image")
    counts = groups.size().reindex(table.index, fill_value=0).astype(float)
    table["objects"] = counts.where((table["status"] == DONE) | (counts > 0))
    table["area"] = groups[area_column(objects)[0]].median().reindex(table.index)
    table["overlapping"] = _overlapping(objects).groupby(objects["image"]).mean().reindex(table.index)
    for channel in channels(objects):
        table[f"intensity_{channel}"] = groups[INTENSITY + channel].median().reindex(table.index)
    size = _column(listing, "height_px", np.nan).astype(float) * _column(listing, "width_px", np.nan).astype(
        float
    )
    shared = objects["overlap_px"] if "overlap_px" in objects.columns else 0
    unshared = (objects["area_px"] - shared / 2).groupby(objects["image"]).sum().reindex(table.index)
    table["covered"] = unshared.where(unshared.notna() | (table["status"] != DONE), 0.0) / size
    return where, table


def quality_columns(table: pd.DataFrame) -> list[str]:
    """The columns of focus and saturation, measure by measure."""
    return [name for kind in QUALITY for name in table.columns if str(name).startswith(f"{kind}_")]


def failures(table: pd.DataFrame) -> pd.Series:
    """Failures per image: tiles that failed, and one for an image that is not done without naming a tile."""
    return table["failed_tiles"].where(table["failed_tiles"] > 0, (table["status"] != DONE).astype(int))


def _overlapping(objects: pd.DataFrame) -> pd.Series:
    if "overlap_px" not in objects.columns:
        return pd.Series(np.nan, index=objects.index)
    return (objects["overlap_px"] > 0).astype(float)


def _column(listing: pd.DataFrame, name: str, default: object) -> pd.Series:
    return listing[name] if name in listing.columns else pd.Series(default, index=listing.index)
