"""ISBI 2014 (OCC2014): overlapping cervical cells, synthetic images, one cytoplasm mask per cell.

Read are the three layouts in which the challenge data go around: ``isbi_train_GT.mat`` beside ``<n>.tif``;
``isbi_train.mat`` and ``isbi_test90.mat`` with their ``_GT.mat``; ``trainset.mat`` and ``testset.mat`` with
theirs. The invariant: cells keep the whole of their masks where they overlap; nuclei are not read.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.datasets.published.matlab import Cell, cells
from pipeline.datasets.published.sources import check_split, find_files, grey, names_of, read_plane
from pipeline.datasets.sample import Sample
from pipeline.errors import BadStore
from pipeline.stack import stack_from_masks

NAME = "isbi2014"
TITLE = "ISBI 2014 overlapping cervical cytology challenge (OCC2014), synthetic images"
CITATION = (
    "Lu et al., An improved joint optimization of multiple level set functions for the segmentation of "
    "overlapping cervical cells, IEEE Trans. Image Processing 24, 1261 (2015); Lu et al., Evaluation of three "
    "algorithms for the segmentation of overlapping cervical cells, IEEE J. Biomed. Health Inform. 21, 441 (2017)"
)
LICENCE = "challenge data, academic use: never redistribute, ship no weights made from it"
URLS = (
    "https://cs.adelaide.edu.au/~carneiro/isbi14_challenge/Train45Test90.zip",
    "https://cs.adelaide.edu.au/~carneiro/isbi14_challenge/Dataset.zip",
)
CHECKSUMS: dict[str, str] = {}
SPLITS = ("train", "validation", "test", "all")
VALIDATION_EVERY = 5
"""Of the challenge's training images every fifth is for validation (the paper draws 10 % at random)."""
_TRUTHS = {
    "train": ("isbi_train_GT.mat", "trainset_GT.mat"),
    "test": ("testset_GT.mat", "isbi_test90_GT.mat"),
}
_IMAGES = {
    "isbi_train_GT.mat": ("isbi_train.mat", "ISBI_Train"),
    "trainset_GT.mat": ("trainset.mat", "trainset"),
    "isbi_test90_GT.mat": ("isbi_test90.mat", "ISBI_Test90"),
    "testset_GT.mat": ("testset.mat", "testset"),
}


def read(source: Path | str, *, split: str = "all") -> Iterator[Sample]:
    """Yield the images of a split in order of their names, ``train001`` first.

    The paper's test set is every odd-numbered test image, numbered from 0; the even-numbered ones are for
    training. In names numbers start at 1, as in the names of the files.

    Raises:
        BadArgument: no such split.
        BadStore: no layout of the challenge was found.
    """
    check_split(split, SPLITS, dataset=NAME)
    entries = {**_entries(source, "train"), **_entries(source, "test")}
    if not entries:
        raise BadStore(
            f"{NAME}: expected isbi_train_GT.mat or trainset_GT.mat in {str(source)!r}, found neither"
        )
    names = names_of(split, entries, split_of, dataset=NAME)
    return (_sample(name, *entries[name]) for name in names)


def split_of(name: str) -> str:
    """Name the split of an image such as ``train005`` or ``test090``."""
    part, number = name[:-3], int(name[-3:])
    if part == "test":
        return "train" if (number - 1) % 2 == 0 else "test"
    return "train" if number % VALIDATION_EVERY else "validation"


def _entries(source: Path | str, part: str) -> dict[str, tuple[Callable[[], np.ndarray], Cell]]:
    """Return, per name, how to read the image and the cell that holds its masks."""
    path = next(filter(None, (_find(source, name) for name in _TRUTHS[part])), None)
    if path is None:
        return {}
    masks = cells(path, f"{part}_Cytoplasm")
    images = _images_beside(path, len(masks))
    return {f"{part}{n:03d}": (images[n], masks[n - 1]) for n in sorted(images)}


def _find(source: Path | str, name: str) -> Path | None:
    try:
        return find_files(source, name, what="the masks of the challenge")[0]
    except BadStore:
        return None


def _images_beside(truth: Path, count: int) -> dict[int, Callable[[], np.ndarray]]:
    """Return how to read each image, by its number from 1; those that are not there are left out."""
    name, variable = _IMAGES[truth.name]
    packed = truth.with_name(name)
    if packed.is_file():
        return {n: cell.array for n, cell in enumerate(cells(packed, variable), start=1) if n <= count}
    single = {n: truth.with_name(f"{n}.tif") for n in range(1, count + 1)}
    existing = {n: path for n, path in single.items() if path.is_file()}
    if not existing:
        raise BadStore(f"expected {name!r} or 1.tif, 2.tif, ... beside {str(truth)!r}, found neither")
    return {n: partial(read_plane, path) for n, path in existing.items()}


def _sample(name: str, image: Callable[[], np.ndarray], masks: Cell) -> Sample:
    pixels = grey(image())
    stack = stack_from_masks((mask > 0 for mask in masks.arrays() if mask.any()), pixels.shape)
    return Sample(name=name, image=pixels[None], truth=stack, group=name, channels=("extended focus",))
