"""Plate layouts: a table of the condition of each well, by which numbers are grouped.

A layout names wells (of one plate, or of every plate alike, or by a column ``plate``) or, for collections that are no
plates, images. Tables in, conditions out; wells without a condition and conditions without a well are reported.
"""

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from pipeline.errors import BadArgument
from pipeline.report.wells import well_name

CONDITION = "condition"
"""Default name of the column of conditions."""

ROLE = "role"
"""Name of the column of the roles of wells (controls or samples)."""

DOSE = ("dose", "conc")
"""Beginnings of the names of columns of doses."""

WELL = re.compile(r"([A-Za-z]{1,2})[/_ -]?0*([1-9][0-9]*)")
"""B3, B03, B/3 and the like."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """The place of an image in a collection."""

    image: str
    """Its name."""
    plate: str = ""
    """Name of its plate."""
    well: str = ""
    """``B03``; empty for an image that lies on no plate."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Conditions, roles and doses of wells or images."""

    key: str
    """``well`` or ``image``: what its rows name."""
    by_plate: bool
    """Whether rows name their plate; if not, they hold for every plate."""
    conditions: dict[tuple[str, str], str | None]
    """Condition by (plate or empty, well or image); None where the table leaves it blank."""
    roles: dict[tuple[str, str], str] = field(default_factory=dict)
    """``positive`` or ``negative`` of control wells, by the same places; empty for other wells."""
    doses: dict[tuple[str, str], float] = field(default_factory=dict)
    """Dose by the same places, where the table has a column of numbers for it."""

    def place(self, spot: Spot) -> tuple[str, str]:
        """How a row would name the place of an image."""
        return spot.plate if self.by_plate else "", spot.well if self.key == "well" else spot.image


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """The conditions of the images of a collection."""

    conditions: dict[str, str | None]
    """By image; None where the layout leaves it blank or does not name the place."""
    roles: dict[str, str]
    """By image, ``positive``, ``negative`` or empty."""
    doses: dict[str, float]
    """By image, for images whose place has a dose."""
    without_condition: list[str]
    """Images whose place the layout does not name."""
    unknown_places: list[str]
    """Places of the layout that no image of the collection has."""


def well_text(text: str) -> str | None:
    """Name of a well as `well_name` writes it, from the ways people do; None for what is no well."""
    match = WELL.fullmatch(text.strip())
    return well_name(match[1].upper(), match[2]) if match else None


def layout_of(table: pd.DataFrame, *, name: str, column: str = CONDITION) -> Layout:
    """Read a table with a column ``well`` (or ``image``), one of conditions, and maybe ``plate``.

    Capitals in the names of columns do not matter. ``name`` is what errors call the table.

    Raises:
        BadArgument: a column is missing, a well is none, or a place is named twice.
    """
    named = {str(heading).strip().lower(): heading for heading in table.columns}
    key = next((choice for choice in ("well", "image") if choice in named), None)
    if key is None or column.strip().lower() not in named:
        raise BadArgument(
            f"{name}: expected columns well (or image) and {column}, got {', '.join(map(str, table.columns))}; "
            "--condition-column names another column of conditions"
        )
    if table.empty:
        raise BadArgument(f"{name}: expected at least one row, got none")
    plates = _texts(table[named["plate"]]) if "plate" in named else [""] * len(table)
    conditions: dict[tuple[str, str], str | None] = {}
    roles: dict[tuple[str, str], str] = {}
    doses: dict[tuple[str, str], float] = {}
    further = zip(_roles(table, named, name), _doses(table, named))
    rows = zip(plates, _texts(table[named[key]]), _texts(table[named[column.strip().lower()]]))
    for number, (plate, place, condition) in enumerate(rows, start=1):
        known = well_text(place) if key == "well" else place
        if not known:
            raise BadArgument(f"{name}, row {number}: expected {_wanted(key)}, got {place!r}")
        at = plate.removesuffix(".zarr"), known
        if at in conditions:
            raise BadArgument(f"{name}, row {number}: {_name(at)} is named twice; a place has one condition")
        conditions[at] = condition or None
        role, dose = next(further)
        roles[at] = role
        if dose is not None:
            doses[at] = dose
    return Layout(key=key, by_plate="plate" in named, conditions=conditions, roles=roles, doses=doses)


def _roles(table: pd.DataFrame, named: Mapping[str, Hashable], name: str) -> list[str]:
    """Role of each row from the column ``role``: positive or negative controls, anything else is a sample."""
    if ROLE not in named:
        return [""] * len(table)
    texts = [text.lower() for text in _texts(table[named[ROLE]])]
    roles = ["positive" if t.startswith("pos") else "negative" if t.startswith("neg") else "" for t in texts]
    if not any(roles):
        raise BadArgument(f"{name}: expected positive or negative in some rows of the column role, got none")
    return roles


def _doses(table: pd.DataFrame, named: Mapping[str, Hashable]) -> list[float | None]:
    """Dose of each row from the first column whose name begins with dose or conc; None where it is no number."""
    heading = next((named[text] for text in named if text.startswith(DOSE)), None)
    if heading is None:
        return [None] * len(table)
    numbers = pd.to_numeric(pd.Series(_texts(table[heading])), errors="coerce")
    return [None if pd.isna(number) else float(number) for number in numbers]


def assign(layout: Layout, spots: Iterable[Spot], *, name: str) -> Assigned:
    """Assign conditions to the images of a collection.

    Raises:
        BadArgument: no place of the layout is in the collection.
    """
    spots = list(spots)
    named = {layout.place(spot) for spot in spots}
    strangers = [_name(at) for at in layout.conditions if at not in named]
    if len(strangers) == len(layout.conditions):
        known = ", ".join(sorted(_name(at) for at in named if at[1])[:8]) or f"no image has a {layout.key}"
        raise BadArgument(
            f"{name}: none of its {len(strangers)} {layout.key}s ({', '.join(strangers[:5])} ...) is in the data; "
            f"there are: {known}"
        )
    return Assigned(
        conditions={spot.image: layout.conditions.get(layout.place(spot)) for spot in spots},
        roles={spot.image: layout.roles.get(layout.place(spot), "") for spot in spots},
        doses={
            spot.image: layout.doses[layout.place(spot)]
            for spot in spots
            if layout.place(spot) in layout.doses
        },
        without_condition=[spot.image for spot in spots if layout.place(spot) not in layout.conditions],
        unknown_places=strangers,
    )


def _texts(values: pd.Series) -> list[str]:
    return ["" if pd.isna(value) else _text(value) for value in values]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).strip()


def _wanted(key: str) -> str:
    return "a well such as B03" if key == "well" else "the name of an image"


def _name(at: tuple[str, str]) -> str:
    return " ".join(part for part in at if part)
