"""DSB2018: nuclei of the 2018 Data Science Bowl (BBBC038), one mask per nucleus.

Two layouts are read: the original ``stage1_train/<id>/{images,masks}/*.png`` and ``prepared/<id>.npz``, the
fluorescence part with the masks packed to bits.

Images come in families: fields, or crops of fields, of one experiment. The training part names no experiments, but
the size of an image and the darkest value of its camera tell them apart. The invariant: a family is on one side of
the split, whichever layout its images come from, so that a score on the validation part speaks of experiments
that were not trained on.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.published.sources import check_split, find_files, grey, names_of, read_plane
from pipeline.datasets.sample import Sample
from pipeline.errors import BadStore
from pipeline.stack import stack_from_masks

NAME = "dsb2018"
TITLE = "2018 Data Science Bowl (BBBC038): nuclei"
CITATION = (
    "Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, "
    "Nature Methods 16, 1247 (2019)"
)
LICENCE = "CC0 1.0"
URLS = ("https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",)
CHECKSUMS: dict[str, str] = {}
SPLITS = ("train", "validation", "all")
ID_LENGTH = 12
"""Leading characters of an id, which name the image; prepared files keep no more."""
VALIDATION_SIZES = ((512, 640), (603, 1272), (256, 320), (260, 347))
"""Sizes (y, x) of the images of four experiments, 26 of the 541 fluorescence images, from few large nuclei to hundreds
of small ones."""
DARK_LEVEL = 7
"""Cameras of some families have an offset of 8 grey values and more, those of others of 0 to 3."""


def read(source: Path | str, *, split: str = "all") -> Iterator[Sample]:
    """Yield the images of a split in order of their ids, as one channel.

    A folder that holds both layouts is read as the prepared one.

    Raises:
        BadArgument: no such split.
        BadStore: neither layout was found.
    """
    check_split(split, SPLITS, dataset=NAME)
    readers = {path.name[:ID_LENGTH].removesuffix(".npz"): path for path in _entries(source)}
    names = names_of(split, readers, lambda name: split_of(_size(readers[name])), dataset=NAME)
    return (_sample(name, readers[name]) for name in names)


def split_of(size: tuple[int, int]) -> str:
    """Name the split of an image from its size ``(y, x)`` in px, which belongs to its experiment."""
    return "validation" if size in VALIDATION_SIZES else "train"


def family_of(image: np.ndarray) -> str:
    """Name the family of an image ``(y, x)``: its size, and whether its camera has an offset."""
    level = "offset" if image.min() >= DARK_LEVEL else "dark"
    return f"{image.shape[0]}x{image.shape[1]}-{level}"


def _size(entry: Path) -> tuple[int, int]:
    """Return the size ``(y, x)`` of an image without reading its pixels."""
    if entry.suffix == ".npz":
        with _arrays_of(entry) as arrays:
            height, width = arrays["hw"]
        return int(height), int(width)
    with Image.open(_image_file(entry)) as picture:
        return picture.height, picture.width


def _entries(source: Path | str) -> list[Path]:
    """Return the prepared files, or else one folder per image of the original layout."""
    try:
        return find_files(source, "*.npz", what="prepared DSB2018 images")
    except BadStore:
        images = find_files(source, "*/images/*.png", what="DSB2018 images as prepared/*.npz or as")
        return [path.parent.parent for path in images]


def _sample(name: str, entry: Path) -> Sample:
    image, masks = _read_prepared(entry) if entry.suffix == ".npz" else _read_original(entry)
    shape = image.shape
    return Sample(
        name=name,
        image=image[None],
        truth=stack_from_masks((mask for mask in masks if mask.any()), shape),
        group=family_of(image),
        channels=("nuclei",),
    )


def _read_prepared(path: Path) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    with _arrays_of(path) as arrays:
        image, packed, width = arrays["image"], arrays["masks"], int(arrays["hw"][1])
    return image, (np.unpackbits(rows, axis=-1, count=width).astype(bool) for rows in packed)


@contextmanager
def _arrays_of(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    try:
        with np.load(path) as arrays:
            yield arrays
    except (KeyError, ValueError, OSError) as error:
        raise BadStore(f"{str(path)!r}: expected arrays image, masks and hw, but {error}") from error


def _image_file(folder: Path) -> Path:
    return min((folder / "images").glob("*.png"))


def _read_original(folder: Path) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    image = grey(read_plane(_image_file(folder)))
    return image, (grey(read_plane(path)) > 0 for path in sorted((folder / "masks").glob("*.png")))
