"""The meaning of file names: by the pattern of a microscope, by their parts, or by the user's own pattern.

The invariant: a name is accepted only if all of it is explained, and no two files have the same place. Files are not
opened here.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.datasets.files.name_parts import Part, parts_of, places_by_parts, shown
from pipeline.datasets.files.name_patterns import PATTERNS, NamePattern
from pipeline.datasets.files.places import PLATE_COLUMNS, Place, place_of
from pipeline.datasets.files.source_files import SourceFile
from pipeline.errors import BadArgument

GROUPS = ("row", "column", "field", "channel", "t", "z", "image")
"""Named groups a user's pattern can have: row and column, or image."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The places of the files of a source, read from their names."""

    title: str
    """How the names were read, for messages."""
    places: Mapping[SourceFile, Place]
    """Place of every file that is used."""
    notes: tuple[str, ...] = field(default=())
    """Files that were left out and assumptions that were made, one sentence each."""


def read_names(
    files: Sequence[SourceFile], pattern: str | None = None, *, plate_wells: int | None = None
) -> Reading:
    """Return the place of every file.

    Args:
        files: files to place.
        pattern: regular expression with named groups out of ``GROUPS``, searched in the name without suffix, or
            in the relative path if the pattern has a ``/``; None tries the microscopes, then the parts of names.
        plate_wells: wells of the plate where names count wells (CQ1).

    Raises:
        BadArgument: a bad pattern, names that do not fit, a part that is not understood, two files in one place.
    """
    if plate_wells is not None and plate_wells not in PLATE_COLUMNS:
        raise BadArgument(
            f"--plate-wells: expected one of {', '.join(map(str, PLATE_COLUMNS))}, got {plate_wells}"
        )
    if pattern is not None:
        reading = _by_own_pattern(files, pattern)
    else:
        planes, notes = _without_projections(files)
        reading = _by_microscope(planes, plate_wells) or _by_parts(planes)
        reading = replace(reading, notes=(*notes, *reading.notes))
    _check_apart(reading)
    return reading


def _without_projections(files: Sequence[SourceFile]) -> tuple[list[SourceFile], list[str]]:
    """Leave out ImageXpress's folders ``ZStep_0``, which hold projections, where there are planes beside them."""
    steps = {file: re.search(r"(?:^|/)ZStep_(\d+)/", file.relative) for file in files}
    planes = [file for file in files if not (match := steps[file]) or int(match[1])]
    if len(planes) in (0, len(files)):
        return list(files), []
    return planes, [f"{len(files) - len(planes)} file(s) in folders ZStep_0 hold projections: left out"]


def _by_own_pattern(files: Sequence[SourceFile], pattern: str) -> Reading:
    compiled = _compiled(pattern)
    texts = {file: file.stem if "/" in pattern else file.stem.rpartition("/")[2] for file in files}
    matches = {file: compiled.search(text) for file, text in texts.items()}
    strange = [file for file, match in matches.items() if match is None]
    if strange:
        raise BadArgument(
            f"{len(strange)} of {len(files)} file names do not fit the pattern {pattern!r}: {shown(strange)}; change "
            "the pattern, or leave these files out by a glob"
        )
    places = {file: place_of(match.groupdict(), where=str(file)) for file, match in matches.items() if match}
    return Reading(title=f"by the pattern {pattern!r}", places=places)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise BadArgument(f"--pattern: {pattern!r} is no regular expression: {error}") from error
    groups = set(compiled.groupindex)
    if not groups <= set(GROUPS) or ({"row", "column"} <= groups) == ("image" in groups):
        raise BadArgument(
            f"--pattern: expected the named groups row and column (a plate) or image (no plate), and none but "
            f"{', '.join(GROUPS)}; got {sorted(groups)} in {pattern!r}"
        )
    return compiled


def _by_microscope(files: Sequence[SourceFile], plate_wells: int | None) -> Reading | None:
    """Read names by the pattern that fits all of them; one that fits most names the ones it does not fit."""
    fits = {kind: [file for file in files if kind.regex.fullmatch(file.stem)] for kind in PATTERNS}
    best = max(PATTERNS, key=lambda kind: len(fits[kind]))
    if 2 * len(fits[best]) <= len(files):
        return None
    strange = sorted(set(files) - set(fits[best]))
    if strange:
        raise BadArgument(
            f"{len(strange)} of {len(files)} names are not those of {best.title} (such as {best.example}), as the "
            f"others are: {shown(strange)}; leave these files out by a glob, or give --pattern"
        )
    return _read_as(best, files, plate_wells)


def _read_as(kind: NamePattern, files: Sequence[SourceFile], plate_wells: int | None) -> Reading:
    matches = {file: match for file in files if (match := kind.regex.fullmatch(file.stem))}
    _check_constant(kind, matches)
    counted = [
        int(match["well_number"]) for match in matches.values() if "well_number" in kind.regex.groupindex
    ]
    wells, notes = _plate(counted, plate_wells)
    places = {
        file: place_of(match.groupdict(), where=str(file), plate_wells=wells)
        for file, match in matches.items()
    }
    return Reading(title=f"as {kind.title} names them", places=places, notes=tuple(notes))


def _plate(numbers: Sequence[int], plate_wells: int | None) -> tuple[int, list[str]]:
    """Return the wells of the plate that well numbers count in, and what was assumed."""
    if not numbers:
        return 96, []
    if plate_wells:
        return plate_wells, []
    smallest = next((wells for wells in PLATE_COLUMNS if wells >= max(96, *numbers)), max(PLATE_COLUMNS))
    return smallest, [
        f"the names count wells: taken as numbers along the rows of a plate of {smallest}; another plate by "
        "--plate-wells"
    ]


def _check_constant(kind: NamePattern, matches: Mapping[SourceFile, re.Match[str]]) -> None:
    """Refuse names that differ in a part the pattern does not name, such as two plates in one folder."""
    first: dict[str, SourceFile] = {}
    for file, match in matches.items():
        first.setdefault(_unnamed(match), file)
    if len(first) > 1:
        raise BadArgument(
            f"names as {kind.title} writes them, but they differ in a part that says neither well, field, channel, "
            f"time nor depth: {shown(list(first.values()))}; ingest one plate at a time by a glob, or give --pattern"
        )


def _unnamed(match: re.Match[str]) -> str:
    """Return a name with the text of every named group cut out."""
    spans = sorted(match.span(name) for name in match.re.groupindex if match.start(name) >= 0)
    pieces, end = [], 0
    for start, stop in spans:
        pieces.append(match.string[end:start])
        end = stop
    return "\0".join([*pieces, match.string[end:]])


def _by_parts(files: Sequence[SourceFile]) -> Reading:
    places = places_by_parts(files)
    if places is not None:
        return Reading(title="by the parts of their names", places=places)
    return Reading(
        title="as images named after the files (no wells in the names)", places=places_by_image(files)
    )


def _check_apart(reading: Reading) -> None:
    owners: dict[Place, SourceFile] = {}
    for file, place in reading.places.items():
        known = replace(place, channel=place.channel.lower())
        if known in owners:
            raise BadArgument(
                f"{owners[known]} and {file} have the same place ({place}), read {reading.title}; leave one out by a "
                "glob, or give a --pattern that tells them apart"
            )
        owners[known] = file


_AXES = frozenset(("z", "t", "channel"))

Counted = tuple[Part, Mapping[str, str]]
"""A part of a name and what it says."""


def places_by_image(files: Sequence[SourceFile]) -> dict[SourceFile, Place]:
    """Return the image of every file, and its channel, time and depth where names of one image differ in them."""
    counted = {file: [_counted(part) for part in parts_of(file.stem)] for file in files}
    said = {file: [item for item in items if item] for file, items in counted.items()}
    axes = _differing(said)
    return {file: _place(file, said[file], axes) for file in files}


def _counted(part: Part) -> Counted | None:
    counted = next((meaning for meaning in part.meanings if frozenset(meaning) <= _AXES), None)
    return (part, counted) if counted else None


def _differing(said: Mapping[SourceFile, Sequence[Counted]]) -> frozenset[str]:
    """Return the axes in which files differ whose names are otherwise the same."""
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for file, items in said.items():
        groups[_without(file.stem, [part for part, _ in items])].append(_merged(items))
    return frozenset(
        axis for group in groups.values() for axis in _AXES if len({values.get(axis) for values in group}) > 1
    )


def _merged(items: Iterable[Counted]) -> dict[str, str]:
    return {kind: text for _, meaning in items for kind, text in meaning.items()}


def _without(name: str, parts: Sequence[Part]) -> str:
    """Return a name without some parts, each with the separator before it (after it, at the beginning)."""
    for part in reversed(parts):
        before = name[: part.start].rstrip("_-. ,()[]=+")
        after = name[part.stop :]
        name = before + (after if before and not before.endswith("/") else after.lstrip("_-. ,()[]=+"))
    return name


def _place(file: SourceFile, items: Sequence[Counted], axes: frozenset[str]) -> Place:
    cut = [(part, meaning) for part, meaning in items if axes & meaning.keys()]
    values = _merged(cut)
    name = _without(file.stem, [part for part, _ in cut]).strip("/")
    return Place(
        image=name or "image",
        channel=values.get("channel", "") or _merged(items).get("channel", ""),
        t=int(values.get("t", "0")),
        z=int(values.get("z", "0")),
    )
