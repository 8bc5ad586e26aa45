"""BBBC010: live and dead C. elegans in bright field, 100 wells of one plate, one mask per worm.

The invariant: overlapping worms stay whole, each from its own mask, and a well is on one side of a split.
Worms at the wall of the well are annotated in part only. The ``*_binary.png`` of the archive are shifted by
one pixel and not read.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.datasets.published.sources import check_split, find_files, names_of, read_plane
from pipeline.datasets.sample import Sample
from pipeline.errors import BadStore
from pipeline.stack import stack_from_masks

NAME = "bbbc010"
TITLE = "BBBC010: C. elegans live/dead assay, bright field"
CITATION = (
    "Ljosa et al., Annotated high-throughput microscopy image sets for validation, "
    "Nat. Methods 9, 637 (2012); "
    "Waehlby et al., An image analysis toolbox for high-throughput C. elegans assays, "
    "Nat. Methods 9, 714 (2012)"
)
LICENCE = "Broad Bioimage Benchmark Collection; cite the papers"
URLS = (
    "https://data.broadinstitute.org/bbbc/BBBC010/BBBC010_v1_images.zip",
    "https://data.broadinstitute.org/bbbc/BBBC010/BBBC010_v1_foreground_eachworm.zip",
)
CHECKSUMS: dict[str, str] = {}
SPLITS = ("train", "validation", "test", "all")
CROP = (slice(50, 498), slice(120, 568))
"""The 448 x 448 pixels the layering paper trains and evaluates on."""
TEST_ROW = "D"
VALIDATION_COLUMNS = 10
"""Outside the test row, wells whose column is a multiple of this are for validation."""


def read(source: Path | str, *, split: str = "all", crop: bool = False) -> Iterator[Sample]:
    """Yield the wells of a split in order of their names: channel ``w2``, truth from one mask per worm.

    With ``crop`` image and truth are cut to ``CROP``; worms that leave no pixel there are dropped. A well
    with an image and no mask has no truth (``None``); masks without an image are not read.

    Raises:
        BadArgument: no such split.
        BadStore: the images or the folder of masks are not there.
    """
    check_split(split, SPLITS, dataset=NAME)
    images = {
        _well(path): path for path in find_files(source, "*_w2_*.tif", what="BBBC010 images of channel w2")
    }
    masks = _masks_by_well(source)
    wells = names_of(split, images, split_of, dataset=NAME)
    return (_sample(well, images[well], masks.get(well, []), crop=crop) for well in wells)


def split_of(well: str) -> str:
    """Name the split of a well such as ``"A01"``: row D is the paper's test set."""
    if well[0] == TEST_ROW:
        return "test"
    return "train" if int(well[1:]) % VALIDATION_COLUMNS else "validation"


def _well(path: Path) -> str:
    """``1649_1109_0003_Amp5-1_B_20070424_A01_w2_<id>.tif`` -> ``A01``."""
    return path.name.split("_w2_")[0].rpartition("_")[2]


def _masks_by_well(source: Path | str) -> dict[str, list[Path]]:
    wells: dict[str, list[Path]] = defaultdict(list)
    for path in find_files(source, "[A-P][0-9][0-9]_*_ground_truth.png", what="one BBBC010 mask per worm"):
        wells[path.name[:3]].append(path)
    return wells


def _sample(well: str, image: Path, masks: list[Path], *, crop: bool) -> Sample:
    window = CROP if crop else (slice(None), slice(None))
    pixels = read_plane(image)[window]
    return Sample(
        name=well,
        image=pixels[None],
        truth=_truth(masks, window, pixels.shape) if masks else None,
        group=well,
        well=(well[0], str(int(well[1:]))),
        channels=("brightfield",),
    )


def _truth(paths: list[Path], window: tuple[slice, slice], shape: tuple[int, ...]) -> np.ndarray:
    masks = [read_plane(path)[window] > 0 for path in paths]
    for path, mask in zip(paths, masks, strict=True):
        if mask.shape != shape:
            raise BadStore(f"mask {str(path)!r}: expected {shape} like the image, got {mask.shape}")
    return stack_from_masks([mask for mask in masks if mask.any()], shape)
