"""A parallel map for requests to object storage, of which each spends its time waiting for an answer."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

REQUESTS = 16
"""Concurrent requests."""


def parallel_map(function: Callable[[T], U], items: Sequence[T], *, waits: bool = True) -> list[U]:
    """Return the results of ``function`` in the order of the items.

    ``waits``: whether each call waits for a server; otherwise the calls are made one after the other in this thread,
    which is faster.
    """
    if not waits or len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(REQUESTS, len(items))) as threads:
        return list(threads.map(function, items))
