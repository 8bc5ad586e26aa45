"""DSB2018: nuclei of the 2018 Data Science Bowl (BBBC038), one mask per nucleus.

Two layouts are read: the original ``stage1_train/<id>/{images,masks}/*.png`` and ``prepared/<id>.npz``, the
fluorescence part with the masks packed to bits. The invariant: an image is on the same side of the split
whichever layout it comes from.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.datasets.sample import Sample
from pipeline.datasets.sources import check_split, find_files, grey, is_in_validation, names_of, read_plane
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
"""Leading characters of an id, which name the image and decide its split; prepared files keep no more."""
VALIDATION_PERCENT = 10


def read(source: Path | str, *, split: str = "all") -> Iterator[Sample]:
    """Yield the images of a split in order of their ids, as one channel.

    A folder that holds both layouts is read as the prepared one.

    Raises:
        BadArgument: no such split.
        BadStore: neither layout is there.
    """
    check_split(split, SPLITS, dataset=NAME)
    readers = {path.name[:ID_LENGTH].removesuffix(".npz"): path for path in _entries(source)}
    names = names_of(split, readers, split_of, dataset=NAME)
    return (_sample(name, readers[name]) for name in names)


def split_of(name: str) -> str:
    """Name the split of an image from the hash of its id: about one in ten is for validation."""
    return "validation" if is_in_validation(name[:ID_LENGTH], percent=VALIDATION_PERCENT) else "train"


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
        group=name,
        channels=("nuclei",),
    )


def _read_prepared(path: Path) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    try:
        with np.load(path) as arrays:
            image, packed, width = arrays["image"], arrays["masks"], int(arrays["hw"][1])
    except (KeyError, ValueError, OSError) as error:
        raise BadStore(f"{str(path)!r}: expected arrays image, masks and hw, but {error}") from error
    return image, (np.unpackbits(rows, axis=-1, count=width).astype(bool) for rows in packed)


def _read_original(folder: Path) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    image = grey(read_plane(next(iter(sorted((folder / "images").glob("*.png"))))))
    return image, (grey(read_plane(path)) > 0 for path in sorted((folder / "masks").glob("*.png")))
