"""The address of a store: a path on a disk, or any URL that fsspec supports.

Invariant: an address holds no credential, so it may be printed, logged and pickled; access is configured by the
environment of each process (AWS_PROFILE, AWS_ENDPOINT_URL, PLATELAYER_S3_ANON, ...). Files are read and written as a
whole; every fault of a backend is raised as `BadStore` with the address and what to do.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

from pipeline.errors import BadArgument, BadStore
from pipeline.store.places.access import READ_ONLY, mark_of_environment
from pipeline.store.places.faults import MEANINGS, LeavesStore, explained, is_backend_fault, store_fault
from pipeline.store.places.local import LocalFiles

# The clients of servers are imported where a server is reached, numpy where columns are read.
if TYPE_CHECKING:
    import numpy as np

    from pipeline.store.columns import Columns
    from pipeline.store.places.draft import DraftFiles
    from pipeline.store.places.remote import RemoteFiles

    Files: TypeAlias = LocalFiles | RemoteFiles | DraftFiles

T = TypeVar("T")

Entries = list[tuple[str, int, str]]
"""Files as (key, bytes, token)."""

Keys = list[str]
"""Names or relative paths."""


def address(text: "str | Path | Address") -> "Address":
    """Make an address of a path or a URL; ``~`` and relative paths are resolved here, once.

    Raises:
        BadArgument: an empty text, a chained URL, or a URL that carries a credential or a query.
    """
    if isinstance(text, Address):
        return text
    plain = str(text).strip()
    if not plain:
        raise BadArgument("expected a path or a URL, got an empty text")
    if plain.startswith("file://"):
        plain = unquote(urlsplit(plain).path)
    if "://" in plain:
        return Address(_checked_url(plain))
    return Address(os.path.normpath(Path(plain).expanduser().absolute()))


@dataclass(frozen=True)
class Address:
    """A place in a local or remote store; made by `address`."""

    url: str
    """Absolute path or URL, without credentials."""

    def __post_init__(self) -> None:
        if "://" in self.url:
            _checked_url(self.url)

    def __str__(self) -> str:
        return self.url

    @property
    def is_local(self) -> bool:
        """Whether this is a path on this machine (or a mounted disk)."""
        return "://" not in self.url

    @property
    def is_writable_kind(self) -> bool:
        """Whether this kind of address can be written at all (https cannot)."""
        return self.url.partition("://")[0] not in READ_ONLY

    @property
    def name(self) -> str:
        """The last part, ``plate.zarr`` of ``s3://bucket/plate.zarr``."""
        return self.url.rstrip("/").rpartition("/")[2]

    def child(self, rel: str) -> "Address":
        """Return the address of a place below this one; '' is the place itself.

        Raises:
            BadStore: the path leads out of the store (``..``, absolute, a URL). Such paths come from metadata.
        """
        key = inner_key(rel, where=self.url)
        return Address(f"{self.url.rstrip('/')}/{key}") if key else self

    def exists(self, rel: str = "") -> bool:
        """Whether there is a file or a folder (a prefix) at ``rel``."""
        return self._call(rel, lambda files, key: files.exists(key))

    def read_bytes(self, rel: str = "") -> bytes:
        """Read a whole file; `BadStore` when there is none."""
        data = self.read_bytes_or_none(rel)
        if data is None:
            raise BadStore(f"{self._at(rel)}: {MEANINGS['missing']}")
        return data

    def read_bytes_or_none(self, rel: str = "") -> bytes | None:
        """Read a whole file; None when there is none."""
        return self._call(rel, lambda files, key: files.get(key))

    def write_bytes(self, rel: str, data: bytes) -> None:
        """Write a file atomically, replacing an older one."""
        self._call(rel, lambda files, key: files.put(key, data))

    def write_columns(self, rel: str, columns: "Columns") -> None:
        """Write columns of numbers as one file."""
        from pipeline.store.columns import to_bytes

        self.write_bytes(rel, to_bytes(columns))

    def read_columns(self, rel: str) -> "Columns":
        """Read the columns of a file; the arrays are read-only."""
        from pipeline.store.columns import from_bytes

        return from_bytes(self.read_bytes(rel))

    def write_packed(self, rel: str, array: "np.ndarray") -> None:
        """Write an array as one compressed file."""
        from pipeline.store.columns import packed

        self.write_bytes(rel, packed(array))

    def read_packed(self, rel: str, dtype: "np.dtype", shape: tuple[int, ...]) -> "np.ndarray":
        """Read a packed array of known type and shape, read-only; ValueError when its file is damaged."""
        from pipeline.store.columns import unpacked

        return unpacked(self.read_bytes(rel), dtype, shape)

    def write_new(self, rel: str, data: bytes) -> bool:
        """Write a file unless there is one already; return whether it was written (for locks and claims)."""
        return self._call(rel, lambda files, key: files.put_new(key, data))

    def list(self, rel: str = "") -> Keys:
        """List all files below ``rel``, recursively, as sorted keys relative to it; an absent folder has none."""
        return [key for key, _, _ in self.entries(rel)]

    def entries(self, rel: str = "") -> Entries:
        """List all files below ``rel`` as sorted (key relative to it, bytes, token).

        The token changes when the content does: modification time in ns on a disk, etag in object storage.
        """
        folder = inner_key(rel, where=self.url)
        start = len(folder) + 1 if folder else 0
        entries = self._call(rel, lambda files, key: files.entries(key))
        return sorted((name[start:], size, token) for name, size, token in entries if name != folder)

    def children(self, rel: str = "") -> Keys:
        """List the names directly below ``rel``, sorted; an absent folder has none."""
        return sorted(self._call(rel, lambda files, key: files.children(key)))

    def remove(self, rel: str = "") -> None:
        """Remove a file, or a folder with everything in it; what is absent already is no error."""
        self._call(rel, lambda files, key: files.remove(key))

    def move(self, rel_from: str, rel_to: str) -> None:
        """Move a file or a folder, replacing what is at the target.

        One step on a disk; on a server copies (metadata last), then removals, so it can be repeated after a kill.
        """
        target = inner_key(rel_to, where=self.url)
        self._call(rel_from, lambda files, source: files.move(source, target))

    def copy(self, rel_from: str, rel_to: str) -> None:
        """Copy a file or a folder, on the server where there is one, zarr metadata last."""
        target = inner_key(rel_to, where=self.url)
        self._call(rel_from, lambda files, source: files.copy(source, target))

    def sweep(self, rel: str = "") -> None:
        """Remove the unfinished files of killed writers below ``rel`` (no listing shows them)."""
        self._call(rel, lambda files, key: files.sweep(key))

    def zarr_store(self, *, read_only: bool = False) -> Any:
        """Return the zarr Store at this address (one per process and environment)."""
        with explained(self.url):
            return _zarr_store(self.url, read_only, os.getpid(), mark_of_environment(self.url))

    def _call(self, rel: str, action: "Callable[[Files, str], T]") -> T:
        """Apply an action to the files of this address and the checked key; faults come out as `BadStore`."""
        key = inner_key(rel, where=self.url)
        try:
            return action(self._files(), key)
        except Exception as error:
            if not is_backend_fault(error):
                raise
            raise store_fault(error, self._at(rel)) from None

    def _files(self) -> "Files":
        if "://" not in self.url:
            return _local_files(self.url)
        return _remote_files(self.url, os.getpid(), mark_of_environment(self.url))

    def _at(self, rel: str) -> str:
        return f"{self.url.rstrip('/')}/{rel}" if rel else self.url


_UNUSUAL = re.compile(r"^/|/$|//|(^|/)\.{1,2}(/|$)|[%\\\0:]")
"""Relative paths that need a closer check: empty, '.' and '..' parts, escapes, schemes."""


def inner_key(rel: str, *, where: str = "store") -> str:
    """Clean a relative path (``./a//b`` is ``a/b``); `BadStore` when it leads out of the store.

    Percent-encoded dots and backslashes count too, because web servers and other systems resolve them.
    """
    if rel and not _UNUSUAL.search(rel):
        return rel
    parts = [part for part in rel.split("/") if part not in ("", ".")]
    leaves = any(unquote(part) == ".." or "\\" in part or "\0" in part for part in parts)
    if leaves or rel.startswith("/") or "://" in rel or "::" in rel:
        raise LeavesStore(f"{where}: the path {rel!r} leaves the store and is refused; correct the metadata")
    return "/".join(parts)


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    safe = f"{parts.scheme}://{host}{parts.path}".rstrip("/")
    if "::" in url:
        raise BadArgument(
            f"{safe}: chained URLs (::) are not supported; give the address of the store itself"
        )
    if "@" in parts.netloc or parts.query:
        raise BadArgument(
            f"{safe}: an address must not hold a user, a password, a signature or a query; "
            "put credentials into the environment or a profile (AWS_PROFILE)"
        )
    if not host and parts.scheme != "memory":
        raise BadArgument(f"{safe}: expected a bucket or host after {parts.scheme}://")
    if any(unquote(part) == ".." for part in parts.path.split("/")):
        raise BadArgument(f"{safe}: '..' in a URL is not resolved; give the address itself")
    return safe


_local_files = lru_cache(maxsize=4096)(LocalFiles)


@lru_cache(maxsize=4096)
def _remote_files(url: str, pid: int, mark: str) -> "RemoteFiles":
    """Return the files of a URL; opened anew in a forked process and after a change of the environment."""
    if url.startswith("s3://"):
        from pipeline.store.places.s3_files import S3Files

        return S3Files(url)
    from pipeline.store.places.remote import RemoteFiles

    return RemoteFiles(url)


@lru_cache(maxsize=1024)
def _zarr_store(url: str, read_only: bool, pid: int, mark: str) -> Any:
    if "://" not in url:
        from zarr.storage import LocalStore

        return LocalStore(url, read_only=read_only)
    from pipeline.store.places.remote import zarr_store

    return zarr_store(url, read_only=read_only)
