"""M-FISH: metaphase chromosomes, DAPI, objects derived from the class map of a karyotyper.

The map has 0 background, 1..24 class and 255 where chromosomes overlap. The invariant: an overlap region of
at least ``MIN_OVERLAP_PX`` belongs to every class that touches it, so both chromosomes are whole. Two
homologues that touch are one object: the map cannot tell them apart.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from pipeline.datasets.published.sources import check_split, find_files, grey, names_of, read_plane
from pipeline.datasets.sample import Sample
from pipeline.errors import BadStore
from pipeline.stack import stack_from_masks

NAME = "mfish"
TITLE = "PSI M-FISH image set 1: metaphase chromosomes, DAPI"
CITATION = "Advanced Digital Imaging Research (ADIR), M-FISH chromosome images"
LICENCE = "free use with the notice of its README (copyright (c) 2000 Advanced Digital Imaging Research)"
URLS: tuple[str, ...] = ()
CHECKSUMS: dict[str, str] = {}
SPLITS = ("train", "validation", "all")
VALIDATION_SLIDES = ("A05", "P10", "V19")
"""One slide of each probe set. No shipped model was trained on them; they are among the easier slides."""
OVERLAP = 255
MIN_OVERLAP_PX = 20
_EIGHT = np.ones((3, 3), bool)


def read(source: Path | str, *, split: str = "all") -> Iterator[Sample]:
    """Yield the images of a split in order of their names; a slide is on one side only.

    Raises:
        BadArgument: no such split.
        BadStore: there are no ``*K.tif`` with their ``*D.tif``.
    """
    check_split(split, SPLITS, dataset=NAME)
    maps = find_files(source, "*K.tif", what="M-FISH class maps")
    paths = {path.name.removesuffix("K.tif"): path for path in maps}
    return (_sample(name, paths[name]) for name in names_of(split, paths, split_of, dataset=NAME))


def split_of(name: str) -> str:
    """Name the split of an image from its slide, the first three characters of its name."""
    return "validation" if name[:3] in VALIDATION_SLIDES else "train"


def _sample(name: str, path: Path) -> Sample:
    image, classes = grey(read_plane(path.with_name(f"{name}D.tif"))), grey(read_plane(path))
    if image.shape != classes.shape:
        raise BadStore(f"{str(path)!r}: expected {image.shape} like its DAPI image, got {classes.shape}")
    masks, kinds = objects_of(classes)
    return Sample(
        name=name,
        image=image[None],
        truth=stack_from_masks(masks, classes.shape),
        classes={label: str(kind) for label, kind in enumerate(kinds, start=1)},
        group=name[:3],
        channels=("DAPI",),
    )


def truth_from_classes(classes: np.ndarray) -> np.ndarray:
    """Derive the label stack ``(L, y, x)`` from a class map ``(y, x)``; see ``objects_of``."""
    return stack_from_masks(objects_of(classes)[0], classes.shape)


def objects_of(classes: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
    """Return masks ``(y, x)`` of the objects of a class map ``(y, x)``, and the class of each.

    An object is an 8-connected component of a class together with the overlap regions that touch the class.
    Smaller overlap regions are assigned to no object.
    """
    regions, _ = ndimage.label(classes == OVERLAP, _EIGHT)
    large = np.bincount(regions.ravel()) >= MIN_OVERLAP_PX
    large[0] = False
    masks: list[np.ndarray] = []
    kinds: list[int] = []
    for value in np.unique(classes[(classes > 0) & (classes != OVERLAP)]).tolist():
        masks.extend(_objects_of(classes == value, regions, large))
        kinds += [value] * (len(masks) - len(kinds))
    return masks, kinds


def _objects_of(region: np.ndarray, overlaps: np.ndarray, large: np.ndarray) -> Iterator[np.ndarray]:
    touched = np.zeros_like(large)
    touched[overlaps[ndimage.binary_dilation(region, _EIGHT)]] = True
    components, count = ndimage.label(region | (touched & large)[overlaps], _EIGHT)
    return (components == index for index in range(1, count + 1))
