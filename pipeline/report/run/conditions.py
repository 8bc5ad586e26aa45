"""The conditions of a plate in the report of a run: number, size and intensity of objects by condition.

Medians over images are shown, so that a well with many objects has no larger weight than the others.
"""

from collections.abc import Mapping

import pandas as pd

from pipeline.report.blocks import Block, Chart, Column, Note, Row, Section, Table, counted
from pipeline.report.charts import dots, height_px
from pipeline.report.wells import Places

SHOWN = 8
"""Names that are listed in a note; the others are counted."""


def condition_section(
    where: Places, table: pd.DataFrame, measures: Mapping[str, str], gaps: Mapping[str, list[str]]
) -> Section:
    """Lay out the conditions.

    Args:
        where: the images.
        table: per image, with a column ``condition`` that is empty for images of no condition.
        measures: column of the table to its title, those that get a column here.
        gaps: wells that only the layout or only the plate has, by a description.
    """
    known = table.assign(well=where.wells)[table["condition"] != ""]
    groups = known.groupby("condition", sort=False)
    columns = [Column(name="condition"), Column(name="wells"), Column(name="images")]
    columns += [Column(name=title, hint="Median over images.") for title in measures.values()]
    rows = tuple(
        Row(
            cells=(
                str(name), int(group["well"].replace("", pd.NA).nunique()), len(group),
                *(float(group[measure].median()) for measure in measures),
            )
        )
        for name, group in groups
    )  # fmt: skip
    charts = [
        Chart(
            title=f"{title} by condition",
            figure=dots(per_condition, x_title=title),
            height_px=height_px(len(per_condition)),
        )
        for measure, title in list(measures.items())[:2]
        if (per_condition := _numbers(known, measure))
    ]
    numbers = Table(name="conditions", title="By condition", columns=tuple(columns), rows=rows)
    intro = "Conditions are those of the layout. A dot is an image, the bar the median over images."
    return Section(
        name="conditions", title="Conditions", intro=intro, blocks=(*_notes(gaps), *charts, numbers)
    )


def _numbers(known: pd.DataFrame, measure: str) -> dict[str, dict[str, float]]:
    measured = known[known[measure].notna()]
    return {
        str(name): dict(zip(group.index.astype(str), group[measure].astype(float)))
        for name, group in measured.groupby("condition", sort=False)
    }


def _notes(gaps: Mapping[str, list[str]]) -> list[Block]:
    return [
        Note(
            text=f"{counted(len(names), 'place')} {what}: {', '.join(names[:SHOWN])}"
            f"{f' and {len(names) - SHOWN:,} more' if len(names) > SHOWN else ''}.",
            tone="warn",
        )
        for what, names in gaps.items()
        if names
    ]
