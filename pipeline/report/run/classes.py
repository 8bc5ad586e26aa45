"""Objects of a run by class, where its model tells several kinds of object."""

import pandas as pd

from pipeline.report.blocks import Column, Row, Table
from pipeline.report.run.numbers import area_column


def class_tables(objects: pd.DataFrame) -> list[Table]:
    """Return the table of classes, the most frequent first; none for objects without classes."""
    if "class" not in objects.columns or not len(objects):
        return []
    column, unit = area_column(objects)
    groups = objects.groupby(objects["class"].astype(str), sort=True)
    counts = groups.size().sort_values(ascending=False, kind="stable")
    areas = groups[column].median().to_dict()
    return [
        Table(
            name="classes",
            title="Objects by class",
            columns=(
                Column(name="class"),
                Column(name="objects", digits=0),
                Column(name="share", digits=3),
                Column(name="median area", digits=1, unit=unit),
            ),
            rows=tuple(
                Row(cells=(str(name), int(count), float(count) / len(objects), float(areas[name])))
                for name, count in counts.to_dict().items()
            ),
            narrow=True,
        )
    ]
