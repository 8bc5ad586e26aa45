"""A draft over an address: writes are kept in memory until they are settled, reads fall through to the address.

One worker makes all files of a small image with the functions that large images use, and then writes only the
published ones, in an order in which a kill between any two writes leaves a consistent store.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from types import MappingProxyType

import numpy as np

from pipeline.store.columns import Columns, frozen, packed, to_bytes
from pipeline.store.places.access import DOCUMENTS
from pipeline.store.places.address import Address, inner_key

UPLOADS = 8
"""Concurrent uploads."""


Content = bytes | Columns | np.ndarray
"""What is kept of a file: its bytes, or columns or an array before they are encoded."""


class DraftFiles:
    """Files in memory over those of an address, with the methods of `LocalFiles`.

    Files below ``scratch`` are never read from the address, and every other file is read at most once.
    """

    def __init__(self, below: Address, *, scratch: str) -> None:
        self.below, self.scratch = below, scratch
        self.written: dict[str, Content] = {}
        """What was written; columns and arrays are encoded only when they are read or stored as a file."""
        self.removed: list[str] = []
        self._read: dict[str, bytes | None] = {}

    def get(self, key: str) -> bytes | None:
        """Read a file; None when it does not exist."""
        if key in self.written:
            return encoded(self.written[key])
        if self._is_hidden(key):
            return None
        if key not in self._read:
            self._read[key] = self.below.read_bytes_or_none(key)
        return self._read[key]

    def put(self, key: str, data: Content) -> None:
        """Write a file."""
        self.written[key] = data

    def put_new(self, key: str, data: bytes) -> bool:
        """Write a file unless it exists; return whether it was written."""
        if self.exists(key):
            return False
        self.put(key, data)
        return True

    def exists(self, key: str) -> bool:
        """Whether there is a file or a folder."""
        return bool(self.inside(key)) or (not self._is_hidden(key) and self.below.exists(key))

    def entries(self, key: str) -> list[tuple[str, int, str]]:
        """List all files below a key as (key, bytes, token)."""
        below = [] if self._is_hidden(key) else self.below.entries(key)
        prefix = f"{key}/" if key else ""
        shown = {prefix + name: (prefix + name, size, token) for name, size, token in below}
        shown = {name: entry for name, entry in shown.items() if not self._is_hidden(name)}
        return list(
            (
                shown | {name: (name, len(encoded(self.written[name])), "") for name in self.inside(key)}
            ).values()
        )

    def children(self, key: str) -> list[str]:
        """List the names of the files and folders directly below a key."""
        prefix = f"{key}/" if key else ""
        below = [] if self._is_hidden(key) else self.below.children(key)
        shown = {name for name in below if not self._is_hidden(prefix + name)}
        return list(shown | {name[len(prefix) :].partition("/")[0] for name in self.inside(key)} - {""})

    def remove(self, key: str) -> None:
        """Remove a file or a folder with its contents; an absent one is no error."""
        for name in self.inside(key):
            del self.written[name]
        if not self._is_hidden(key):
            self.removed.append(key)

    def sweep(self, key: str) -> None:
        """Remove unfinished files; in memory there are none."""

    def copy(self, source: str, target: str) -> None:
        """Copy a file or a folder of the draft, in place of files of the same names."""
        for name in self.inside(source):
            self.written[target + name[len(source) :]] = self.written[name]

    def move(self, source: str, target: str) -> None:
        """Move a file or a folder of the draft, replacing the target."""
        self.remove(target)
        for name in self.inside(source):
            self.written[target + name[len(source) :]] = self.written.pop(name)

    def inside(self, key: str) -> list[str]:
        """Keys of the files that were written at a key or below it."""
        return [name for name in self.written if not key or name == key or name.startswith(f"{key}/")]

    def _is_hidden(self, key: str) -> bool:
        return any(_is_within(key, place) for place in (self.scratch, *self.removed))


def encoded(content: Content) -> bytes:
    """Return the content of a file of a draft as bytes."""
    if isinstance(content, np.ndarray):
        return packed(content)
    return to_bytes(content) if isinstance(content, dict) else content


def _is_within(key: str, place: str) -> bool:
    return key == place or key.startswith(f"{place}/")


@dataclass(frozen=True)
class Draft(Address):
    """An address whose changes are kept in memory; made by `draft_over`, used by one thread."""

    base: Address = field(kw_only=True)
    """The address itself."""
    files: DraftFiles = field(kw_only=True, compare=False, repr=False)
    """The changed files, over those of the address."""

    @property
    def is_local(self) -> bool:
        """True, because writing to a draft costs no round trip."""
        return True

    def write_columns(self, rel: str, columns: Columns) -> None:
        """Keep columns as they are: a field writes and reads each of its tables within one call."""
        self.files.put(inner_key(rel, where=self.url), frozen(columns))

    def read_columns(self, rel: str) -> Columns:
        """Return the columns that were kept, or decode those of a file."""
        kept = self.files.written.get(inner_key(rel, where=self.url))
        return dict(kept) if isinstance(kept, dict) else super().read_columns(rel)

    def write_packed(self, rel: str, array: np.ndarray) -> None:
        """Keep an array as it is, which must not be changed afterwards."""
        array.flags.writeable = False
        self.files.put(inner_key(rel, where=self.url), array)

    def read_packed(self, rel: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Return the array that was kept, or decode that of a file."""
        kept = self.files.written.get(inner_key(rel, where=self.url))
        return kept if isinstance(kept, np.ndarray) else super().read_packed(rel, dtype, shape)

    def write_folders(self, folders: Iterable[str]) -> None:
        """Write the files of some folders to the address, including those of the scratch."""
        wanted = [key for folder in folders for key in self.files.inside(folder)]
        _write(self.base, {key: self.files.written[key] for key in wanted})

    def settle(self, *, last: str) -> None:
        """Apply the changes outside of the scratch to the address, and write ``last`` at the end.

        Removals come first. Then files deep in folders are written before those above them, so that the metadata of
        a group appear after everything they describe. The rest of the scratch is dropped.
        """
        for key in self.files.removed:
            self.base.remove(key)
        scratch = set(self.files.inside(self.files.scratch))
        shown = {key: data for key, data in self.files.written.items() if key not in scratch}
        _write(self.base, shown)
        self.base.write_bytes(last, encoded(self.files.written[last]))

    def _files(self) -> DraftFiles:
        return self.files


def draft_over(
    address: Address, *, scratch: str, written: Mapping[str, bytes] = MappingProxyType({})
) -> Draft:
    """Begin a draft, which contains the files ``written``; files below ``scratch`` are never read from the address."""
    files = DraftFiles(address, scratch=scratch)
    files.written.update(written)
    return Draft(address.url, base=address, files=files)


def _write(address: Address, files: Mapping[str, Content]) -> None:
    """Write files, deep ones first: data concurrently where each costs a round trip, metadata one after the other.

    Metadata at the same depth are written in reverse order: a deeper layer of a stack before the one that names it.
    """
    newest_first = list(files)[::-1]
    for _, wave in groupby(sorted(newest_first, key=_depth, reverse=True), key=_depth):
        keys = list(wave)
        data = [] if address.is_local else [key for key in keys if not _is_metadata(key)]
        if data:
            with ThreadPoolExecutor(UPLOADS) as pool:
                list(pool.map(address.write_bytes, data, [encoded(files[key]) for key in data]))
        for key in keys:
            if key not in data:
                address.write_bytes(key, encoded(files[key]))


def _is_metadata(key: str) -> bool:
    return key.rpartition("/")[2] in DOCUMENTS


def _depth(key: str) -> int:
    """Depth of the folder that a file describes or lies in: data lie below the metadata of their folder."""
    return key.count("/") + (not _is_metadata(key))
