"""Retries of reads and writes over a network, after transient faults that the client does not retry itself."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from pipeline.store.places.faults import kind_of
from pipeline.store.places.s3 import ATTEMPTS
from pipeline.store.places.traffic import count_received, count_request, count_retry

T = TypeVar("T")

BROKEN_OFF = frozenset({"ClientPayloadError", "IncompleteRead", "IncompleteReadError", "AioReadTimeoutError"})
"""Exceptions raised when a response breaks off while its body is read."""

OBSTORE = "obstore"
"""Name used in place of the scheme where obstore transfers the chunks."""


class RetryingStore(WrapperStore[Any]):
    """A zarr store that retries after transient faults that its client does not retry itself.

    obstore does not report what it sent or how often, so its requests are retried and counted here.
    """

    def __init__(self, store: Store, *, scheme: str) -> None:
        super().__init__(store)
        self.scheme = scheme

    def _with_store(self, store: Store) -> "RetryingStore":
        return type(self)(store, scheme=self.scheme)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a value, whole or a range of it."""
        buffer = await self._again("GET", lambda: self._store.get(key, prototype, byte_range))
        if buffer is not None and self.scheme == OBSTORE:
            count_received(len(buffer))
        return within(buffer, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value."""
        await self._again("PUT", lambda: self._store.set(key, value), size=len(value))

    async def delete(self, key: str) -> None:
        """Remove a value."""
        await self._again("DELETE", lambda: self._store.delete(key))

    async def exists(self, key: str) -> bool:
        """Whether there is a value."""
        return await self._again("HEAD", lambda: self._store.exists(key))

    async def _again(self, kind: str, call: Callable[[], Awaitable[T]], *, size: int = 0) -> T:
        for wait in waits():
            if self.scheme == OBSTORE:
                count_request(kind, size=size)
            try:
                return await call()
            except Exception as error:
                if not passes(error, self.scheme):
                    raise
            count_retry()
            await asyncio.sleep(wait)
        if self.scheme == OBSTORE:
            count_request(kind, size=size)
        return await call()


def passes(error: BaseException, scheme: str) -> bool:
    """Whether a fault is transient, and the client of the scheme does not retry it itself."""
    if scheme == "s3":
        # botocore retries requests, but not responses that break off while the body is read.
        return bool(BROKEN_OFF & {cls.__name__ for cls in type(error).__mro__})
    return kind_of(error) == "busy"


def within(buffer: Buffer | None, byte_range: ByteRequest | None) -> Buffer | None:
    """Cut the requested range out of a response: some web servers ignore ranges and send the whole file."""
    if buffer is None or byte_range is None:
        return buffer
    if isinstance(byte_range, SuffixByteRequest):
        return buffer[-byte_range.suffix :] if len(buffer) > byte_range.suffix else buffer
    if isinstance(byte_range, RangeByteRequest) and len(buffer) > byte_range.end - byte_range.start:
        return buffer[byte_range.start : byte_range.end]
    return buffer


def waits() -> Iterator[float]:
    """Seconds to wait after each failed attempt but the last: exponential backoff with jitter."""
    for attempt in range(ATTEMPTS - 1):
        longest = min(0.1 * 2**attempt, 10.0)
        yield longest * (0.5 + 0.5 * random.random())  # Jitter needs no seed, because it changes no result.
