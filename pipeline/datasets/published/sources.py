"""Find and read the files of a dataset as people have them on disk: under a parent folder, as PNG or TIFF.

The invariant: missing or unreadable files raise a BadStore that names the path and the expected files.
Nothing here knows a particular dataset.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from skimage.measure import label

from pipeline.errors import BadArgument, BadStore

MAX_DEPTH = 4
"""How many folders deep below the given source the files are searched."""


def find_files(source: Path | str, pattern: str, *, what: str) -> list[Path]:
    """Return the files that match a glob pattern on the shallowest level where there are any, sorted.

    Hidden files (such as those macOS leaves in archives) do not count.

    Args:
        source: the folder itself or a parent of it.
        pattern: glob relative to the folder that holds the files, such as ``"image/*.png"``.
        what: how to call the files in the message of the error.

    Raises:
        BadStore: no such folder, or no such file in it.
    """
    root = Path(source)
    if "://" in str(source):
        raise BadStore(
            f"{source}: published datasets are read from a folder on a disk; copy {what} there first"
        )
    if not root.is_dir():
        raise BadStore(f"expected a folder with {what}, but there is no folder {str(root)!r}")
    for depth in range(MAX_DEPTH + 1):
        paths = sorted(path for path in root.glob("*/" * depth + pattern) if _counts(path))
        if paths:
            return paths
    raise BadStore(
        f"expected {what} ({pattern!r}) in {str(root)!r}, found none down to {MAX_DEPTH} folders; "
        "unpack the archives of the source there or name another folder"
    )


def _counts(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and "__MACOSX" not in path.parts


def read_plane(path: Path) -> np.ndarray:
    """Read a PNG or single-page TIFF as shipped: ``(y, x)``, or ``(y, x, samples)`` if it is in colour."""
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            return _read_tiff(path)
        with Image.open(path) as picture:
            return np.asarray(picture)
    except FileNotFoundError as error:
        raise BadStore(f"expected an image at {str(path)!r}, but there is no such file") from error
    except Exception as error:
        raise BadStore(f"cannot read the image {str(path)!r}: {error}; fetch the file again") from error


def _read_tiff(path: Path) -> np.ndarray:
    try:
        return tifffile.imread(path)
    except ValueError:
        # tifffile needs the optional imagecodecs for LZW; Pillow brings its own libtiff.
        with Image.open(path) as picture:
            return np.asarray(picture)


def grey(plane: np.ndarray) -> np.ndarray:
    """Return one channel ``(y, x)`` in the same dtype: alpha is dropped, colour becomes luminance."""
    if plane.ndim == 2:
        return plane
    colour = plane[..., :3] if plane.shape[-1] >= 3 else plane[..., :1]
    if (colour == colour[..., :1]).all():
        return np.ascontiguousarray(colour[..., 0])
    return (colour @ np.array([0.299, 0.587, 0.114])).round().astype(plane.dtype)


@contextmanager
def hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; h5py is needed for the few datasets that ship this format."""
    try:
        import h5py
    except ImportError as error:
        raise BadArgument(
            f"{path.name} is HDF5 and needs h5py, which is missing; pip install h5py"
        ) from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise BadStore(f"cannot read {str(path)!r} as HDF5: {error}; fetch the file again") from error
    with file:
        yield file


def components(mask: np.ndarray, *, connectivity: int = 2, min_area_px: int = 0) -> np.ndarray:
    """Label the regions of equal, non-zero value ``(y, x)`` with 1..n, uint32, in raster order.

    Args:
        mask: boolean, or integer where two touching objects have two values.
        connectivity: 2 joins pixels that touch at a corner, 1 does not.
        min_area_px: smaller regions are dropped.
    """
    regions = label(mask, background=0, connectivity=connectivity)
    keep = np.bincount(regions.ravel()) >= max(min_area_px, 1)
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0)[regions].astype(np.uint32)


def check_split(split: str, splits: tuple[str, ...], *, dataset: str) -> str:
    """Return the name of a split after checking that the dataset has it."""
    if split not in splits:
        raise BadArgument(f"{dataset}: expected a split out of {', '.join(splits)}, got {split!r}")
    return split


def names_of(split: str, names: Iterable[str], split_of: Callable[[str], str], *, dataset: str) -> list[str]:
    """Return the names that belong to a split, sorted; a split with nothing in it is a BadStore."""
    chosen = sorted(name for name in names if split in ("all", split_of(name)))
    if not chosen:
        raise BadStore(
            f"{dataset}: expected images of the split {split!r}, found none in this source; "
            "fetch that part of the dataset or ask for another split"
        )
    return chosen


def is_in_validation(key: str, *, percent: int) -> bool:
    """Say whether a key falls into the given percentage: from its hash, the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100 < percent
