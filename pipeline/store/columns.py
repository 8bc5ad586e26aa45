"""Columns of numbers, and packed arrays, as blobs for the scratch (safetensors: nothing in a blob is ever executed).

safetensors and numcodecs are imported where they are used: commands that read no scratch, such as `inspect`, start
without them.
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


def packed(array: np.ndarray) -> bytes:
    """Compress an array; its shape and type are not kept."""
    from numcodecs import Zstd

    return bytes(Zstd(level=0).encode(np.ascontiguousarray(array)))


def unpacked(data: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array that `packed` compressed, read-only.

    Raises:
        ValueError: the data are damaged, or are not those of such an array.
    """
    from numcodecs import Zstd

    try:
        return np.frombuffer(Zstd().decode(data), dtype).reshape(shape)
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def frozen(columns: Columns) -> Columns:
    """Return the columns as `from_bytes` would give them, without encoding them: in C order, and read-only."""
    return _locked({name: np.asarray(column, order="C").view() for name, column in columns.items()})


def _locked(columns: Columns) -> Columns:
    for column in columns.values():
        column.flags.writeable = False
    return columns
