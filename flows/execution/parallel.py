"""A parallel map for requests: each costs a round trip on object storage, and nothing but waiting."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

REQUESTS = 16
"""Requests under way at once."""


def parallel_map(function: Callable[[T], U], items: Sequence[T], *, waits: bool = True) -> list[U]:
    """Results of ``function`` in the order of the items.

    ``waits``: each call waits for a server. Calls that do not are faster one after the other, in this thread.
    """
    if not waits or len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(REQUESTS, len(items))) as threads:
        return list(threads.map(function, items))
