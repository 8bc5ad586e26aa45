"""Opening TIFF files, alone or as one file of a set that OME metadata describe together."""

from collections.abc import Iterator
from contextlib import contextmanager

import tifffile

from pipeline.datasets.files.source_files import SourceFile


@contextmanager
def open_tiff(file: SourceFile) -> Iterator[tifffile.TiffFile]:
    """Open a file; the other files of its set are looked into only where that tells what its pages are."""
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
