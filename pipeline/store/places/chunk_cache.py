"""Zarr stores between an array and its files: a cache of chunks, and a check that chunks are complete.

`RecentChunks` caches the chunks of a remote store for neighbouring tiles: the halo of a tile lies in the chunks of its
neighbours, so each chunk would be fetched up to nine times. Small shards are fetched with one request, where zarr
would fetch the index and then chunk after chunk. A bounded number of encoded bytes is kept, only inside `kept_for`,
whose scope names one state of an image; so the cache is never out of date.

`WholeChunks` refuses truncated chunks that a decoder would accept (`pipeline.store.places.chunk_length`).
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from pipeline.store.places.chunk_length import HEADER, check_length

KEPT_BYTES = 128 * 2**20
"""Upper limit of the encoded bytes in the cache of a process: two rows of chunks of an image 32,000 px wide."""

WHOLE_BYTES = 32 * 2**20
"""Shards up to this uncompressed size are fetched with one request."""

_scope: ContextVar[str] = ContextVar("scope", default="")


@contextmanager
def kept_for(scope: str) -> Iterator[None]:
    """Cache the chunks that are read inside the block; ``scope`` must change when the data change."""
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)


class RecentChunks(WrapperStore[Any]):
    """A store that serves recently read chunks from the cache."""

    def __init__(self, store: Store, *, url: str, shard_bytes: int) -> None:
        super().__init__(store)
        self.url, self.shard_bytes = url, shard_bytes

    def _with_store(self, store: Store) -> "RecentChunks":
        return type(self)(store, url=self.url, shard_bytes=self.shard_bytes)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a value, or a range of it; for a range of a small shard the whole shard is fetched."""
        scope = _scope.get()
        if not scope or (byte_range is not None and not 0 < self.shard_bytes <= WHOLE_BYTES):
            return await self._store.get(key, prototype, byte_range)
        name = (os.getpid(), scope, self.url, key)
        return cut(await _kept.get(name, lambda: self._store.get(key, prototype)), byte_range)


def cut(value: Buffer | None, byte_range: ByteRequest | None) -> Buffer | None:
    """Cut a range out of a whole value."""
    if value is None or byte_range is None:
        return value
    if isinstance(byte_range, SuffixByteRequest):
        return value[max(len(value) - byte_range.suffix, 0) :]
    if isinstance(byte_range, OffsetByteRequest):
        return value[byte_range.offset :]
    return value[byte_range.start : byte_range.end]


class _Kept:
    """Reads in progress and their answers, oldest first; lives in the one event loop of zarr."""

    def __init__(self) -> None:
        self._reads: OrderedDict[tuple, asyncio.Future[Buffer | None]] = OrderedDict()
        self._bytes = 0

    async def get(self, name: tuple, read: Callable[[], Awaitable[Buffer | None]]) -> Buffer | None:
        if name not in self._reads:
            self._reads[name] = asyncio.ensure_future(read())
            self._reads[name].add_done_callback(partial(self._done, name))
        self._reads.move_to_end(name)
        # Shielded: the cancellation of one tile must not cancel a read that another is waiting for.
        return await asyncio.shield(self._reads[name])

    def _done(self, name: tuple, read: "asyncio.Future[Buffer | None]") -> None:
        if read.cancelled() or read.exception() is not None:
            self._reads.pop(name, None)
            return
        self._bytes += _size(read)
        while self._bytes > KEPT_BYTES:
            oldest = next(name for name, read in self._reads.items() if read.done())
            self._bytes -= _size(self._reads.pop(oldest))


def _size(read: "asyncio.Future[Buffer | None]") -> int:
    value = read.result()
    return len(value) if value is not None else 0


_kept = _Kept()


class WholeChunks(WrapperStore[Any]):
    """A store that checks the length of every chunk that is read."""

    def __init__(self, store: Store, *, blosc: bool) -> None:
        super().__init__(store)
        self.blosc = blosc

    def _with_store(self, store: Store) -> "WholeChunks":
        return type(self)(store, blosc=self.blosc)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a chunk or a part of one; ValueError when it is shorter than it must be."""
        buffer = await self._store.get(key, prototype, byte_range)
        if buffer is not None and byte_range is None:
            check_length(len(buffer), buffer[:HEADER].to_bytes(), blosc=self.blosc)
        elif buffer is not None:
            check_length(len(buffer), b"", blosc=False)
        return buffer
