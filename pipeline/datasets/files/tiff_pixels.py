"""Regions of the pixels of a TIFF file, without reading the rest of it.

Contiguous, uncompressed pixels are read row by row; tiles and compressed strips are decoded one by one
(``tifffile.TiffPageSeries.aszarr``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
import tifffile
import zarr

from pipeline.datasets.files.source_files import SourceFile
from pipeline.errors import BadStore


@contextmanager
def open_tiff(file: SourceFile) -> Iterator[tifffile.TiffFile]:
    """Open a file; the other files of its set are read only where that is needed to interpret its pages."""
    with _alone(file) as opened:
        if not _needs_its_set(opened, file):
            yield opened
            return
    with tifffile.TiffFile(file.place) as opened:
        if own_series(opened):
            yield opened
            return
    with _alone(file) as opened:
        yield opened


@contextmanager
def _alone(file: SourceFile) -> Iterator[tifffile.TiffFile]:
    with file.open() as handle, tifffile.TiffFile(handle, name=file.place, _multifile=False) as opened:
        yield opened


def _needs_its_set(opened: tifffile.TiffFile, file: SourceFile) -> bool:
    return bool(opened.is_ome and len(opened.pages) > 1 and opened.series[0].kind != "ome" and file.is_local)


def own_series(opened: tifffile.TiffFile) -> list[int]:
    """Return the numbers of the series whose pages are all in this file."""
    return [
        number
        for number, series in enumerate(opened.series)
        if all(page is not None and page.parent.filename == opened.filename for page in series.pages)
    ]


Selection = tuple[slice, ...]
"""One slice for each stored axis."""


class Pixels(Protocol):
    """The pixels of one image, in the order of the stored axes."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """Lengths of the pieces that are read together, one per stored axis."""

    def read(self, selection: Selection) -> np.ndarray:
        """Return a region, in the byte order of this machine."""


@contextmanager
def open_pixels(file: SourceFile, series: int) -> Iterator[Pixels]:
    """Open one series of a file for reading regions."""
    with open_tiff(file) as opened:
        chosen = opened.series[series]
        if chosen.dataoffset is not None:
            dtype = np.dtype(chosen.dtype).newbyteorder(opened.byteorder)
            yield PlainPixels(
                handle=opened.filehandle,
                offset=chosen.dataoffset,
                shape=tuple(chosen.shape),
                axes=chosen.axes,
                dtype=dtype,
            )
            return
        store = chosen.aszarr(level=0)
        try:
            yield CodedPixels(zarr.open_array(store, mode="r"))
        finally:
            store.close()


@dataclass(frozen=True)
class CodedPixels:
    """Pixels in tiles or compressed strips."""

    array: Any
    """View of the file as an array."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """Lengths of a tile or strip."""
        return tuple(self.array.chunks)

    def read(self, selection: Selection) -> np.ndarray:
        """Decode the tiles or strips under a region."""
        return np.asarray(self.array[selection])


@dataclass(frozen=True, kw_only=True)
class PlainPixels:
    """Pixels that lie in the file one after the other, not compressed."""

    handle: Any
    """The open file."""
    offset: int
    """Byte at which the first pixel begins."""
    shape: tuple[int, ...]
    """Lengths of the stored axes."""
    axes: str
    """Letters of the stored axes."""
    dtype: np.dtype
    """Type of the pixels, in the byte order of the file."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """One row, because any rows can be read."""
        row = self.axes.index("Y")
        return (1,) * (row + 1) + self.shape[row + 1 :]

    def read(self, selection: Selection) -> np.ndarray:
        """Read a region: rows in one piece where it has the full width, else row by row."""
        row = self.axes.index("Y")
        out = np.empty([part.stop - part.start for part in selection], self.dtype.newbyteorder("="))
        for index in product(*(range(part.start, part.stop) for part in selection[:row])):
            place = tuple(i - part.start for i, part in zip(index, selection, strict=False))
            out[place] = self._rows(index, selection[row:])
        return out

    def _rows(self, index: tuple[int, ...], window: Selection) -> np.ndarray:
        y, x = window[0], window[1]
        tail = self.shape[len(index) + 2 :]
        width = self.shape[len(index) + 1]
        start = int(np.ravel_multi_index(index, self.shape[: len(index)])) if index else 0
        first_row = start * self.shape[len(index)] + y.start
        per_pixel = int(np.prod(tail, dtype=np.int64))
        if (x.start, x.stop) == (0, width):
            rows = self._values(first_row * width * per_pixel, (y.stop - y.start) * width * per_pixel)
        else:
            starts = [((first_row + n) * width + x.start) * per_pixel for n in range(y.stop - y.start)]
            rows = np.concatenate([self._values(at, (x.stop - x.start) * per_pixel) for at in starts])
        return rows.reshape(y.stop - y.start, x.stop - x.start, *tail)

    def _values(self, first: int, count: int) -> np.ndarray:
        self.handle.seek(self.offset + first * self.dtype.itemsize)
        data = self.handle.read(count * self.dtype.itemsize)
        if len(data) < count * self.dtype.itemsize:
            raise BadStore(f"{self.handle.name}: the file ends before its pixels do; fetch the file again")
        return np.frombuffer(data, self.dtype)
