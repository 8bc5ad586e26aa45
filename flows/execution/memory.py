"""The memory of a process that works on blocks: kept by the allocator, not given back after each of them."""

import ctypes
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Parameters of mallopt, as the C library numbers them."""

KEPT_BYTES = 1 << 29
"""Arrays up to this size are cut from memory that is kept, and so much of it is kept."""


@cache
def keep_memory() -> None:
    """Let arrays of a block reuse the memory of the last one, once per process.

    By default every array beyond some megabytes is mapped anew, and its page faults cost a fifth of all that
    comes after the network. Where the C library knows no such setting, nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return
    mallopt(MMAP_THRESHOLD, KEPT_BYTES)
    mallopt(TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(ARENA_MAX, 1)  # what threads that read and decode gave back is there for all
