"""A store that is being made: whole at the end, gone when making it fails, made anew after a kill."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import RunConflict
from pipeline.store.places.address import Address, address

UNFINISHED = ".platelayer/ingest-unfinished"
"""File in a store that is not finished."""


@contextmanager
def new_store(output: str) -> Iterator[Address]:
    """Give the address of a new store; when the block fails, what was written is removed.

    Raises:
        RunConflict: there is something already, other than a store that was not finished.
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
    """Return the address of a store that does not exist; one that was not finished is removed."""
    target = address(output)
    if not target.exists():
        return target
    if target.read_bytes_or_none(UNFINISHED) is None:
        raise RunConflict(f"{target}: there is something already; give another place, or remove it first")
    target.remove()
    return target
