"""An address: where a store is, on a disk or behind any URL that fsspec knows.

Invariant: an address holds no credential, so it may be printed, logged and pickled; access is configured by the
environment of each process (AWS_PROFILE, AWS_ENDPOINT_URL, PLATELAYER_S3_ANON, ...). Reads and writes are of
whole files; every fault of a backend comes out as `BadStore` with the address and what to do.
"""

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pipeline.errors import BadArgument, BadStore
from pipeline.store.places.access import READ_ONLY, mark_of_environment
from pipeline.store.places.faults import LeavesStore, explained
from pipeline.store.places.local import LocalFiles

if TYPE_CHECKING:  # what reaches servers is imported where there is one
    from pipeline.store.places.draft import DraftFiles
    from pipeline.store.places.remote import RemoteFiles

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
        """Whether there is a file or a folder (a prefix) here."""
        with explained(self._at(rel)):
            return self._files().exists(inner_key(rel, where=self.url))

    def read_bytes(self, rel: str = "") -> bytes:
        """Read a whole file; `BadStore` when it is not there."""
        data = self.read_bytes_or_none(rel)
        if data is None:
            raise BadStore(f"{self._at(rel)}: there is nothing at this address; check the spelling")
        return data

    def read_bytes_or_none(self, rel: str = "") -> bytes | None:
        """Read a whole file; None when it is not there."""
        with explained(self._at(rel)):
            return self._files().get(inner_key(rel, where=self.url))

    def write_bytes(self, rel: str, data: bytes) -> None:
        """Write a file atomically, replacing an older one."""
        with explained(self._at(rel)):
            self._files().put(inner_key(rel, where=self.url), data)

    def write_new(self, rel: str, data: bytes) -> bool:
        """Write a file unless there is one already; says whether it was written (for locks and claims)."""
        with explained(self._at(rel)):
            return self._files().put_new(inner_key(rel, where=self.url), data)

    def list(self, rel: str = "") -> Keys:
        """List all files below ``rel``, recursively, as sorted keys relative to it; nothing there: ``[]``."""
        return [key for key, _, _ in self.entries(rel)]

    def entries(self, rel: str = "") -> Entries:
        """List all files below ``rel`` as sorted (key relative to it, bytes, token).

        The token changes when the content does: modification time in ns on a disk, etag in object storage.
        """
        key = inner_key(rel, where=self.url)
        with explained(self._at(rel)):
            found = self._files().entries(key)
        start = len(key) + 1 if key else 0
        return sorted((name[start:], size, token) for name, size, token in found if name != key)

    def children(self, rel: str = "") -> Keys:
        """List the names directly below, sorted; nothing there: ``[]``."""
        with explained(self._at(rel)):
            return sorted(self._files().children(inner_key(rel, where=self.url)))

    def remove(self, rel: str = "") -> None:
        """Remove a file, or everything below; nothing there is fine."""
        with explained(self._at(rel)):
            self._files().remove(inner_key(rel, where=self.url))

    def move(self, rel_from: str, rel_to: str) -> None:
        """Move a file or everything below, in place of what was there.

        One step on a disk; on a server copies (metadata last), then removals, so it can be repeated after a kill.
        """
        source, target = inner_key(rel_from, where=self.url), inner_key(rel_to, where=self.url)
        with explained(self._at(rel_from)):
            self._files().move(source, target)

    def copy(self, rel_from: str, rel_to: str) -> None:
        """Copy a file or everything below, on the server where there is one, zarr metadata last."""
        source, target = inner_key(rel_from, where=self.url), inner_key(rel_to, where=self.url)
        with explained(self._at(rel_from)):
            self._files().copy(source, target)

    def sweep(self, rel: str = "") -> None:
        """Remove the unfinished files of killed writers below (they are never listed)."""
        with explained(self._at(rel)):
            self._files().sweep(inner_key(rel, where=self.url))

    def zarr_store(self, *, read_only: bool = False) -> Any:
        """Return the zarr Store at this address (one per process and environment)."""
        with explained(self.url):
            return _zarr_store(self.url, read_only, os.getpid(), mark_of_environment(self.url))

    def _files(self) -> "LocalFiles | RemoteFiles | DraftFiles":
        return _files(self.url, os.getpid(), mark_of_environment(self.url))

    def _at(self, rel: str) -> str:
        return f"{self.url.rstrip('/')}/{rel}" if rel else self.url


_UNUSUAL = re.compile(r"^/|/$|//|(^|/)\.{1,2}(/|$)|[%\\\0:]")
"""What has to be looked at closely in a relative path: empty, '.' and '..' parts, escapes, schemes."""


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


@lru_cache(maxsize=4096)
def _files(url: str, pid: int, mark: str) -> "LocalFiles | RemoteFiles":
    if "://" not in url:
        return LocalFiles(url)
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
