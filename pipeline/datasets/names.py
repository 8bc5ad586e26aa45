"""Where a file lies on a plate by its name: row, column, field, channel, time, depth.

The invariant: a pattern gives every file a place, and no place to two files. Files are not opened here.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import BadArgument

_log = logging.getLogger(__name__)

GROUPS = ("row", "column", "field", "channel", "t", "z")
"""Named groups a pattern can have; row and column are needed."""
_WELL = r"(?:^|[_\- .])(?P<row>[A-Pa-p]|A[A-F])(?P<column>\d{1,2})"
PATTERNS = {
    "Opera, Operetta": (
        r"^r(?P<row>\d+)c(?P<column>\d+)f(?P<field>\d+)(?:p(?P<z>\d+))?-(?P<channel>ch\d+)(?:sk(?P<t>\d+))?"
    ),
    "CellVoyager": _WELL + r"_T(?P<t>\d+)F(?P<field>\d+)L\d+A\d+Z(?P<z>\d+)(?P<channel>C\d+)",
    "ImageXpress, Broad": _WELL + r"(?:_s(?P<field>\d+))?_(?P<channel>w\d)",
    "well, field, channel": (
        _WELL
        + r"[_\-](?:s|f|site|field)[_\-]?(?P<field>\d+)[_\-](?:z(?P<z>\d+)[_\-])?(?P<channel>[A-Za-z][A-Za-z0-9]*)"
    ),
    "well, field": _WELL + r"[_\-](?:s|f|site|field)[_\-]?(?P<field>\d+)(?=[_\- .]|$)",
    "well, channel": _WELL + r"[_\-](?P<channel>(?:ch|c)?\d+|[A-Za-z][A-Za-z0-9]*)$",
    "well": _WELL + r"(?=[_\- .]|$)",
}
"""Patterns that are tried in this order on names without suffix; the first that fits every file is taken."""
_ADVICE = f"give a pattern with named groups out of {', '.join(GROUPS)}"
_LISTED = 3
"""Names shown in the message of an error."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What the name of a file says."""

    well: tuple[str, str]
    """Row as letters, column without leading zeros."""
    field: str
    """Number without leading zeros; ``"0"`` where names have none."""
    channel: str
    """As in the name; empty where names have none."""
    t: int
    """Time, 0 where names have none."""
    z: int
    """Depth, 0 where names have none."""

    def __str__(self) -> str:
        where = f"well {''.join(self.well)}, field {self.field}"
        return f"{where}, channel {self.channel or 'none'}, t {self.t}, z {self.z}"


def places_of(files: list[Path], pattern: str | None) -> dict[Path, Place]:
    """Return the place of every file.

    Args:
        files: TIFF files.
        pattern: regular expression with named groups out of ``GROUPS``, searched in the name without suffix,
            or in the path with ``/`` if the pattern has one; default: the first of ``PATTERNS`` that fits all.

    Raises:
        BadArgument: no such pattern, names that do not fit, two files for one place.
    """
    return _places(files, _compiled(pattern) if pattern else _fitting(files))


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise BadArgument(f"pattern of file names: {pattern!r} is no regular expression: {error}") from error
    groups = set(compiled.groupindex)
    if not {"row", "column"} <= groups <= set(GROUPS):
        raise BadArgument(
            f"pattern of file names: expected the named groups row and column, and none but {', '.join(GROUPS)}; "
            f"got {sorted(groups)} in {pattern!r}"
        )
    return compiled


def _fitting(files: list[Path]) -> re.Pattern[str]:
    """Return the first default pattern that fits every file and gives each its own place."""
    for title, text in PATTERNS.items():
        pattern = re.compile(text)
        matches = [pattern.search(_text(path, pattern)) for path in files]
        if all(matches) and len({match.groups() for match in matches if match}) == len(files):
            _log.info("names of files read as %s: %s", title, text)
            return pattern
    return _nearest(files)


def _nearest(files: list[Path]) -> re.Pattern[str]:
    """Return the pattern that fits most files, so that the error speaks of the ones it does not fit."""
    patterns = [re.compile(text) for text in PATTERNS.values()]
    fits = [sum(bool(pattern.search(_text(path, pattern))) for path in files) for pattern in patterns]
    if not any(fits):
        raise BadArgument(
            f"file names fit none of the known patterns ({'; '.join(PATTERNS)}): {_shown(files)}; {_ADVICE}, "
            r"such as '(?P<row>[A-P])(?P<column>\d+)_(?P<channel>\w+)'"
        )
    return patterns[fits.index(max(fits))]


def _shown(files: list[Path]) -> str:
    return ", ".join(path.name for path in files[:_LISTED]) + (", ..." if len(files) > _LISTED else "")


def _text(path: Path, pattern: re.Pattern[str]) -> str:
    """Return what a pattern is searched in: the name without ``.tif`` and ``.ome``, or the path."""
    stem = path.with_suffix("").as_posix().removesuffix(".ome")
    return stem if "/" in pattern.pattern else stem.rpartition("/")[2]


def _places(files: list[Path], pattern: re.Pattern[str]) -> dict[Path, Place]:
    matches = {path: pattern.search(_text(path, pattern)) for path in files}
    strange = [path for path, match in matches.items() if match is None]
    if strange:
        raise BadArgument(
            f"{len(strange)} of {len(files)} file names do not fit the pattern '{pattern.pattern}': "
            f"{_shown(strange)}; {_ADVICE}, or a glob without these files"
        )
    places = {path: _place(match.groupdict()) for path, match in matches.items() if match}
    taken: dict[Place, Path] = {}
    for path, place in places.items():
        if place in taken:
            raise BadArgument(
                f"{taken[place].name} and {path.name} have the same place ({place}) by the pattern "
                f"'{pattern.pattern}'; give a pattern that tells them apart"
            )
        taken[place] = path
    return places


def _place(groups: Mapping[str, str | None]) -> Place:
    row, column = groups["row"] or "", groups["column"] or ""
    return Place(
        well=(_row_name(int(row)) if row.isdigit() else row.upper(), _plain(column)),
        field=_plain(groups.get("field") or "0"),
        channel=groups.get("channel") or "",
        t=int(groups.get("t") or 0),
        z=int(groups.get("z") or 0),
    )


def _row_name(number: int) -> str:
    """1 -> A, 26 -> Z, 27 -> AA."""
    if number < 1:
        raise BadArgument(f"row of a well: expected a number from 1, got {number}")
    letters = ""
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("A") + digit) + letters
    return letters


def _plain(text: str) -> str:
    return str(int(text)) if text.isdigit() else text
