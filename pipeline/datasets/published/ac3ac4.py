"""AC3/AC4 (SNEMI3D): neurites in mouse cortex, two volumes of 1,024 x 1,024 slices, read slice by slice.

Read are ``AC3_inputs`` and ``AC3_labels``, ``AC4_inputs`` and ``AC4_labels`` as ``.h5`` (array ``main``) or
``.tif``/``.tiff``. The invariant: ids are those of the volume, so an object keeps its id from slice to slice;
the split is by volume and depth as in the affinity paper.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from pipeline.datasets.published.sources import check_split, find_files, hdf5, names_of
from pipeline.datasets.sample import Sample
from pipeline.errors import BadStore
from pipeline.stack import check_stack

NAME = "ac3ac4"
TITLE = "AC3/AC4 (SNEMI3D): mouse somatosensory cortex, electron microscopy"
CITATION = "Kasthuri et al., Saturated reconstruction of a volume of neocortex, Cell 162, 648 (2015)"
LICENCE = "challenge data, academic use"
URLS = ("https://snemi3d.grand-challenge.org/",)
CHECKSUMS: dict[str, str] = {}
SPLITS = ("train", "validation", "test", "all")
VALIDATION_FROM = 80
"""Slices of AC4 from this one on are for validation, those before it for training."""
TEST_SLICES = 100
"""Slices of AC3 that are the test set; deeper ones are in no split but ``all``."""
PIXEL_SIZE_UM = 0.006


def read(source: Path | str, *, split: str = "all") -> Iterator[Sample]:
    """Yield the slices of a split, ``AC3_000`` first; a volume without labels has no truth.

    Raises:
        BadArgument: no such split.
        BadStore: neither volume was found, or labels and image differ in shape.
    """
    check_split(split, SPLITS, dataset=NAME)
    volumes = _volumes(source)
    depths = {volume: _shape(image)[0] for volume, (image, _) in volumes.items()}
    every = [f"{volume}_{z:03d}" for volume, depth in depths.items() for z in range(depth)]
    names = names_of(split, every, split_of, dataset=NAME)
    return (_sample(name, *volumes[name[:3]]) for name in names)


def split_of(name: str) -> str:
    """Name the split of a slice such as ``AC4_085``; ``""`` for what the paper does not use."""
    volume, z = name.split("_")
    if volume == "AC3":
        return "test" if int(z) < TEST_SLICES else ""
    return "validation" if int(z) >= VALIDATION_FROM else "train"


def _volumes(source: Path | str) -> dict[str, tuple[Path, Path | None]]:
    """Return the files of each volume: image, and labels where they exist."""
    files: dict[str, Path] = {}
    for path in find_files(source, "AC[34]_*", what="volumes AC3_inputs and AC4_inputs (.h5, .tif)"):
        if path.suffix.lower() in (".h5", ".hdf5", ".hdf", ".tif", ".tiff"):
            files.setdefault(path.stem, path)
    volumes = {
        v: (files[f"{v}_inputs"], files.get(f"{v}_labels")) for v in ("AC3", "AC4") if f"{v}_inputs" in files
    }
    if not volumes:
        raise BadStore(f"{NAME}: expected AC3_inputs or AC4_inputs in {str(source)!r}, got {sorted(files)}")
    for volume, (image, truth) in volumes.items():
        if truth is not None and _shape(truth) != _shape(image):
            raise BadStore(f"{volume}: expected labels of shape {_shape(image)}, got {_shape(truth)}")
    return volumes


def _shape(path: Path) -> tuple[int, ...]:
    if path.suffix.lower() in (".tif", ".tiff"):
        with tifffile.TiffFile(path) as file:
            return file.series[0].shape
    with hdf5(path) as file:
        if "main" not in file:
            raise BadStore(f"{str(path)!r}: expected an array 'main', got {sorted(file)}")
        return tuple(file["main"].shape)


def _slice(path: Path, z: int) -> np.ndarray:
    if path.suffix.lower() in (".tif", ".tiff"):
        return tifffile.imread(path, key=z)
    with hdf5(path) as file:
        return np.asarray(file["main"][z])


def _sample(name: str, image: Path, truth: Path | None) -> Sample:
    z = int(name[4:])
    return Sample(
        name=name,
        image=_slice(image, z)[None],
        truth=None if truth is None else check_stack(_slice(truth, z)[None], name=f"labels of {name}"),
        group=split_of(name) or f"{name[:3]} rest",
        channels=("EM",),
        pixel_size_um=PIXEL_SIZE_UM,
    )
