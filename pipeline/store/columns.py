"""Columns of numbers as one blob for the scratch (safetensors: nothing in a blob is ever executed).

safetensors is imported where it is used: commands that read no scratch, such as `inspect`, start without it.
"""

import numpy as np

Columns = dict[str, np.ndarray]
"""Named columns."""


def to_bytes(columns: Columns) -> bytes:
    """Encode columns."""
    from safetensors.numpy import save

    return save({name: np.asarray(column, order="C") for name, column in columns.items()})


def from_bytes(data: bytes) -> Columns:
    """Decode columns; the arrays are read-only."""
    from safetensors.numpy import load

    return _locked(load(data))


def frozen(columns: Columns) -> Columns:
    """Return the columns as `from_bytes` would give them, without encoding them: in C order, and read-only."""
    return _locked({name: np.asarray(column, order="C").view() for name, column in columns.items()})


def _locked(columns: Columns) -> Columns:
    for column in columns.values():
        column.flags.writeable = False
    return columns
