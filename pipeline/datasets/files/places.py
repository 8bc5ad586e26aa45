"""The place of a file in a dataset: well, field, channel, time and depth, read from its name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import BadArgument

PLATE_COLUMNS = {6: 3, 12: 4, 24: 6, 48: 8, 96: 12, 384: 24, 1536: 48}
"""Columns of a plate by its number of wells."""

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of a file, read from its name."""

    well: tuple[str, str] | None = None
    """Row as letters and column without leading zeros; None for an image that is in no well."""
    image: str = ""
    """Name of the image; empty in a well."""
    field: str = "0"
    """Number of the field in its well, without leading zeros; ``"0"`` where the name has none."""
    channel: str = ""
    """As in the name; empty where the name has none."""
    t: int = 0
    """Time, 0 where the name has none; only the order of times is used."""
    z: int = 0
    """Depth, 0 where the name has none; only the order of depths is used."""

    def __str__(self) -> str:
        where = f"well {''.join(self.well)}, field {self.field}" if self.well else f"image {self.image!r}"
        return f"{where}, channel {self.channel or 'none'}, t {self.t}, z {self.z}"


def place_of(groups: Mapping[str, str | None], *, where: str, plate_wells: int = 96) -> Place:
    """Return the place that the named groups of a pattern give.

    Args:
        groups: groups as described in ``name_patterns``; those that did not match are None.
        where: the file, for messages.
        plate_wells: wells of the plate that a ``well_number`` counts in.

    Raises:
        BadArgument: a row or column that no plate has, or a field that is not letters and digits.
    """
    values = {name: value for name, value in groups.items() if value}
    field = _field(values)
    if not re.fullmatch(r"[A-Za-z0-9]+", field):
        raise BadArgument(f"{where}: expected letters and digits as field, got {field!r}; change the pattern")
    return Place(
        well=_well(values, where, plate_wells),
        image=values.get("image", ""),
        field=field,
        channel=channel_name(values.get("channel", "")),
        t=_number(values.get("t", "0")),
        z=_number(values.get("z", "0")),
    )


def row_name(number: int) -> str:
    """Return the letters of a row counted from 1: 1 is A, 26 is Z, 27 is AA."""
    letters = ""
    while number > 0:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("A") + digit) + letters
    return letters


def channel_name(text: str) -> str:
    """Return a channel as named, a pair of equal filters (``DAPI - DAPI``) as one."""
    first, dash, second = text.partition(" - ")
    return first if dash and first == second else text


def _well(values: Mapping[str, str], where: str, plate_wells: int) -> tuple[str, str] | None:
    if "well_number" in values:
        index = int(values["well_number"]) - 1
        if not 0 <= index < plate_wells:
            raise BadArgument(
                f"{where}: well {values['well_number']} is not in a plate of {plate_wells}; give --plate-wells"
            )
        row, column = divmod(index, PLATE_COLUMNS[plate_wells])
        return row_name(row + 1), str(column + 1)
    if "row0" in values:
        return row_name(int(values["row0"]) + 1), str(int(values["column0"]) + 1)
    if "row" not in values:
        return None
    return _checked_well(values["row"], values.get("column", ""), where)


def _checked_well(row: str, column: str, where: str) -> tuple[str, str]:
    letters = row_name(int(row)) if row.isdecimal() else row.upper()
    if not re.fullmatch(r"[A-Z]{1,2}", letters):
        raise BadArgument(f"{where}: expected a row of letters or a number from 1, got {row!r}")
    if not column.isdecimal() or int(column) < 1:
        raise BadArgument(f"{where}: expected a column from 1, got {column!r}; change the pattern")
    return letters, str(int(column))


def _field(values: Mapping[str, str]) -> str:
    if "field_x" in values:
        return f"X{int(values['field_x'])}Y{int(values['field_y'])}"
    text = values.get("field", "0")
    return str(int(text)) if text.isdecimal() else text


def _number(text: str) -> int:
    """Return the digits of a text as one number, so that ``01d04h30m`` sorts as a time."""
    return int("".join(_DIGITS.findall(text)) or 0)
