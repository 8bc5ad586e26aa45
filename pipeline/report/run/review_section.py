"""The section of a run report on objects most worth a look: a table, and a picture of each."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report.blocks import (
    Block,
    Column,
    Gallery,
    LegendEntry,
    Note,
    Outline,
    Picture,
    Row,
    Section,
    Table,
)
from pipeline.report.palette import GREY, VERMILLION
from pipeline.report.pictures import WindowOf, contours, large_picture
from pipeline.report.run.doubtful import OVERLAPPED, PLACE, UNUSUAL, doubtful_objects
from pipeline.report.run.numbers import Run, area_column
from pipeline.report.wells import with_image

PICTURES = 12
"""Objects that are shown."""

SIDES_PX = (96, 384)
"""Least and largest side of the picture of an object, which shows it with as much again around it."""


def review_section(run: Run, anchors: Mapping[str, str], window: WindowOf | None) -> Section | None:
    """Lay out the objects to look at first; ``window`` gives their pictures.

    None for a run without objects, and for tables of other programs that do not say where objects are.
    """
    if not len(run.objects) or not set(PLACE) <= set(with_image(run.objects).columns):
        return None
    core = _core_px(run)
    doubtful = doubtful_objects(run.objects, core_px=core)
    if not len(doubtful):
        note = Note(
            text="No object ends at a tile border, is much overlapped or unusual in size or shape.",
            tone="good",
        )
        return Section(name="review", title="Objects to look at", blocks=(note,))
    blocks: list[Block] = [_table(doubtful, anchors)]
    if window and (pictures := _pictures(run, doubtful, window)):
        blocks.append(_gallery(pictures))
    return Section(name="review", title="Objects to look at", intro=_intro(core), blocks=tuple(blocks))


def _core_px(run: Run) -> int | None:
    tiling = run.facts.get("tiling")
    return int(tiling["core"]) if isinstance(tiling, Mapping) and tiling.get("core") else None


def _intro(core: int | None) -> str:
    border = "whose bounding box ends exactly on a tile border, " if core else ""
    return (
        f"Objects {border}of which others cover {OVERLAPPED:.0%} or more, or whose size or shape is more than "
        f"{UNUSUAL} robust standard deviations from the median of the run: the most extreme of each kind. They are "
        "candidates, not errors."
    )


def _table(doubtful: pd.DataFrame, anchors: Mapping[str, str]) -> Table:
    area, unit = area_column(doubtful)
    planes = [name for name in ("t", "z") if name in doubtful.columns and doubtful[name].any()]
    columns = (
        Column(name="image"), *(Column(name=name) for name in planes), Column(name="label"), Column(name="why"),
        Column(name="y", unit="px"), Column(name="x", unit="px"), Column(name="area", unit=unit),
        Column(name="score", digits=2, hint="By the first reason: deviations, share of its pixels, or straight sides."),
    )  # fmt: skip
    rows = tuple(
        Row(
            cells=(
                row["image"] or "image", *(int(row[name]) for name in planes), int(row["label"]), row["reason"],
                round(row["centroid_y"]), round(row["centroid_x"]), float(row[area]), row["score"],
            ),
            anchor=anchors.get(row["image"], ""),
        )
        for row in doubtful.to_dict("records")
    )  # fmt: skip
    return Table(
        name="review", title="", columns=columns, rows=rows, filterable=True,
        caption="The command platelayer review writes the same table. The name leads to the picture of the image.",
    )  # fmt: skip


def _pictures(run: Run, doubtful: pd.DataFrame, window: WindowOf) -> list[Picture]:
    """Pictures of the first objects that lie on the first plane, which is the one that windows show."""
    sizes = run.images.set_index(run.images["image"].astype(str))
    on_first = [row for row in doubtful.to_dict("records") if not row.get("t") and not row.get("z")]
    pictures = []
    for at, row in enumerate(on_first[:PICTURES]):
        size = sizes.loc[row["image"]]
        box = _box(row, (int(size["height_px"]), int(size["width_px"])))
        grey, stack = window(row["image"], *box)
        outlines = () if stack is None else _outlines(stack, int(row["label"]))
        title = f"{row['image'] or 'image'}, object {row['label']}"
        pictures.append(large_picture(f"review-{at}", title, grey, outlines, caption=row["reason"]))
    return pictures


def _box(row: Mapping[Hashable, Any], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square window around an object, moved into the image: y0, y1, x0, x1."""
    extent = max(row["bbox_y1"] - row["bbox_y0"], row["bbox_x1"] - row["bbox_x0"])
    side = int(np.clip(2 * extent, *SIDES_PX))
    sides = []
    for axis, length in zip("yx", size):
        middle = (row[f"bbox_{axis}0"] + row[f"bbox_{axis}1"]) // 2
        start = int(np.clip(middle - side // 2, 0, max(length - side, 0)))
        sides += [start, min(start + side, length)]
    return sides[0], sides[1], sides[2], sides[3]


def _outlines(stack: np.ndarray, label: int) -> tuple[Outline, ...]:
    """Outline the object in colour and its neighbours in grey; the object last, so that it lies on top."""
    drawn = [
        Outline(path=path, colour=VERMILLION if object_id == label else GREY,
                key="object" if object_id == label else "others", title=f"object {object_id}")
        for object_id, _, path in contours(stack)
    ]  # fmt: skip
    return tuple(sorted(drawn, key=lambda outline: outline.key == "object"))


def _gallery(pictures: list[Picture]) -> Gallery:
    legend = (
        LegendEntry(label="the object", key="object", colour=VERMILLION),
        LegendEntry(label="its neighbours", key="others", colour=GREY),
    )
    return Gallery(
        title="", pictures=tuple(pictures), legend=legend, column_px=220, caption="In the order of the table."
    )
