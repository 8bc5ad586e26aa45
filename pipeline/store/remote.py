"""Objects below one prefix of anything fsspec knows: object storage, memory, https.

Everything that gives access (keys, profile, endpoint) comes from the environment, never from an address.
An object is visible only whole, because it is written by one PUT (or one completed multipart upload).
"""

import hashlib
import os
import socket
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

from pipeline.errors import BadArgument, BadStore

DOCUMENTS = frozenset({"zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata"})
"""Zarr metadata; copied last and removed first, so that a half-copied array is not visible."""

ATTEMPTS = 10
"""How often one request is tried before it counts as failed (backoff with jitter in between)."""

READ_ONLY = frozenset({"http", "https"})
"""Schemes without a way to write."""


def file_system(scheme: str, *, asynchronous: bool = False) -> Any:
    """Return this process's file system for a scheme, set up from the environment as it is now."""
    return _file_system(scheme, asynchronous, os.getpid(), _mark_of_environment())


@lru_cache(maxsize=32)
def _file_system(scheme: str, asynchronous: bool, pid: int, mark: str) -> Any:
    options = _s3_options() if scheme == "s3" else {}
    try:
        cls = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise BadArgument(f"addresses that start with {scheme}:// need a package: {error}") from None
    except ValueError:
        raise BadArgument(f"unknown kind of address {scheme!r}://; use a path, s3:// or https://") from None
    if not cls.async_impl:
        plain = cls(skip_instance_cache=True, use_listings_cache=False, **options)
        return AsyncFileSystemWrapper(plain, asynchronous=True) if asynchronous else plain
    return cls(asynchronous=asynchronous, skip_instance_cache=True, use_listings_cache=False, **options)


def _s3_options() -> dict[str, Any]:
    """Options of s3fs; keys, profile, region and endpoint are found by botocore itself."""
    _check_endpoint()
    retries = {"mode": "adaptive", "max_attempts": ATTEMPTS}
    config = {"retries": retries, "connect_timeout": 10, "read_timeout": 60, "max_pool_connections": 64}
    return {"anon": is_anonymous(), "config_kwargs": config}


def is_anonymous() -> bool:
    """Whether S3 is read without signing: asked for by PLATELAYER_S3_ANON=1, or no credentials are found."""
    asked = os.environ.get("PLATELAYER_S3_ANON")
    if asked is not None:
        return asked.strip().lower() not in {"", "0", "false", "no"}
    return _session().get_credentials() is None


def endpoint() -> str | None:
    """Return the S3 endpoint set by environment or profile; None for the provider's own."""
    config = _session().get_config_variable
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return named or _session().get_scoped_config().get("endpoint_url") or config("endpoint_url")


def _session() -> Any:
    import botocore.session
    from botocore.exceptions import ProfileNotFound

    session = botocore.session.Session()
    try:
        session.get_scoped_config()
    except ProfileNotFound:
        name = os.environ.get("AWS_PROFILE")
        raise BadStore(f"AWS_PROFILE={name!r}: there is no such profile; see ~/.aws/config") from None
    return session


def _check_endpoint() -> None:
    """Say at once when an endpoint set by the user cannot be reached: its ten retries take minutes."""
    url = endpoint()
    if not url or any(
        os.environ.get(name) for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
    ):
        return
    parts = urlsplit(url if "://" in url else f"https://{url}")
    port = parts.port or (80 if parts.scheme == "http" else 443)
    for last in (False, True):
        try:
            socket.create_connection((parts.hostname or "", port), timeout=5).close()
            return
        except OSError as error:
            if last:
                safe = f"{parts.scheme}://{parts.hostname}:{port}"
                raise BadStore(
                    f"S3 endpoint {safe} cannot be reached ({type(error).__name__}); "
                    "check AWS_ENDPOINT_URL, the profile and the network"
                ) from None


def _mark_of_environment() -> str:
    """Digest of the environment that decides about access, so that a change of it is seen."""
    prefixes = ("AWS_", "PLATELAYER_", "GOOGLE_", "AZURE_", "GCE_")
    values = sorted(item for item in os.environ.items() if item[0].startswith(prefixes))
    return hashlib.sha256(repr(values).encode()).hexdigest()


class RemoteFiles:
    """Keys (``a/b/c``) below a URL, as bytes."""

    def __init__(self, url: str) -> None:
        self.scheme = url.partition("://")[0]
        self.fs = file_system(self.scheme)
        self.root = self.fs._strip_protocol(url).rstrip("/")

    def get(self, key: str) -> bytes | None:
        """Read an object; None when it is not there."""
        try:
            return bytes(self.fs.cat_file(self._path(key)))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            if _is_missing_bucket(error):
                raise
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write an object by one PUT."""
        self._check_writable()
        self.fs.pipe_file(self._path(key), data)

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object unless there is one; says whether it was written."""
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
        found = self.fs.find(self._path(key), detail=True, withdirs=False)
        return [(self._key(path), int(info.get("size") or 0), _token(info)) for path, info in found.items()]

    def children(self, key: str) -> list[str]:
        """List the names directly below a key."""
        try:
            found = self.fs.ls(self._path(key), detail=False)
        except FileNotFoundError as error:
            if _is_missing_bucket(error):
                raise
            return []
        below = (self._key(path.rstrip("/")) for path in found)
        return [name.rpartition("/")[2] for name in below if name != key]

    def remove(self, key: str) -> None:
        """Remove an object or all objects below a key, metadata first; nothing there is fine."""
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
        for late in (False, True):
            part = [self._path(key) for key in keys if _is_document(key) != late]
            if part:
                self.fs.rm(part)

    def _check_writable(self) -> None:
        if self.scheme in READ_ONLY:
            raise BadStore(f"{self.root}: {self.scheme}:// is read-only; give --output a path or s3://")

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    def _key(self, path: str) -> str:
        return self.fs._strip_protocol(path).removeprefix(self.root).strip("/")


def _is_document(key: str) -> bool:
    return key.rpartition("/")[2] in DOCUMENTS


def _documents_last(key: str) -> tuple[bool, int, str]:
    """Sort key: chunks, then the documents of arrays, then those of the groups that hold them."""
    return _is_document(key), -key.count("/") if _is_document(key) else 0, key


def _is_missing_bucket(error: BaseException) -> bool:
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") == "NoSuchBucket"


def _token(info: dict[str, Any]) -> str:
    for name in ("ETag", "etag", "md5", "mtime", "created", "LastModified"):
        if info.get(name):
            return str(info[name]).strip('"')
    return ""
