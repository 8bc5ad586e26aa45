"""The blocks of a report as plain values: sections of key numbers, tables, charts, galleries and notes.

A page is built once from tables and pictures; HTML, Markdown and CSV are written from the same value, so they agree on
every number. This module knows no stores, templates or plotting library.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import BadArgument

Value = str | float | int | None
"""Content of a cell: text, a number, or nothing (None or NaN)."""

TONES = ("plain", "good", "bad", "warn")


def is_blank(value: Value) -> bool:
    """Tell whether a cell is None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number_text(value: Value, digits: int | None = None) -> str:
    """Write a value for people: thousands separated, floats with ``digits`` decimals, nothing as a dash.

    Without ``digits`` a float gets three significant digits.
    """
    if value is None or is_blank(value):
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if digits is not None:
        return f"{value:,.{digits}f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 image``, ``2 images``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table."""

    name: str
    """Heading, also the column name in CSV."""
    hint: str = ""
    """One sentence that explains the measure."""
    digits: int | None = None
    """Decimals shown; CSV keeps them all."""
    best: str = ""
    """``high`` or ``low`` puts the best rows in bold; empty: none."""
    unit: str = ""
    """Unit of the numbers, shown in the heading."""

    def __post_init__(self) -> None:
        if self.best not in ("", "high", "low"):
            raise BadArgument(f"column {self.name!r}: best must be '', 'high' or 'low', got {self.best!r}")

    @property
    def heading(self) -> str:
        """Name with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table."""

    cells: tuple[Value, ...]
    """One value per column."""
    anchor: str = ""
    """Id of the picture that the first cell links to."""
    group: str = ""
    """Well by which the reader filters."""
    link: str = ""
    """Page that the first cell leads to, where it has no picture."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers in rows; sortable and, with groups, filtered by well."""

    kind: ClassVar[str] = "table"
    name: str
    """Short name, the file name of its CSV."""
    title: str
    """Heading; empty where that of the section says it."""
    columns: tuple[Column, ...]
    """Columns, left to right."""
    rows: tuple[Row, ...]
    """Rows, top to bottom as first shown."""
    caption: str = ""
    """Meaning and origin of the numbers."""
    filterable: bool = False
    """Whether the reader gets a filter box."""
    narrow: bool = False
    """Takes half the width of the page."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise BadArgument(
                    f"table {self.name!r}: expected {len(self.columns)} cells, got {len(row.cells)}"
                )

    def best_cells(self) -> frozenset[tuple[int, int]]:
        """``(row, column)`` of the cells that show the best value of their column, where a comparison is asked."""
        return frozenset(
            (row, column) for column in range(len(self.columns)) for row in self._best_rows(column)
        )

    def _best_rows(self, column: int) -> list[int]:
        wanted = self.columns[column].best
        digits = self.columns[column].digits
        shown = {
            index: round(float(value), 12 if digits is None else digits)
            for index, row in enumerate(self.rows)
            if isinstance(value := row.cells[column], int | float) and not is_blank(value)
        }
        if not wanted or len(shown) < 2:
            return []
        best = max(shown.values()) if wanted == "high" else min(shown.values())
        return [index for index, value in shown.items() if value == best]

    def numeric(self, column: int) -> bool:
        """Tell whether a column holds numbers (and blanks) only."""
        values = [row.cells[column] for row in self.rows]
        return any(not is_blank(value) for value in values) and not any(
            isinstance(value, str) for value in values
        )

    def text(self, row: int, column: int) -> str:
        """Write one cell for people."""
        return number_text(self.rows[row].cells[column], self.columns[column].digits)


@dataclass(frozen=True, kw_only=True)
class KeyNumber:
    """A key number at the top of a page."""

    label: str
    """Name of the number."""
    value: str
    """The number as it is shown."""
    detail: str = ""
    """Interval, unit or remark below it."""
    tone: str = "plain"
    """``plain``, ``good``, ``warn`` or ``bad``; colour is never the only sign, the text has to tell it too."""

    def __post_init__(self) -> None:
        if self.tone not in TONES:
            raise BadArgument(f"tone must be one of {TONES}, got {self.tone!r}")


@dataclass(frozen=True, kw_only=True)
class KeyNumbers:
    """The key numbers at the top of a page."""

    kind: ClassVar[str] = "numbers"
    numbers: tuple[KeyNumber, ...]
    """In reading order."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """An important sentence."""

    kind: ClassVar[str] = "note"
    text: str
    """The sentence."""
    tone: str = "plain"
    """As in ``KeyNumber``."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """An interactive figure."""

    kind: ClassVar[str] = "chart"
    title: str
    """Heading."""
    figure: str
    """Plotly figure as JSON."""
    caption: str = ""
    """Explanation of the figure."""
    height_px: int = 320
    """Height on the page."""
    aspect: float = 0.0
    """Width over height; when it is given the height follows the width."""
    width_px: int = 0
    """Largest width of the figure; 0: the width of its place."""
    wide: bool = False
    """Takes the full width of the page instead of half of it."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The contour of one object, or a straight line, over a picture."""

    path: str
    """SVG path in image pixels."""
    colour: str
    """Stroke."""
    key: str
    """Legend entries that show and hide it, separated by blanks; it is seen while all of them are on."""
    title: str = ""
    """Shown on hover."""
    dashed: bool = False
    """Dashed lines are truth."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image with outlines over it."""

    anchor: str
    """Id on the page; rows and heat maps link here."""
    title: str
    """Name of the image."""
    source: str
    """Data URI."""
    width: int
    """Width of the view box in image pixels."""
    height: int
    """Height of the view box in image pixels."""
    caption: str = ""
    """Numbers of the image."""
    group: str = ""
    """Well by which the reader filters."""
    outlines: tuple[Outline, ...] = ()
    """Drawn in this order."""
    place: tuple[int, int] | None = None
    """Row and column in a gallery in the shape of a plate, from 1."""
    lines: str = ""
    """Outlines as a transparent picture (data URI), where there are too many for paths; legend key ``outlines``."""


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """A kind of outline."""

    label: str
    """What it means."""
    key: str = ""
    """As in ``Outline.key``; empty: it cannot be hidden by itself."""
    colour: str = ""
    """Stroke; empty: the entry only shows and hides."""
    dashed: bool = False
    """As in ``Outline.dashed``."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures in a grid with a legend."""

    kind: ClassVar[str] = "gallery"
    title: str
    """Heading; empty where that of the section says it."""
    pictures: tuple[Picture, ...]
    """In reading order."""
    legend: tuple[LegendEntry, ...] = ()
    """What the colours mean."""
    caption: str = ""
    """The selection of the pictures, and those that are not shown."""
    plate_columns: int = 0
    """Columns of the plate in whose shape the pictures stand; 0: as many abreast as fit."""
    column_px: int = 360
    """Least width of a column on a wide screen; narrow columns stand three abreast on a phone."""


Block = Table | KeyNumbers | Note | Chart | Gallery


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page with its place in the navigation."""

    name: str
    """Id on the page."""
    title: str
    """Heading."""
    blocks: tuple[Block, ...]
    """Content, top to bottom."""
    intro: str = ""
    """One or two sentences below the heading."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report."""

    title: str
    """Heading and window title."""
    subtitle: str
    """Location and origin of the data."""
    sections: tuple[Section, ...]
    """Top to bottom."""
    provenance: tuple[tuple[str, str], ...] = ()
    """Provenance as names and values, in reading order."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables of the page, in order."""
        blocks = (block for section in self.sections for block in section.blocks)
        return tuple(block for block in blocks if isinstance(block, Table))
