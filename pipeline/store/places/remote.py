"""Objects below one prefix of any file system of fsspec: object storage, memory, https.

Credentials (keys, profile, endpoint) come from the environment, never from an address. An object is visible only when
complete, because it is written by one PUT (or one completed multipart upload).
"""

import atexit
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import groupby
from typing import Any

import fsspec
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from pipeline.errors import BadArgument, BadStore
from pipeline.store.places.access import DOCUMENTS, READ_ONLY, mark_of_environment
from pipeline.store.places.retrying import OBSTORE, RetryingStore, passes, waits
from pipeline.store.places.s3 import obstore_zarr, s3fs_options, wants_obstore
from pipeline.store.places.traffic import count_received, count_request, count_retry

CLOSE_S = 2.0
"""How long closing connections may take at the end of a process."""


def file_system(scheme: str, *, asynchronous: bool = False) -> Any:
    """Return this process's file system for a scheme, configured from the current environment."""
    return _file_system(scheme, asynchronous, os.getpid(), mark_of_environment())


@lru_cache(maxsize=32)
def _file_system(scheme: str, asynchronous: bool, pid: int, mark: str) -> Any:
    options = _options(scheme)
    try:
        cls = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise BadArgument(f"addresses that start with {scheme}:// need a package: {error}") from None
    except ValueError:
        raise BadArgument(f"unknown kind of address {scheme!r}://; use a path, s3:// or https://") from None
    if not cls.async_impl:
        plain = cls(skip_instance_cache=True, use_listings_cache=False, **options)
        return AsyncFileSystemWrapper(plain, asynchronous=True) if asynchronous else plain
    made = cls(asynchronous=asynchronous, skip_instance_cache=True, use_listings_cache=False, **options)
    if scheme == "s3":
        made.retries = 1  # botocore makes all attempts; s3fs must not repeat them.
        if asynchronous:
            atexit.register(_close, made)
    return made


def _close(made: Any) -> None:
    """Close the connections of an S3 client in zarr's event loop, which otherwise stay open at exit."""
    creator = getattr(made, "_s3creator", None)
    if creator is not None:
        with suppress(Exception):  # the client is not needed any more, so its faults do not matter
            sync(creator.__aexit__(None, None, None), timeout=CLOSE_S)


def _options(scheme: str) -> dict[str, Any]:
    if scheme == "s3":
        return s3fs_options()
    if scheme in READ_ONLY:
        return {"client_kwargs": {"trace_configs": [_counted_by_aiohttp()]}}
    return {}


def _counted_by_aiohttp() -> Any:
    """Hooks of aiohttp that count requests over https."""
    from aiohttp import TraceConfig

    async def started(session: Any, context: Any, asked: Any) -> None:
        count_request(asked.method)

    async def ended(session: Any, context: Any, asked: Any) -> None:
        if asked.method != "HEAD":
            count_received(int(asked.response.headers.get("content-length") or 0))

    trace = TraceConfig()
    trace.on_request_start.append(started)
    trace.on_request_end.append(ended)
    return trace


class RemoteFiles:
    """Keys (``a/b/c``) below a URL, as bytes."""

    def __init__(self, url: str) -> None:
        self.scheme = url.partition("://")[0]
        self.fs = file_system(self.scheme)
        self.root = self.fs._strip_protocol(url).rstrip("/")

    def get(self, key: str) -> bytes | None:
        """Read an object; None when it does not exist."""
        try:
            return bytes(self._again(lambda: self.fs.cat_file(self._path(key))))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            if _is_missing_bucket(error):
                raise
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write an object by one PUT."""
        self._check_writable()
        self.fs.pipe_file(self._path(key), data)

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object unless it exists; return whether it was written."""
        self._check_writable()
        try:
            self.fs.pipe_file(self._path(key), data, mode="create")
        except FileExistsError:
            return False
        return True

    def exists(self, key: str) -> bool:
        """Whether there is an object or a prefix."""
        return bool(self.fs.exists(self._path(key)))

    def entries(self, key: str) -> list[tuple[str, int, str]]:
        """List all objects below a key as (key, bytes, etag or other token of the version)."""
        infos = self.fs.find(self._path(key), detail=True, withdirs=False)
        return [(self._key(path), int(info.get("size") or 0), token(info)) for path, info in infos.items()]

    def children(self, key: str) -> list[str]:
        """List the names directly below a key."""
        try:
            paths = self.fs.ls(self._path(key), detail=False)
        except FileNotFoundError as error:
            if _is_missing_bucket(error):
                raise
            return []
        below = (self._key(path.rstrip("/")) for path in paths)
        return [name.rpartition("/")[2] for name in below if name != key]

    def remove(self, key: str) -> None:
        """Remove an object or all objects below a key, metadata first; absent ones are no error."""
        self._check_writable()
        self._remove_all([name for name, _, _ in self.entries(key)])

    def sweep(self, key: str) -> None:
        """Do nothing: an unfinished upload is never visible."""

    def copy(self, source: str, target: str) -> None:
        """Copy objects on the server: chunks, then the documents of arrays, then those of groups."""
        self._check_writable()
        keys = sorted((name for name, _, _ in self.entries(source)), key=_documents_last)
        for _, part in groupby(keys, key=lambda key: _documents_last(key)[:2]):
            names = list(part)
            self._copy_all(names, [target + name.removeprefix(source) for name in names])

    def move(self, source: str, target: str) -> None:
        """Copy, then remove the sources."""
        self.copy(source, target)
        self.remove(source)

    def _copy_all(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        if not sources:
            return
        if self.fs.async_impl:
            self.fs.copy([self._path(k) for k in sources], [self._path(k) for k in targets], batch_size=32)
            return
        for source, target in zip(sources, targets, strict=True):
            self.fs.pipe_file(self._path(target), self.fs.cat_file(self._path(source)))

    def _remove_all(self, keys: Sequence[str]) -> None:
        for part in metadata_first(keys):
            self.fs.rm([self._path(key) for key in part])

    def _again(self, call: Callable[[], Any]) -> Any:
        """Retry a read after a transient fault that the client does not retry itself."""
        for wait in waits():
            try:
                return call()
            except Exception as error:
                if not passes(error, self.scheme):
                    raise
            count_retry()
            time.sleep(wait)
        return call()

    def _check_writable(self) -> None:
        if self.scheme in READ_ONLY:
            raise BadStore(f"{self.root}: {self.scheme}:// is read-only; give --output a path or s3://")

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    def _key(self, path: str) -> str:
        return self.fs._strip_protocol(path).removeprefix(self.root).strip("/")


def zarr_store(url: str, *, read_only: bool) -> Any:
    """Make the zarr store of a URL."""
    scheme = url.partition("://")[0]
    root = file_system(scheme)._strip_protocol(url).rstrip("/")
    if scheme == "s3" and wants_obstore():
        bucket, _, prefix = root.partition("/")
        return RetryingStore(obstore_zarr(bucket, prefix, read_only=read_only), scheme=OBSTORE)
    return RetryingStore(
        FsspecStore(file_system(scheme, asynchronous=True), read_only=read_only, path=root), scheme=scheme
    )


def metadata_first(keys: Sequence[str]) -> list[list[str]]:
    """Split keys into the parts in which they are removed: zarr metadata, then all others; no part is empty."""
    parts = [[key for key in keys if _is_document(key) != late] for late in (False, True)]
    return [part for part in parts if part]


def _is_document(key: str) -> bool:
    return key.rpartition("/")[2] in DOCUMENTS


def _documents_last(key: str) -> tuple[bool, int, str]:
    """Sort key: chunks, then the documents of arrays, then those of the groups that hold them."""
    return _is_document(key), -key.count("/") if _is_document(key) else 0, key


def _is_missing_bucket(error: BaseException) -> bool:
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") == "NoSuchBucket"


def token(info: dict[str, Any]) -> str:
    """Version token of an object: it changes when the content does."""
    for name in ("ETag", "etag", "md5", "mtime", "created", "LastModified"):
        if info.get(name):
            return str(info[name]).strip('"')
    return ""
