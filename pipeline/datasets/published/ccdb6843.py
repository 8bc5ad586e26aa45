"""CCDB:6843: neuroblastoma cells with neurites that cross, fluorescence, 100 images.

Read are ``MP6843_img_full/<name>w1.TIF`` and ``MP6843_seg/<name>_GT_01.tif``, ``_GT_02.tif``. The invariant:
cells that overlap are in two files, and each file is labelled separately, so both stay whole.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.datasets.published.sources import (
    check_split,
    components,
    find_files,
    grey,
    is_in_validation,
    names_of,
    read_plane,
)
from pipeline.datasets.sample import Sample
from pipeline.errors import BadStore
from pipeline.stack import stack_from_masks

NAME = "ccdb6843"
TITLE = "CCDB:6843: mus musculus, neuroblastoma"
CITATION = "Yu et al., CCDB:6843, mus musculus, Neuroblastoma, Cell Image Library, doi:10.7295/W9CCDB6843"
LICENCE = "see https://doi.org/10.7295/W9CCDB6843"
URLS = ("http://www.cellimagelibrary.org/images/CCDB_6843",)
CHECKSUMS: dict[str, str] = {}
SPLITS = ("train", "validation", "test", "all")
TEST_PREFIX = "F04"
VALIDATION_PERCENT = 10
MIN_AREA_PX = 100


def read(source: Path | str, *, split: str = "all", min_area_px: int = MIN_AREA_PX) -> Iterator[Sample]:
    """Yield the images of a split in order of their names: the channel of the cells, not ``w2`` (nuclei).

    Objects smaller than ``min_area_px`` are dropped, as in the paper; an image without a file ``_GT_01`` has
    no truth.

    Raises:
        BadArgument: no such split.
        BadStore: no images, or none of them has a truth.
    """
    check_split(split, SPLITS, dataset=NAME)
    paths = find_files(source, "*_*w[13].[tT][iI][fF]", what="CCDB 6843 images (<name>w1.TIF)")
    images = {path.stem[:-2]: path for path in paths}
    truths = _truths(source)
    names = names_of(split, images, split_of, dataset=NAME)
    return (_sample(name, images[name], truths.get(name, []), min_area_px) for name in names)


def split_of(name: str) -> str:
    """Name the split of an image: ``F04*`` are the paper's test set, a tenth of the rest is for validation."""
    if name.startswith(TEST_PREFIX):
        return "test"
    return "validation" if is_in_validation(name, percent=VALIDATION_PERCENT) else "train"


def _truths(source: Path | str) -> dict[str, list[Path]]:
    truths: dict[str, list[Path]] = {}
    for path in find_files(
        source, "*_GT_0[12].[tT][iI][fF]", what="CCDB 6843 annotations (<name>_GT_01.tif)"
    ):
        truths.setdefault(path.stem[: -len("_GT_01")], []).append(path)
    return truths


def _sample(name: str, image: Path, truths: list[Path], min_area_px: int) -> Sample:
    pixels = grey(read_plane(image))
    return Sample(
        name=name,
        image=pixels[None],
        truth=_stack(truths, pixels.shape, min_area_px) if truths else None,
        group=name,
        channels=("cells",),
    )


def _stack(truths: list[Path], shape: tuple[int, ...], min_area_px: int) -> np.ndarray:
    masks: list[np.ndarray] = []
    for path in truths:
        plane = read_plane(path)
        first = plane if plane.ndim == 2 else plane[..., 0]
        if first.shape != shape:
            raise BadStore(f"{str(path)!r}: expected {shape} like the image, got {first.shape}")
        labels = components(first > 0, min_area_px=min_area_px)
        masks.extend(labels == index for index in range(1, int(labels.max()) + 1))
    return stack_from_masks(masks, shape)
