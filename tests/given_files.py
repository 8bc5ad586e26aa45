"""What the pages of the documentation expect in the folder of their reader: small stores and files, by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from flows.ingest.samples import ingest_synthetic
from pipeline.datasets.synthetic.scenes import scene
from pipeline.store.ome.image_writing import write_image
from pipeline.store.places.address import address

WORMS = (256, 320)
CELLS = (192, 224)
WELLS = (("A", "1"), ("B", "12"))


def _cells(seed: int, size: tuple[int, int] = CELLS) -> tuple[np.ndarray, np.ndarray]:
    """Image uint16 ``(y, x)`` and truth ``(layers, y, x)`` of stained nuclei."""
    image, truth = scene("cells", size, seed=seed).render(0, size[0], 0, size[1])
    return image[0], truth


def plate(target: Path) -> None:
    """A plate of worms with their truth, two wells of one field."""
    ingest_synthetic(str(target), kind="worms", size=WORMS, wells=WELLS, seed=3)


def slide(target: Path) -> None:
    """One image of nuclei, DAPI and GFP, 0.325 um."""
    image = np.stack([_cells(seed, (320, 384))[0] for seed in (1, 2)])
    write_image(
        address(target), "", image, channels=("DAPI", "GFP"), spacing_um=(0.325, 0.325), chunks=(128, 128)
    )


def archive(target: Path) -> None:
    """Two plates in a folder."""
    for number in (1, 2):
        ingest_synthetic(
            str(target / f"plate{number}.zarr"), kind="cells", size=CELLS, wells=WELLS[:1], seed=number
        )


def scan(target: Path) -> None:
    """TIFF files of two wells, two channels each."""
    target.mkdir()
    for seed, well in enumerate(("A01", "B12")):
        for channel in ("DAPI", "GFP"):
            tifffile.imwrite(target / f"exp_{well}_s1_{channel}.tif", _cells(seed)[0])


def repeats(target: Path) -> None:
    """TIFF files with a part in their names that can mean many things."""
    target.mkdir()
    for number in (1, 2):
        tifffile.imwrite(target / f"exp_A01_rep{number}.tif", _cells(number)[0])


def cells(target: Path) -> None:
    """TIFF files that belong to no well."""
    target.mkdir()
    for number in (1, 2):
        tifffile.imwrite(target / f"cells_00{number}.tif", _cells(number)[0])


def masks(target: Path) -> None:
    """Label images of the plate, named after its wells."""
    target.mkdir()
    for seed, well in enumerate(("A01", "B12"), start=3):
        _, truth = scene("worms", WORMS, seed=seed).render(0, WORMS[0], 0, WORMS[1])
        tifffile.imwrite(target / f"{well}_cp_masks.tif", truth.max(0).astype(np.uint16))


def annotations(target: Path) -> None:
    """Two rectangles on the slide, as QuPath writes them."""
    corners = (
        [(10, 10), (60, 10), (60, 50), (10, 50), (10, 10)],
        [(40, 30), (90, 30), (90, 80), (40, 80), (40, 30)],
    )
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for ring in corners
    ]
    target.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def bbbc010(target: Path) -> None:
    """Two wells in the layout of BBBC010, column 10 being its validation part."""
    for folder in ("images", "masks"):
        (target / folder).mkdir(parents=True)
    for seed, well in enumerate(("A01", "A10")):
        image, truth = scene("worms", WORMS, seed=seed).render(0, WORMS[0], 0, WORMS[1])
        tifffile.imwrite(target / "images" / f"1649_1109_0003_Amp5-1_{well}_w2_{seed}.tif", image[0])
        for number, label in enumerate(np.unique(truth[truth > 0]), start=1):
            worm = (truth == label).any(0).astype(np.uint8) * 255
            Image.fromarray(worm).save(target / "masks" / f"{well}_{number:02d}_ground_truth.png")


def my_stardist(target: Path) -> None:
    """A small StarDist model in the package's own format."""
    shutil.copytree(Path(__file__).parent / "model" / "adapters" / "stardist_tiny", target)


GIVEN = {
    "plate.zarr": plate, "slide.zarr": slide, "archive": archive, "scan": scan, "repeats": repeats, "cells": cells,
    "masks": masks, "annotations.geojson": annotations, "BBBC010": bbbc010,
    "my-stardist": my_stardist,
}  # fmt: skip
"""What writes a thing to a path, by the name that pages give it."""
