"""CVPPP leaf segmentation: rosette plants from above, in colour, one id per leaf.

Read are ``<plant>_rgb.png`` and ``<plant>_label.png`` in folders ``A1`` to ``A4`` (A1 if there is none by that
name). The invariant: a plant is one image, and images without a label are the challenge's test set.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.datasets.published.sources import check_split, find_files, names_of, read_plane
from pipeline.datasets.sample import Sample
from pipeline.errors import BadArgument, BadStore

NAME = "cvppp"
TITLE = "CVPPP 2017 leaf segmentation challenge"
CITATION = (
    "Minervini et al., Finely-grained annotated datasets for image-based plant phenotyping, Pattern Recognition "
    "Letters 81, 80 (2016); Scharr et al., Annotated image datasets of rosette plants, FZJ-2014-03837 (2014)"
)
LICENCE = "academic use after registration, see https://www.plant-phenotyping.org/datasets"
URLS = ("https://www.plant-phenotyping.org/datasets", "https://competitions.codalab.org/competitions/18405")
CHECKSUMS: dict[str, str] = {}
SPLITS = ("train", "validation", "test", "all")
SUBSETS = ("A1", "A2", "A3", "A4")
VALIDATION = frozenset(
    f"plant{number:03d}"
    for number in (2, 16, 29, 37, 45, 46, 55, 61, 72, 80, 88, 99, 104, 108, 115, 127, 130, 142, 148, 159)
)
"""The 20 plants of A1 that the affinity paper validates on."""


def read(source: Path | str, *, split: str = "all", subset: str = "A1") -> Iterator[Sample]:
    """Yield the plants of a split in order of their names, as red, green and blue.

    The validation list speaks of A1; plants with a label in another subset are all for training.

    Raises:
        BadArgument: no such split or subset.
        BadStore: no images of the subset.
    """
    check_split(split, SPLITS, dataset=NAME)
    if subset not in SUBSETS:
        raise BadArgument(f"{NAME}: expected a subset out of {', '.join(SUBSETS)}, got {subset!r}")
    paths = find_files(source, "*_rgb.png", what="CVPPP plants (<plant>_rgb.png)")
    images = {_name(path): path for path in paths if _subset(path) == subset}
    names = names_of(split, images, lambda name: _split(name, images[name]), dataset=NAME)
    return (_sample(name, images[name]) for name in names)


def _subset(path: Path) -> str:
    return path.parent.name if path.parent.name in SUBSETS else "A1"


def _name(path: Path) -> str:
    return f"{_subset(path)}_{path.name.removesuffix('_rgb.png')}"


def _label(image: Path) -> Path:
    return image.with_name(image.name.replace("_rgb.png", "_label.png"))


def _split(name: str, image: Path) -> str:
    if not _label(image).is_file():
        return "test"
    return "validation" if name.startswith("A1_") and name[3:] in VALIDATION else "train"


def _sample(name: str, path: Path) -> Sample:
    colour = read_plane(path)
    if colour.ndim != 3 or colour.shape[-1] < 3:
        raise BadStore(f"{str(path)!r}: expected a colour image, got shape {colour.shape}")
    truth = _label(path)
    return Sample(
        name=name,
        image=np.ascontiguousarray(np.moveaxis(colour[..., :3], -1, 0)),
        truth=read_plane(truth)[None].astype(np.uint32) if truth.is_file() else None,
        group=name,
        channels=("red", "green", "blue"),
    )
