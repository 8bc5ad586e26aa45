"""Read cell arrays from MATLAB files, old (version 5, through scipy) and new (version 7.3, which is HDF5).

The invariant: whichever version wrote the file, a cell comes out as the same array in row-major order. Cells of
new files are read one at a time; old files are read whole.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from pipeline.datasets.published.sources import hdf5
from pipeline.errors import BadStore


def cells(path: Path, variable: str) -> list["Cell"]:
    """Return the cells of a cell array ``(n, 1)``.

    Raises:
        BadStore: the file cannot be read or has no such cell array.
    """
    try:
        content = loadmat(path, variable_names=[variable])[variable]
        return [Cell(path, value) for value in content.ravel()]
    except NotImplementedError:  # scipy's error for a file of MATLAB 7.3, which is HDF5
        return _new_cells(path, variable)
    except (KeyError, ValueError, TypeError, OSError, MatReadError) as error:
        raise BadStore(f"{str(path)!r}: expected a MATLAB cell array {variable!r}, but {error!r}") from error


class Cell:
    """One cell: an array, or itself a column of cells."""

    def __init__(self, path: Path, content: Any) -> None:
        self._path = path
        self._content = content

    def array(self) -> np.ndarray:
        """Return the array in the cell."""
        if isinstance(self._content, str):
            with hdf5(self._path) as file:
                return np.asarray(file[self._content]).T
        return np.asarray(self._content)

    def arrays(self) -> Iterator[np.ndarray]:
        """Yield the arrays of the cells in this cell."""
        if not isinstance(self._content, str):
            yield from (np.asarray(value) for value in self._content.ravel())
            return
        with hdf5(self._path) as file:
            for reference in np.asarray(file[self._content]).ravel():
                yield np.asarray(file[reference]).T


def _new_cells(path: Path, variable: str) -> list[Cell]:
    with hdf5(path) as file:
        if variable not in file:
            raise BadStore(f"{str(path)!r}: expected a MATLAB cell array {variable!r}, got {sorted(file)}")
        return [Cell(path, file[reference].name) for reference in np.asarray(file[variable]).ravel()]
