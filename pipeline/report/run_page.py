"""The report of a run without truth: what a screening lab looks at after a plate went through.

Plate maps, distributions, seam quality, fields with outlines, every image in a table, and what the run was.
Tables and callables in, a page out; the same input gives the same page.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.report.blocks import (
    Block,
    Chart,
    Column,
    KeyNumber,
    KeyNumbers,
    Note,
    Page,
    Row,
    Section,
    Table,
    Value,
    counted,
    is_blank,
)
from pipeline.report.charts import histogram
from pipeline.report.condition_section import condition_section
from pipeline.report.facts import fact_blocks, failure_blocks, recorded_failures, recorded_retries
from pipeline.report.page import html_page
from pipeline.report.pictures import PictureOf, WindowOf, numbered
from pipeline.report.plate_charts import plate_chart
from pipeline.report.run_numbers import INTENSITY, Run, area_column, channels, failures, per_image
from pipeline.report.run_pictures import field_blocks
from pipeline.report.seam_section import seam_number, seam_section
from pipeline.report.wells import Places

MOST_CHANNELS = 3
"""Channels with a plate map and a histogram of their own; all channels are in the table."""


def run_report(run: Run, *, picture: PictureOf | None = None, window: WindowOf | None = None) -> str:
    """Write the report of a run as one HTML file; see ``run_page``."""
    return html_page(run_page(run, picture=picture, window=window))


def run_page(run: Run, *, picture: PictureOf | None = None, window: WindowOf | None = None) -> Page:
    """Lay out the report of a run.

    ``picture`` is asked for every image that is done, ``window`` for the worst seams; without them the page has
    no pictures of that kind.
    """
    where, table = per_image(run)
    anchors = numbered(where.images)
    fields = field_blocks(where, table, anchors, picture) if picture else ()
    sections = [
        Section(
            name="summary", title="Summary", blocks=(_key_numbers(run, where, table), *_alarms(run, table))
        ),
    ]
    if where.is_plate:
        sections.append(_plate_section(run, where, table, anchors))
    if (table["condition"] != "").any():
        sections.append(condition_section(where, table, _measures(run), run.layout_gaps))
    if len(run.objects):
        sections.append(
            Section(
                name="objects",
                title="Objects",
                blocks=_histograms(run.objects),
                intro="All objects of the run. The outer bars also hold the outer 0.5 % of the values on their side.",
            )
        )
    if run.seams is not None:
        sections.append(seam_section(run.seams, anchors, window))
    if fields:
        sections.append(Section(name="fields", title="Fields", blocks=fields))
    sections.append(
        Section(name="images", title="Images", blocks=(_image_table(run, where, table, anchors),))
    )
    if blocks := fact_blocks(run.facts):
        sections.append(Section(name="run", title="Run", blocks=blocks))
    return Page(title=run.title, subtitle=_subtitle(run), sections=tuple(sections))


def _subtitle(run: Run) -> str:
    parts = [str(run.facts[key]) for key in ("output", "segmenter", "run") if run.facts.get(key)]
    return " · ".join(["Segmentation report", *parts])


def _key_numbers(run: Run, where: Places, table: pd.DataFrame) -> KeyNumbers:
    done = int((table["status"] == "done").sum())
    failed = max(int(failures(table).sum()), len(recorded_failures(run.facts)))
    retries = recorded_retries(run.facts) or int(table["retries"].sum())
    column, unit = area_column(run.objects)
    numbers = [
        KeyNumber(
            label="Images done",
            value=f"{done:,} of {len(table):,}",
            detail=f"{len(set(where.wells)):,} wells" if where.is_plate else "",
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
                detail=f"middle half {low:,.4g} to {high:,.4g}",
            )
        )
    if "overlap_px" in run.objects.columns and len(run.objects):
        share = float((run.objects["overlap_px"] > 0).mean())
        numbers.append(KeyNumber(label="Overlapping", value=f"{share:.1%}", detail="of objects share pixels"))
    if run.seams is not None:
        numbers.append(seam_number(run.seams))
    return KeyNumbers(numbers=tuple(numbers))


def _per_image_text(table: pd.DataFrame) -> str:
    counts = table["objects"].dropna()
    if not len(counts):
        return ""
    return f"median {counts.median():,.4g} per image, {counts.min():,.0f} to {counts.max():,.0f}"


def _alarms(run: Run, table: pd.DataFrame) -> tuple[Block, ...]:
    blocks: list[Block] = []
    undone = table[table["status"] != "done"]
    if len(undone):
        names = ", ".join(f"{name or 'image'} ({row.status})" for name, row in undone.head(8).iterrows())
        more = f" and {len(undone) - 8:,} more" if len(undone) > 8 else ""
        blocks.append(Note(text=f"{counted(len(undone), 'image')} not done: {names}{more}.", tone="bad"))
    empty = int((table["objects"] == 0).sum())
    if empty:
        names = ", ".join(str(name) or "image" for name in table.index[table["objects"] == 0][:8])
        blocks.append(
            Note(text=f"{counted(empty, 'image')} done and without any object: {names}.", tone="warn")
        )
    return (*blocks, *failure_blocks(run.facts))


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
        "Area and intensity are medians over a well's images of the median over their objects. A click on a well "
        f"leads to its first picture; empty places have no image or no number. {crosses}"
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


def _image_table(run: Run, where: Places, table: pd.DataFrame, anchors: Mapping[str, str]) -> Table:
    unit = area_column(run.objects)[1]
    columns = [
        Column(name="image"),
        *([Column(name="well")] if where.is_plate else []),
        Column(name="condition"),
        Column(name="status"),
        Column(name="objects", digits=0),
        Column(name="median area", unit=unit),
        Column(
            name="covered",
            digits=3,
            hint="Share of the image that objects cover; shared pixels count once a pair.",
        ),
        Column(name="overlapping", digits=3, hint="Share of the objects that share pixels with another."),
        *(
            Column(name=f"intensity {name}", hint="Median over objects of their mean.")
            for name in channels(run.objects)
        ),
        Column(name="failed tiles"),
        Column(name="retries"),
        Column(name="reason"),
    ]
    numbers = [
        "objects",
        "area",
        "covered",
        "overlapping",
        *(f"intensity_{name}" for name in channels(run.objects)),
    ]
    rows = []
    for well, (name, row) in zip(where.wells, table.iterrows()):
        cells: list[Value] = [str(name) or "image", *([well] if where.is_plate else [])]
        cells += [row["condition"], row["status"]]
        cells += [float(row[number]) for number in numbers]
        cells += [int(row["failed_tiles"]), int(row["retries"]), row["reason"]]
        rows.append(
            Row(cells=tuple(cells), anchor=anchors.get(str(name), ""), group=well if where.is_plate else "")
        )
    shown = [
        at for at, column in enumerate(columns) if at == 0 or any(not _empty(row.cells[at]) for row in rows)
    ]
    return Table(
        name="images",
        title=f"{len(rows):,} images",
        columns=tuple(columns[at] for at in shown),
        rows=tuple(
            Row(cells=tuple(row.cells[at] for at in shown), anchor=row.anchor, group=row.group)
            for row in rows
        ),
        filterable=True,
        caption="A click on a heading sorts; the name leads to the picture.",
    )


def _empty(value: Value) -> bool:
    return is_blank(value) or value == ""
