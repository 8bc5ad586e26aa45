"""Allocator settings with which a process that works on blocks keeps its memory between them."""

import ctypes
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Parameters of mallopt, as the C library numbers them."""

KEPT_BYTES = 1 << 29
"""Arrays up to this size come from the heap, and so many free bytes of it are kept."""


@cache
def keep_memory() -> None:
    """Let the arrays of a block reuse the memory of the last one; called once per process.

    By default every array beyond some megabytes is mapped anew, and its page faults cost a fifth of the time after
    the network. Where the C library has no such settings, nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return
    mallopt(MMAP_THRESHOLD, KEPT_BYTES)
    mallopt(TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(
        ARENA_MAX, 1
    )  # One arena, so that memory freed by reading and decoding threads is available to all.
