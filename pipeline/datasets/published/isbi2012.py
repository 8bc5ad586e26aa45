"""ISBI 2012: neurites in serial-section electron microscopy, a stack of consecutive 512 x 512 slices.

Read are ``image/<n>.png`` with ``label/<n>.png`` and the challenge's TIFF stacks ``train-volume.tif``,
``train-labels.tif``, ``test-volume.tif``. The objects are the components of what is inside the membranes. The
invariant: neighbouring slices show the same neurites, so the last ones are for validation and one between is in
neither part; a split by slice at random would leak.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pipeline.datasets.published.sources import (
    check_split,
    components,
    find_files,
    grey,
    names_of,
    read_plane,
)
from pipeline.datasets.sample import Sample
from pipeline.errors import BadStore

NAME = "isbi2012"
TITLE = "ISBI 2012 EM segmentation challenge: Drosophila ventral nerve cord"
CITATION = (
    "Arganda-Carreras et al., Crowdsourcing the creation of image segmentation algorithms for connectomics, "
    "Frontiers in Neuroanatomy 9, 142 (2015)"
)
LICENCE = "challenge data, academic use"
URLS = ("https://imagej.net/events/isbi-2012-segmentation-challenge",)
CHECKSUMS: dict[str, str] = {}
SPLITS = ("train", "validation", "test", "all")
VALIDATION_FROM = 20
"""Slices from this one on are for validation, the one before it is in no split but ``all``."""
PIXEL_SIZE_UM = 0.004


def read(source: Path | str, *, split: str = "all") -> Iterator[Sample]:
    """Yield the slices of a split from top to bottom; those of the test volume have no truth.

    Raises:
        BadArgument: no such split.
        BadStore: neither layout was found.
    """
    check_split(split, SPLITS, dataset=NAME)
    slices = _slices(source)
    names = names_of(split, slices, split_of, dataset=NAME)
    return (_sample(name, *slices[name]) for name in names)


def split_of(name: str) -> str:
    """Name the split of a slice such as ``train_007``; ``""`` for the one that keeps the parts apart."""
    part, number = name.split("_")
    if part == "test":
        return "test"
    if int(number) >= VALIDATION_FROM:
        return "validation"
    return "train" if int(number) < VALIDATION_FROM - 1 else ""


_Reader = Callable[[], np.ndarray]


def _slices(source: Path | str) -> dict[str, tuple[_Reader, _Reader | None]]:
    try:
        return _stacks(find_files(source, "train-volume.tif", what="ISBI 2012 stacks")[0])
    except BadStore:
        images = find_files(
            source, "image/*.png", what="ISBI 2012 slices (train-volume.tif, or image/<n>.png)"
        )
    return {f"train_{int(path.stem):03d}": _single(path) for path in images}


def _single(image: Path) -> tuple[_Reader, _Reader]:
    truth = image.parent.with_name("label") / image.name
    return lambda: read_plane(image), lambda: read_plane(truth)


def _stacks(volume: Path) -> dict[str, tuple[_Reader, _Reader | None]]:
    """Return the slices of the stacks; they are small (30 slices of 512 x 512, uint8) and read whole."""
    images, truths = read_plane(volume), read_plane(volume.with_name("train-labels.tif"))
    if images.shape != truths.shape:
        raise BadStore(f"{str(volume)!r}: expected labels of shape {images.shape}, got {truths.shape}")
    slices: dict[str, tuple[_Reader, _Reader | None]] = {
        f"train_{z:03d}": (images[z].copy, truths[z].copy) for z in range(len(images))
    }
    test = volume.with_name("test-volume.tif")
    if test.is_file():
        slices |= {f"test_{z:03d}": (plane.copy, None) for z, plane in enumerate(read_plane(test))}
    return slices


def _sample(name: str, image: _Reader, truth: _Reader | None) -> Sample:
    inside = None if truth is None else grey(truth()) > 0
    return Sample(
        name=name,
        image=grey(image())[None],
        truth=None if inside is None else components(inside, connectivity=1)[None],
        group=split_of(name) or "gap",
        channels=("EM",),
        pixel_size_um=PIXEL_SIZE_UM,
    )
