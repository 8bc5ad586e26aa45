"""How much each method depends on the tiling: the objects of an image as a whole against those found in tiles.

    python benchmarks/tilings.py FOLDER DATA [--steps 1000] [--kinds layering unet2 ...]

The models are those that `benchmarks/methods.py FOLDER --worms DATA` has trained. Four validation images of BBBC010,
side by side (the paper's crop), are segmented whole and in tiles by the job of `platelayer segment`. Without DATA the
models are those of `methods.py FOLDER --cells N`, and the images are generated too. An object is the same if the other
answer has one of exactly its pixels. Adds to ``benchmarks/results/tilings.json``.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adapters import objects
from machine import RESULTS, machine, write_result

from flows.jobs import SegmentJob, job
from flows.segmentation.run import segment
from model.kinds import KINDS
from pipeline.datasets.published.catalogue import dataset
from pipeline.datasets.synthetic.scenes import scene
from pipeline.store.ome.image_writing import write_image
from pipeline.store.places.address import address

SEEDS = (1000, 1001)
WHOLE = 2048


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images of a data set, and how they are cut."""

    data: str
    what: str
    pixels: list[np.ndarray]
    cores: tuple[int, ...]


def main() -> None:
    """Measure the models that there are, and add them to the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("data", type=Path, nargs="?", help="BBBC010; without it, generated cells")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--cores", type=int, nargs="+", help="sides of the tiles in px")
    options = parser.parse_args()
    images = _wells(options.data) if options.data else _cells()
    images = replace(images, cores=tuple(options.cores)) if options.cores else images
    kept = RESULTS / "tilings.json"
    rows = json.loads(kept.read_text())["rows"] if kept.exists() else {}
    for kind, model in folders_of(options.folder, images.data, options.kinds, options.steps):
        about = {"images": images.what, "steps": options.steps, "link": KINDS[kind].link}
        rows[f"{images.data} {kind}"] = about | in_tiles(model, images)
        what = "objects of images as a whole and in tiles; the same: of exactly the same pixels"
        write_result("tilings", {"what": what, "machine": machine(SEEDS[0]), "rows": rows})


def folders_of(folder: Path, data: str, kinds: Sequence[str], steps: int) -> Iterator[tuple[str, Path]]:
    """Yield method and folder of each model that `benchmarks/methods.py` has trained."""
    for kind in kinds:
        note = folder / f"{data}-{kind}-{steps}-0" / "fold0" / "trained.txt"
        if note.is_file():
            yield kind, note.parent / note.read_text()


def _wells(source: Path) -> Images:
    """Four validation images in a square."""
    samples = list(dataset("bbbc010").read(source, split="validation", crop=True))[:4]
    upper, lower = (np.concatenate([s.image for s in samples[n : n + 2]], axis=2) for n in (0, 2))
    mosaic = np.concatenate([upper, lower], axis=1)
    return Images(data="worms", what="four wells of 448 px, side by side", pixels=[mosaic], cores=(192,))


def _cells() -> Images:
    drawn = [scene("cells", (384, 384), seed=seed, density=3.0).sample("image").image for seed in SEEDS]
    return Images(data="cells", what="two generated images of 384 px", pixels=drawn, cores=(64, 128))


def in_tiles(model: Path, images: Images) -> dict[str, Any]:
    """Segment images whole and in tiles, and compare the objects."""
    row: dict[str, Any] = {"objects": 0, "tiles": {str(core): {} for core in images.cores}}
    for pixels in images.pixels:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "image.zarr"
            write_image(address(store), "", pixels, chunks=(128, 128))
            whole = _objects(store, model, WHOLE)[0]
            row["objects"] += len(whole)
            for core in images.cores:
                found, ambiguous = _objects(store, model, core)
                counts = {
                    "objects": len(found), "same": len(found & whole), "ambiguous": ambiguous,
                    "differing_px": len(frozenset().union(*found - whole, *whole - found)),
                }  # fmt: skip
                before = row["tiles"][str(core)]
                row["tiles"][str(core)] = {name: before.get(name, 0) + n for name, n in counts.items()}
    return row


def _objects(store: Path, model: Path, core: int) -> tuple[set[frozenset[int]], int]:
    """The objects of an image in tiles of so many pixels, and how many matches were ambiguous."""
    name = f"core{core}"
    table = {"source": str(store), "model": str(model), "name": name, "tiling": {"core": core}}
    record = segment(job(SegmentJob, table))
    return objects(store, name), int(record.images[""]["ambiguous"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
