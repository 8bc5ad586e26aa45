"""Files to ingest, on a disk or at a URL: listing them, and reading their bytes.

A source is a folder, one file, or a glob. File names are not interpreted here.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.errors import BadStore
from pipeline.store.places.address import address
from pipeline.store.places.faults import explained
from pipeline.store.places.remote import file_system

TIFF_SUFFIXES = (".tif", ".tiff", ".tf2", ".tf8", ".btf", ".svs", ".ndpi", ".scn", ".qptiff", ".lsm", ".stk")
"""Suffixes of TIFF and of the slide formats that are TIFF inside."""

READ_AHEAD = 2**20
"""Bytes that are fetched per request from a remote file."""

_WILDCARD = re.compile(r"[*?\[]")
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, order=True)
class SourceFile:
    """One file of a source."""

    place: str
    """Path or URL, as shown in messages."""
    relative: str
    """Path below the folder of the source, with ``/``."""

    def __str__(self) -> str:
        return self.place

    @cached_property
    def stem(self) -> str:
        """Relative path without the suffix, and without ``.ome``."""
        folder, slash, name = self.relative.rpartition("/")
        base, dot, suffix = name.rpartition(".")
        kept = base if dot and f".{suffix.lower()}" in TIFF_SUFFIXES else name
        return folder + slash + re.sub(r"\.ome$", "", kept, flags=re.IGNORECASE)

    @property
    def name(self) -> str:
        """Name of the file without its folder."""
        return self.relative.rpartition("/")[2]

    @property
    def is_local(self) -> bool:
        """Whether the file lies on a disk of this machine."""
        return "://" not in self.place

    def open(self) -> BinaryIO:
        """Open for reading; seeking in a remote file fetches only the bytes that are read."""
        if self.is_local:
            return open(self.place, "rb")
        with explained(self.place):
            system = file_system(self.place.partition("://")[0])
            return cast(
                BinaryIO, system.open(self.place, "rb", block_size=READ_AHEAD, cache_type="readahead")
            )

    def neighbour(self, name: str) -> "SourceFile":
        """Return the file of another name in the same folder, which need not exist."""
        folder, slash, _ = self.place.rpartition("/")
        below, slash_below, _ = self.relative.rpartition("/")
        return SourceFile(place=folder + slash + name, relative=below + slash_below + name)

    def read_or_none(self) -> bytes | None:
        """Read the whole file; None when it does not exist."""
        folder, slash, name = self.place.rpartition("/")
        return address(folder + slash if folder else ".").read_bytes_or_none(name)


def is_single_file(source: str) -> bool:
    """Whether a source names one file that exists, not a folder and not a glob."""
    if "://" not in source:
        return Path(source).is_file()
    return not _WILDCARD.search(source) and source.lower().endswith(TIFF_SUFFIXES)


def find_tiffs(source: str | Path | Iterable[Path]) -> list[SourceFile]:
    """Return the TIFF files of a source, sorted by relative path; thumbnails and hidden files are left out.

    Args:
        source: a folder (its TIFF files, or those of its subfolders where it has none itself), a file, a glob
            such as ``"scan/**/*.tif"``, or paths. Folder, file and glob may be URLs.

    Raises:
        BadStore: no such source, or no TIFF file in it.
    """
    if isinstance(source, str | Path):
        files = find_files(str(source))
    else:
        files = [SourceFile(place=str(path), relative=Path(path).as_posix()) for path in source]
    tiffs = sorted(file for file in files if _is_tiff(file))
    if not tiffs:
        raise BadStore(f"expected TIFF files at {str(source)!r}, found none{_advice(files)}")
    return tiffs


def find_files(source: str) -> list[SourceFile]:
    """Return all files of a folder, glob or path."""
    return sorted(_in_storage(source) if "://" in source else _on_disk(source))


def _is_tiff(file: SourceFile) -> bool:
    hidden = any(part.startswith(".") for part in file.relative.split("/"))
    return file.name.lower().endswith(TIFF_SUFFIXES) and "_thumb" not in file.name.lower() and not hidden


def _advice(files: list[SourceFile]) -> str:
    if not files:
        return "; check the spelling, and quote a glob, as in 'folder/*.tif'"
    names = ", ".join(file.name for file in files[:_SHOWN])
    return (
        f", but {len(files)} other file(s) ({names}{', ...' if len(files) > _SHOWN else ''}); other formats "
        "are read by 'platelayer ingest any'"
    )


def _on_disk(text: str) -> list[SourceFile]:
    path = Path(text).expanduser()
    if path.is_file():
        return [SourceFile(place=str(path), relative=path.name)]
    root, pattern = (path, None) if path.is_dir() else _split_glob(path)
    if not root.is_dir():
        return []
    paths = root.rglob("*") if pattern is None else root.glob(pattern)
    files = [
        SourceFile(place=str(item), relative=item.relative_to(root).as_posix())
        for item in paths
        if item.is_file()
    ]
    return _own_files_first(files) if pattern is None else files


def _split_glob(path: Path) -> tuple[Path, str]:
    """Cut a glob into the folder before the first wildcard and the pattern below it."""
    fixed = next((index for index, part in enumerate(path.parts) if _WILDCARD.search(part)), len(path.parts))
    if fixed == len(path.parts):
        return path, "*"
    return Path(*path.parts[:fixed]), "/".join(path.parts[fixed:])


def _in_storage(url: str) -> list[SourceFile]:
    base = address(
        re.split(r"[*?\[]", url, maxsplit=1)[0].rpartition("/")[0] if _WILDCARD.search(url) else url
    )
    if url.lower().endswith(TIFF_SUFFIXES) and not _WILDCARD.search(url):
        return [SourceFile(place=base.url, relative=base.name)]
    matches = _matcher(url.removeprefix(base.url).lstrip("/")) if _WILDCARD.search(url) else None
    files = [
        SourceFile(place=f"{base.url}/{key}", relative=key)
        for key in base.list()
        if matches is None or matches(key)
    ]
    return _own_files_first(files) if matches is None else files


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return a test of keys against a glob in which ``*`` stays inside one folder and ``**`` does not."""
    parts = pattern.split("/")

    def fits(names: list[str], wanted: list[str]) -> bool:
        if not wanted:
            return not names
        if wanted[0] == "**":
            return any(fits(names[skip:], wanted[1:]) for skip in range(len(names) + 1))
        return bool(names) and fnmatch.fnmatchcase(names[0], wanted[0]) and fits(names[1:], wanted[1:])

    return lambda key: fits(key.split("/"), parts)


def _own_files_first(files: list[SourceFile]) -> list[SourceFile]:
    """Return the files that lie in the folder itself if one of them is a TIFF, else those of subfolders too."""
    direct = [file for file in files if "/" not in file.relative]
    return direct if any(_is_tiff(file) for file in direct) else files
