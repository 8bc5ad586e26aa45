"""Making a new store: it is removed when making it fails, and an unfinished one is replaced after a kill."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import RunConflict
from pipeline.store.places.address import Address, address

UNFINISHED = ".platelayer/ingest-unfinished"
"""File in a store that is not finished."""


@contextmanager
def new_store(output: str) -> Iterator[Address]:
    """Yield the address of a new store; when the block fails, everything that was written is removed.

    Raises:
        RunConflict: the place is not empty and holds no unfinished store.
    """
    target = free_target(output)
    target.write_bytes(UNFINISHED, b"")
    try:
        yield target
    except BaseException:
        target.remove()
        raise
    target.remove(UNFINISHED.partition("/")[0])


def free_target(output: str) -> Address:
    """Return the address of a store that does not exist; an unfinished one is removed."""
    target = address(output)
    if not target.exists():
        return target
    if target.read_bytes_or_none(UNFINISHED) is None:
        raise RunConflict(f"{target}: there is something already; give another place, or remove it first")
    target.remove()
    return target
