"""The report of a run without truth: key numbers, pictures, plate, decisions, and details.

A page is a function of tables and of callables that return pictures.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.report.blocks import (
    Block,
    Chart,
    KeyNumber,
    KeyNumbers,
    Note,
    Page,
    Section,
    counted,
)
from pipeline.report.charts import histogram
from pipeline.report.facts import fact_blocks, failure_blocks, recorded_failures, recorded_retries
from pipeline.report.page import html_page
from pipeline.report.pictures import PictureOf, WindowOf, numbered
from pipeline.report.plate_charts import plate_chart
from pipeline.report.provenance import run_provenance
from pipeline.report.run.attention import attention_blocks
from pipeline.report.run.classes import class_tables
from pipeline.report.run.conditions import condition_section
from pipeline.report.run.controls import controls_section, has_controls, quality_number, wells_table
from pipeline.report.run.images import image_table
from pipeline.report.run.numbers import INTENSITY, Run, area_column, channels, failures, per_image
from pipeline.report.run.pictures import field_blocks
from pipeline.report.run.review_section import review_section
from pipeline.report.run.seam_section import seam_number, seam_section
from pipeline.report.run.time_section import time_chart
from pipeline.report.wells import Places

MOST_CHANNELS = 3
"""Channels with a plate map and a histogram of their own; all channels are in the table."""


def run_report(run: Run, *, picture: PictureOf | None = None, window: WindowOf | None = None) -> str:
    """Write the report of a run as one HTML file; see ``run_page``."""
    return html_page(run_page(run, picture=picture, window=window))


def run_page(run: Run, *, picture: PictureOf | None = None, window: WindowOf | None = None) -> Page:
    """Lay out the report of a run.

    ``picture`` is called for every finished image, ``window`` for the worst seams; without them the page has
    no pictures of that kind.
    """
    where, table = per_image(run)
    anchors = numbered(where.images)
    wells = wells_table(where, table, _measures(run))
    sections = [
        Section(
            name="summary",
            title="Summary",
            blocks=(
                _key_numbers(run, where, table, wells),
                *_notices(run),
                *attention_blocks(where, table, anchors),
            ),
        ),
    ]
    if fields := field_blocks(where, table, anchors, picture) if picture else ():
        sections.append(Section(name="fields", title="Pictures", blocks=fields))
    if where.is_plate:
        sections.append(_plate_section(run, where, table, anchors))
    if has_controls(table):
        sections.append(controls_section(wells, _measures(run), _well_anchors(where, anchors)))
    if (table["condition"] != "").any():
        sections.append(condition_section(where, table, _measures(run), run.layout_gaps))
    if len(run.objects):
        sections.append(_distributions(run.objects))
    if review := review_section(run, anchors, window):
        sections.append(review)
    images = image_table(run, where, table, anchors)
    sections.append(Section(name="images", title=counted(len(table), "image").capitalize(), blocks=(images,)))
    if run.seams is not None:
        sections.append(seam_section(run.seams, anchors, window))
    if blocks := (*failure_blocks(run.facts), *time_chart(run.facts), *fact_blocks(run.facts)):
        sections.append(Section(name="run", title="Run", blocks=blocks))
    where_from = str(run.facts.get("output") or "")
    return Page(
        title=run.title,
        subtitle=" · ".join(part for part in ("Segmentation report", where_from) if part),
        sections=tuple(sections),
        provenance=run_provenance(run.facts),
    )


def _well_anchors(where: Places, anchors: Mapping[str, str]) -> dict[str, str]:
    """Id of the first picture of each well."""
    anchor_of_well: dict[str, str] = {}
    for image, well in zip(where.images, where.wells):
        anchor_of_well.setdefault(well, anchors.get(image, ""))
    return anchor_of_well


def _distributions(objects: pd.DataFrame) -> Section:
    return Section(
        name="objects",
        title="Distributions",
        blocks=(*class_tables(objects), *_histograms(objects)),
        intro="All objects of the run. The first and the last bar also hold the outer 0.5 % of the values.",
    )


def _key_numbers(run: Run, where: Places, table: pd.DataFrame, wells: pd.DataFrame) -> KeyNumbers:
    done = int((table["status"] == "done").sum())
    failed = max(int(failures(table).sum()), len(recorded_failures(run.facts)))
    retries = recorded_retries(run.facts) or int(table["retries"].sum())
    column, unit = area_column(run.objects)
    numbers = [
        KeyNumber(
            label="Images done",
            value=f"{done:,} of {len(table):,}",
            detail=counted(len(set(where.wells)), "well") if where.is_plate else "",
            tone="good" if done == len(table) else "bad",
        ),
        KeyNumber(
            label="Failures",
            value=f"{failed:,}" if failed else "none",
            detail="named below" if failed else f"{retries:,} retried",
            tone="bad" if failed else "good",
        ),
        KeyNumber(label="Objects", value=f"{len(run.objects):,}", detail=_per_image_text(table)),
    ]
    if len(run.objects):
        low, median, high = np.nanquantile(run.objects[column].to_numpy(float), (0.25, 0.5, 0.75))
        numbers.append(
            KeyNumber(
                label="Median area",
                value=f"{median:,.4g} {unit}",
                detail=f"interquartile range {low:,.4g} to {high:,.4g}",
            )
        )
    if "overlap_px" in run.objects.columns and len(run.objects):
        share = float((run.objects["overlap_px"] > 0).mean())
        numbers.append(
            KeyNumber(
                label="Overlapping", value=f"{share:.1%}", detail="of objects share pixels with another"
            )
        )
    if has_controls(table) and (number := quality_number(wells, _measures(run))):
        numbers.append(number)
    if run.seams is not None:
        numbers.append(seam_number(run.seams))
    return KeyNumbers(numbers=tuple(numbers))


def _per_image_text(table: pd.DataFrame) -> str:
    counts = table["objects"].dropna()
    if not len(counts):
        return ""
    return f"median {counts.median():,.4g} per image, {counts.min():,.0f} to {counts.max():,.0f}"


def _notices(run: Run) -> list[Block]:
    """What concerns the whole plate: planes of a stack, and drift."""
    notes: list[Block] = []
    planes = run.facts.get("z_planes")
    if isinstance(planes, int) and planes > 1:
        text = (
            f"Every image has {planes} z planes, and each was segmented by itself: an object that goes through several "
            "planes is counted in each of them. --project max segments the brightest pixels of all planes instead."
        )
        notes.append(Note(text=text, tone="warn"))
    return notes + [Note(text=f"Drift: {text}.", tone="warn") for text in run.drift]


def _plate_section(run: Run, where: Places, table: pd.DataFrame, anchors: Mapping[str, str]) -> Section:
    unit = area_column(run.objects)[1]
    failed = failures(table)
    conditions = {well: name for well, name in zip(where.wells, table["condition"]) if name}
    maps = [
        ("Objects per well", table["objects"], "sum", "objects"),
        ("Median area", table["area"], "median", unit),
        *(
            (f"Intensity, {channel}", table[f"intensity_{channel}"], "median", "grey value")
            for channel in channels(run.objects)[:MOST_CHANNELS]
        ),
        *([("Failures", failed.astype(float), "sum", "failures")] if failed.any() else []),
    ]
    charts = tuple(
        plate_chart(
            where,
            values,
            title=title,
            how=how,
            unit=unit_,
            anchors=anchors,
            marked=None if title == "Failures" else failed.to_numpy() > 0,
            alarm=title == "Failures",
            notes=conditions,
        )
        for title, values, how, unit_ in maps
        if values.notna().any()
    )
    crosses = "A cross marks a well with failures." if failed.any() else "No well has failures."
    intro = (
        "Area and intensity of an image are the medians over its objects, those of a well the medians over its images. "
        "Colours run from the 5 % to the 95 % quantile of the wells. A click on a well leads to its first picture; a "
        f"well without a colour has no image or no objects. {crosses}"
    )
    return Section(name="plate", title="Plate", intro=intro, blocks=charts)


def _measures(run: Run) -> dict[str, str]:
    """Numbers per image that conditions are compared by."""
    named = {"objects": "objects per image", "area": f"median area ({area_column(run.objects)[1]})"}
    named |= {"overlapping": "share overlapping"} if "overlap_px" in run.objects.columns else {}
    return named | {
        f"intensity_{name}": f"intensity {name}" for name in channels(run.objects)[:MOST_CHANNELS]
    }


def _histograms(objects: pd.DataFrame) -> tuple[Chart, ...]:
    column, unit = area_column(objects)
    wanted = [
        ("Area", column, f"area ({unit})"),
        ("Eccentricity", "eccentricity", "eccentricity (0 round, 1 a line)"),
        *(
            (f"Intensity, {name}", INTENSITY + name, "mean grey value")
            for name in channels(objects)[:MOST_CHANNELS]
        ),
    ]
    return tuple(
        Chart(title=title, figure=histogram(objects[name].to_numpy(float), x_title=x_title), height_px=260)
        for title, name, x_title in wanted
        if name in objects.columns and objects[name].notna().any()
    )
