"""Folders of TIFF files: which images their files make up, and which of these are whole.

The invariant: every file has one place, and every image has the same channels, planes and size in all its files.
An image that lacks a file, or whose files cannot be read or do not go together, is named and left out; it is never
filled up. Headers are read here, pixels are not.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pipeline.datasets.files.field import Field, Grid, assemble
from pipeline.datasets.files.names import Reading, read_names
from pipeline.datasets.files.places import Place
from pipeline.datasets.files.scan import Scan, store_paths
from pipeline.datasets.files.sidecars import Sidecar, read_sidecar
from pipeline.datasets.files.source_files import SourceFile, find_tiffs, is_single_file
from pipeline.datasets.files.tiff import TiffContents, TiffImage, look_into
from pipeline.errors import BadArgument, BadStore

Incomplete = Literal["skip", "stop"]
"""What to do with an image that lacks a file: leave it out, or stop."""

Key = tuple[tuple[str, str] | None, str, str]
"""Well, name of the image and field: what identifies an image."""

Fault = BadArgument | BadStore
"""Why an image is left out."""


@dataclass
class _Pieces:
    """The files of the images while they are collected."""

    files: dict[Key, list[tuple[Place, TiffImage]]] = field(default_factory=lambda: defaultdict(list))
    places: dict[Key, list[Place]] = field(default_factory=lambda: defaultdict(list))
    faults: dict[Key, Fault] = field(default_factory=dict)
    titles: dict[Key, str] = field(default_factory=dict)
    overviews: int = 0


def read(
    source: str | Path | Iterable[Path],
    *,
    pattern: str | None = None,
    pages: str | None = None,
    plate_wells: int | None = None,
    channel_names: Mapping[str, str] | None = None,
    incomplete: Incomplete | None = None,
) -> Scan[Field]:
    """Return the images of a source; headers are read, pixels are not.

    Args:
        source: folder, file, glob, or URL of one of these, or paths; see ``source_files.find_tiffs``.
        pattern: regular expression with named groups out of ``names.GROUPS``; None reads names by themselves.
        pages: what pages without metadata are: ``t``, ``c`` or ``z``.
        plate_wells: wells of the plate where names count wells.
        channel_names: new names for channels, such as ``{"w1": "GFP"}``.
        incomplete: what to do with an image that lacks a file; None leaves it out unless it is the only one.

    Raises:
        BadArgument: names that are not understood, two files in one place, pages of unknown meaning; an image
            that is not whole where that stops.
        BadStore: no files; a file that is not a TIFF where that stops.
    """
    files = find_tiffs(source)
    sidecar = read_sidecar(files[0])
    if pattern is None and isinstance(source, str | Path) and is_single_file(str(source)):
        reading = Reading(title="as one image", places={files[0]: Place()})
    else:
        reading = read_names(files, pattern, plate_wells=plate_wells or sidecar.plate_wells)
    pieces = _collect(reading.places, pages)
    scan = _assembled(pieces, sidecar, channel_names or {})
    _check_incomplete(scan, pieces, incomplete)
    notes = [*reading.notes]
    if pieces.overviews:
        notes.append(f"{pieces.overviews} overview(s) or label picture(s) inside the files: left out")
    return replace(scan, files=len(files), title=reading.title, notes=tuple(notes), sidecar=sidecar.source)


def _collect(places: Mapping[SourceFile, Place], pages: str | None) -> _Pieces:
    """Look into every file and sort what is in it by image; a file that cannot be read is its image's fault."""
    pieces = _Pieces()
    named_fields = len({place.field for place in places.values()}) > 1
    for file, place in places.items():
        try:
            contents = look_into(file, pages=pages)
            if len(contents.images) > 1 and named_fields:
                raise BadArgument(
                    f"{file}: {len(contents.images)} images in the file, and the names of files say fields too; "
                    "give a --pattern without field"
                )
        except (BadArgument, BadStore) as error:
            pieces.faults.setdefault(_key(place), error)
            pieces.places[_key(place)].append(place)
            continue
        _add(pieces, place, contents)
    return pieces


def _key(place: Place) -> Key:
    return place.well, place.image, place.field


def _add(pieces: _Pieces, place: Place, contents: TiffContents) -> None:
    """Sort the images of one file: several are the fields of its well, or images named after file and position."""
    pieces.overviews += contents.overviews
    for number, image in enumerate(contents.images):
        here, title = place, place.image
        if len(contents.images) > 1:
            title = image.metadata.name or str(number)
            here = replace(place, field=str(number))
            if not place.well:
                here = replace(place, image=f"{place.image}_{title}".strip("_"), field=str(number))
        pieces.files[_key(here)].append((here, image))
        pieces.places[_key(here)].append(here)
        pieces.titles.setdefault(_key(here), title)


def _assembled(pieces: _Pieces, sidecar: Sidecar, renamed: Mapping[str, str]) -> Scan[Field]:
    keys = sorted(pieces.places, key=_order)
    named = [Place(well=well, image=image, field=number) for well, image, number in keys]
    paths = dict(zip(keys, store_paths(named), strict=True))
    grids = _grids(pieces.places)
    fields: list[Field] = []
    for key in keys:
        if key in pieces.faults:
            continue
        try:
            made = assemble(
                path=paths[key],
                title=pieces.titles[key],
                files=pieces.files[key],
                grid=grids[key],
                sidecar=sidecar,
                renamed=renamed,
            )
        except BadArgument as error:
            pieces.faults[key] = error
        else:
            fields.append(made)
    left_out = {paths[key]: str(pieces.faults[key]) for key in keys if key in pieces.faults}
    return Scan(fields=tuple(fields), left_out=left_out, files=0, title="", notes=())


def _check_incomplete(scan: Scan[Field], pieces: _Pieces, incomplete: Incomplete | None) -> None:
    """Raise the first fault where faults stop everything."""
    if not pieces.faults or (scan.fields and incomplete != "stop"):
        return
    (path, reason), *others = scan.left_out.items()
    more = f" (and {len(others)} other image(s) with faults)" if others else ""
    kind = BadStore if any(isinstance(fault, BadStore) for fault in pieces.faults.values()) else BadArgument
    advice = "; --incomplete skip leaves such images out" if scan.fields else "; fetch the files again"
    raise kind(f"{path or 'the image'}: {reason}{more}{advice}")


def _grids(places: Mapping[Key, Sequence[Place]]) -> dict[Key, Grid]:
    """Return what each image must have: fields of a plate the same; other images the same channels.

    Raises:
        BadArgument: channels that have different planes in all images.
    """
    everything = [place for group in places.values() for place in group]
    channels = _natural({place.channel for place in everything})
    if any(place.well for place in everything):
        _check_even(everything, channels)
        common = _grid(everything, channels)
        return dict.fromkeys(places, common)
    varies = any(len({place.channel for place in group}) > 1 for group in places.values())
    return {
        key: _grid(group, channels if varies else _natural({place.channel for place in group}))
        for key, group in places.items()
    }


def _grid(places: Sequence[Place], channels: Sequence[str]) -> Grid:
    return Grid(
        channels=tuple(channels),
        times=tuple(sorted({place.t for place in places})),
        depths=tuple(sorted({place.z for place in places})),
    )


def _check_even(places: Sequence[Place], channels: Sequence[str]) -> None:
    planes = {name: {(p.t, p.z) for p in places if p.channel == name} for name in channels}
    if len({frozenset(keys) for keys in planes.values()}) > 1:
        counts = ", ".join(f"{name}: {len(keys)}" for name, keys in planes.items())
        raise BadArgument(
            f"channels have different numbers of planes and times in all fields ({counts}): either files are "
            "missing, or the channels were recorded differently; then ingest them one at a time by a glob"
        )


def _order(key: Key) -> tuple[object, ...]:
    well, image, number = key
    row, column = well or ("", "")
    return len(row), row, _number_first(column), _split(image), _split(number)


def _number_first(text: str) -> tuple[bool, int, str]:
    return not text.isdecimal(), int(text) if text.isdecimal() else 0, text


def _split(name: str) -> list[tuple[bool, int, str]]:
    return [_number_first(part) for part in re.split(r"(\d+)", name) if part]


def _natural(names: Iterable[str]) -> list[str]:
    """Sort names so that ``ch2`` comes before ``ch10``."""
    return sorted(names, key=_split)
