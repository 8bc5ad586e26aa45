"""Folders of TIFF files as core facilities have them: well, field and channel from the names of the files.

The invariant: every file has one place, and every field has the same channels, planes and size in all its files;
what does not fit is refused before a pixel is read. What becomes of the fields is not known here.
"""

import glob
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.names import Place, places_of
from pipeline.datasets.tiff import TiffImage, look_into
from pipeline.errors import BadArgument, BadStore


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of view of a well: its files, and how they lie along time, channel and depth."""

    well: tuple[str, str]
    """Row and column, such as ``("A", "1")``."""
    field: str
    """Number of the field in the well, without leading zeros; ``"0"`` where names have none."""
    channels: tuple[str, ...]
    """Names of the channels."""
    axes: str
    """``cyx``, with t and z before and after c where there are any."""
    shape: tuple[int, ...]
    """Lengths of these axes."""
    dtype: np.dtype
    """Type of the pixels."""
    spacing_um: tuple[float, float] | None
    """Size of a pixel along y and x, if the files say."""
    files: Mapping[tuple[int, int, int], TiffImage]
    """Files by their first t, c and z in the field."""

    @property
    def name(self) -> str:
        """Well and field for messages, such as ``A1/0``."""
        return f"{''.join(self.well)}/{self.field}"

    def load(self) -> np.ndarray:
        """Read the pixels, ``axes`` in that order; they are held in memory, one field at a time."""
        lengths = dict(zip(self.axes, self.shape, strict=True))
        pixels = np.zeros([lengths.get(axis, 1) for axis in "tczyx"], self.dtype)
        for (t, c, z), file in self.files.items():
            nt, nc, nz = file.shape[:3]
            pixels[t : t + nt, c : c + nc, z : z + nz] = file.load()
        return pixels.reshape(self.shape)


def read(
    source: str | Path | Iterable[Path],
    *,
    pattern: str | None = None,
    pages: str | None = None,
    channel_names: Mapping[str, str] | None = None,
) -> list[Field]:
    """Return the fields of a folder in the order of well and field; headers are read, pixels are not.

    Args:
        source: a glob such as ``"folder/*.tif"``, a folder, or paths. Thumbnails (``_thumb``) are left out.
        pattern: regular expression with named groups out of ``names.GROUPS``, searched in the name without suffix,
            or in the path with ``/`` if the pattern has one; default: the first of ``names.PATTERNS`` that fits all.
        pages: what pages without metadata are: ``t``, ``c`` or ``z``.
        channel_names: new names for channels, such as ``{"w1": "GFP"}``.

    Raises:
        BadArgument: names that do not fit, two files for one place, a missing file, files that differ in
            shape or type, pages that nobody explains.
        BadStore: no files, or one that is not a TIFF.
    """
    files = _files(source)
    places = places_of(files, pattern)
    by_field: dict[tuple[tuple[str, str], str], dict[Path, Place]] = {}
    for path, place in places.items():
        by_field.setdefault((place.well, place.field), {})[path] = place
    channels = _natural({place.channel for place in places.values()})
    return [
        _field(by_field[key], channels, pages, channel_names or {}) for key in sorted(by_field, key=_order)
    ]


def _files(source: str | Path | Iterable[Path]) -> list[Path]:
    if isinstance(source, str | Path):
        text = str(source)
        where = str(Path(text) / "*") if Path(text).is_dir() else text
        found = [Path(name) for name in glob.glob(where, recursive=True)]  # noqa: PTH207  (pathlib takes no absolute glob)
    else:
        found = [Path(path) for path in source]
    tiffs = [path for path in found if path.suffix.lower() in (".tif", ".tiff") and "_thumb" not in path.name]
    if not tiffs:
        raise BadStore(
            f"expected TIFF files at {str(source)!r}, found none; quote the glob, as in 'folder/*.tif'"
        )
    return sorted(path for path in tiffs if not path.name.startswith("."))


def _order(key: tuple[tuple[str, str], str]) -> tuple[object, ...]:
    (row, column), field = key
    return len(row), row, _number_first(column), _number_first(field)


def _number_first(text: str) -> tuple[bool, int, str]:
    return not text.isdigit(), int(text) if text.isdigit() else 0, text


def _natural(names: Iterable[str]) -> list[str]:
    """Sort names so that ``ch2`` comes before ``ch10``."""
    return sorted(names, key=lambda name: [_number_first(part) for part in re.split(r"(\d+)", name) if part])


def _field(
    places: Mapping[Path, Place], channels: list[str], pages: str | None, renamed: Mapping[str, str]
) -> Field:
    first = next(iter(places.values()))
    name = f"{''.join(first.well)}/{first.field}"
    images = {path: look_into(path, pages=pages) for path in places}
    one = _alike(name, images)
    steps = sorted({place.t for place in places.values()}), sorted({place.z for place in places.values()})
    files = {
        (steps[0].index(place.t), channels.index(place.channel), steps[1].index(place.z)): images[path]
        for path, place in places.items()
    }
    counts = (len(steps[0]), len(channels), len(steps[1]))
    _check_whole(name, files, counts, channels)
    lengths = _lengths(name, one, counts)
    names = _channel_names(channels, one, lengths["c"])
    axes = "".join(axis for axis in "tczyx" if axis in "cyx" or lengths[axis] > 1)
    return Field(
        well=first.well,
        field=first.field,
        channels=tuple(renamed.get(channel, channel) for channel in names),
        axes=axes,
        shape=tuple(lengths[axis] for axis in axes),
        dtype=one.dtype,
        spacing_um=one.spacing_um,
        files=files,
    )


def _alike(name: str, images: Mapping[Path, TiffImage]) -> TiffImage:
    """Return any of the files of a field after checking that all have one shape and type."""
    one, *others = images.values()
    for other in others:
        if (other.shape, other.dtype) != (one.shape, one.dtype):
            raise BadArgument(
                f"field {name}: expected files of one shape and type, got {one.path.name} {one.shape} {one.dtype} "
                f"and {other.path.name} {other.shape} {other.dtype} (t, c, z, y, x)"
            )
    return one


def _check_whole(
    name: str,
    files: Mapping[tuple[int, int, int], TiffImage],
    counts: tuple[int, int, int],
    channels: list[str],
) -> None:
    missing = [index for index in np.ndindex(counts) if index not in files]
    if missing:
        t, c, z = missing[0]
        raise BadArgument(
            f"field {name}: {len(missing)} of {np.prod(counts)} files are missing, the first for channel "
            f"{channels[c]!r}, t {t}, z {z}; fetch them, or leave the field out of the glob"
        )


def _lengths(name: str, one: TiffImage, counts: tuple[int, int, int]) -> dict[str, int]:
    """Return the lengths of the axes of a field; an axis is in the names or in the files, not in both."""
    inside = dict(zip("tczyx", one.shape, strict=True))
    for axis, count in zip("tcz", counts, strict=True):
        if count > 1 and inside[axis] > 1:
            raise BadArgument(
                f"field {name}: {axis} is both in the names ({count}) and in the files ({inside[axis]}, "
                f"{one.path.name}); give a pattern without {axis}"
            )
        inside[axis] = max(count, inside[axis])
    return inside


def _channel_names(channels: list[str], one: TiffImage, count: int) -> tuple[str, ...]:
    """Names by the file names where they tell channels apart, else by the metadata, else numbers."""
    if count == len(channels) and channels[0]:
        return tuple(channels)
    if len(one.channels) == count and all(one.channels) and len(set(one.channels)) == count:
        return one.channels
    return ("image",) if count == 1 else tuple(f"channel{index}" for index in range(count))
