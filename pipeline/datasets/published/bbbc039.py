"""BBBC039: nuclei of U2OS cells in a chemical screen, fluorescence, 200 fields.

Read are ``images/*.tif``, ``masks/*.png`` and the official lists in ``metadata/``. The invariant: an object is a
region of one value in the first channel of the mask, because touching nuclei have different values; regions
smaller than ``MIN_AREA_PX`` (micronuclei, specks) are dropped as in the paper.
"""

import re
from collections.abc import Iterator
from pathlib import Path

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

NAME = "bbbc039"
TITLE = "BBBC039: nuclei of U2OS cells in a chemical screen"
CITATION = (
    "Caicedo et al., Evaluation of deep learning strategies for nucleus segmentation in fluorescence images, "
    "Cytometry A 95, 952 (2019); Ljosa et al., Nat. Methods 9, 637 (2012)"
)
LICENCE = "Broad Bioimage Benchmark Collection, see https://bbbc.broadinstitute.org/BBBC039"
URLS = (
    "https://data.broadinstitute.org/bbbc/BBBC039/images.zip",
    "https://data.broadinstitute.org/bbbc/BBBC039/masks.zip",
    "https://data.broadinstitute.org/bbbc/BBBC039/metadata.zip",
)
CHECKSUMS = {
    "images.zip": "sha256:6f30a5d4fe38c928ded972704f085975f8dc0d65d9aa366df00e5a9d449fddd7",
    "masks.zip": "sha256:f9e6043d8ca56344a4886f96a700d804d6ee982f31e2b2cd3194af2a053c2710",
}
"""Checksums as published by other projects; they were not verified by a download."""
SPLITS = ("train", "validation", "test", "all")
LISTS = {"train": "training.txt", "validation": "validation.txt", "test": "test.txt"}
MIN_AREA_PX = 25
_WELL = re.compile(r"_([A-P])(\d\d)_s\d+_")


def read(source: Path | str, *, split: str = "all", min_area_px: int = MIN_AREA_PX) -> Iterator[Sample]:
    """Yield the fields of a split in order of their names; the splits are the official lists.

    Without the folder ``metadata`` only the split ``all`` is known.

    Raises:
        BadArgument: no such split.
        BadStore: images, masks or the list of the split are not there.
    """
    check_split(split, SPLITS, dataset=NAME)
    masks = {path.stem: path for path in find_files(source, "masks/*.png", what="BBBC039 masks")}
    images = {path.stem: path for path in find_files(source, "images/*.tif", what="BBBC039 images")}
    listed = set(images) if split == "all" else _listed(source, split)
    missing = sorted(listed - (images.keys() & masks.keys()))
    if missing:
        raise BadStore(f"{NAME}: expected image and mask of {missing[0]!r} and {len(missing) - 1} others")
    names = names_of(split, listed, lambda name: split, dataset=NAME)
    return (_sample(name, images[name], masks[name], min_area_px) for name in names)


def _listed(source: Path | str, split: str) -> set[str]:
    path = find_files(source, f"metadata/{LISTS[split]}", what=f"the official list of the split {split!r}")[0]
    return {Path(line.strip()).stem for line in path.read_text().splitlines() if line.strip()}


def _sample(name: str, image: Path, mask: Path, min_area_px: int) -> Sample:
    values = read_plane(mask)
    first = values if values.ndim == 2 else values[..., 0]
    well = _WELL.search(name)
    return Sample(
        name=name,
        image=grey(read_plane(image))[None],
        truth=components(first, min_area_px=min_area_px)[None],
        group=name,
        well=(well[1], str(int(well[2]))) if well else None,
        channels=("Hoechst",),
    )
