"""How much each method depends on the tiling: the objects of an image as a whole against those found in tiles.

    python benchmarks/tilings.py FOLDER [--steps 600] [--methods layering unet2 ...]

Each method learns generated cells that touch and overlap, with the networks and budgets of `benchmarks/methods.py`;
FOLDER keeps the trainings. Larger generated images are then segmented whole and with smaller tiles by the job of
`platelayer segment`. An object is the same if the other answer has one of exactly its pixels. The CPU seconds of
network and decoding are those of whole images. Writes ``benchmarks/results/tilings.json``.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adapters import objects
from machine import machine, write_result
from methods import NORMALISE, answers, generated_cells, recipe_of, trained

from flows.jobs import SegmentJob, job
from flows.segmentation.run import segment
from model.checkpoint import Checkpoint, load_checkpoint
from model.kinds import KINDS
from pipeline.datasets.synthetic.scenes import scene
from pipeline.normalise import normalised
from pipeline.store.ome.image_writing import write_image
from pipeline.store.places.address import address

CELLS = 30
SEEDS = (1000, 1001)
SIZE = 384
CORES = (64, 128)
WHOLE = 1024


def main() -> None:
    """Train what is missing, measure every method, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--methods", nargs="+", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args()
    rows = []
    for kind in options.methods:
        folder = learnt(kind, options.folder, steps=options.steps)
        rows.append(seconds(load_checkpoint(folder)) | in_tiles(folder))
        about = f"objects of generated cells, {len(SEEDS)} images of {SIZE} px, whole and in tiles"
        write_result("tilings", {"what": about, "machine": machine(SEEDS[0]), "rows": rows})


def learnt(kind: str, folder: Path, *, steps: int) -> Path:
    """Return the folder of a model of a method that has learnt generated cells."""
    data = generated_cells(CELLS)
    recipe = recipe_of(kind, data, steps=steps, seed=0)
    return trained(recipe, data.folds[0][0], folder / f"cells-{kind}-{steps}", device="cpu")


def drawn(seed: int) -> np.ndarray:
    """A generated image ``(1, y, x)``."""
    return scene("cells", (SIZE, SIZE), seed=seed, density=3.0).sample("image").image


def in_tiles(model: Path) -> dict[str, Any]:
    """Segment the images whole and in tiles, and compare the objects."""
    row: dict[str, Any] = {"objects": 0, "tiles": {}}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "cells.zarr"
            write_image(address(store), "", drawn(seed), chunks=(128, 128))
            found, ambiguous = {}, {}
            for core in (*CORES, WHOLE):
                table = {
                    "source": str(store),
                    "model": str(model),
                    "name": f"core{core}",
                    "tiling": {"core": core},
                }
                record = segment(job(SegmentJob, table))
                found[core], ambiguous[core] = objects(store, f"core{core}"), record.images[""]["ambiguous"]
        whole = found.pop(WHOLE)
        row["objects"] += len(whole)
        for core, some in found.items():
            counts = {
                "objects": len(some), "same": len(some & whole), "ambiguous": ambiguous[core],
                "differing_px": len(frozenset().union(*some - whole, *whole - some)),
            }  # fmt: skip
            before = row["tiles"].get(str(core), {})
            row["tiles"][str(core)] = {name: before.get(name, 0) + count for name, count in counts.items()}
    return row


def seconds(checkpoint: Checkpoint) -> dict[str, Any]:
    """CPU seconds of the network and of decoding per megapixel of whole images."""
    images = [normalised(drawn(seed), NORMALISE) for seed in SEEDS]
    spent = answers(checkpoint, images, device="cpu")[1] / (len(images) * SIZE**2 / 1e6)
    return {
        "method": checkpoint.method.kind, "link": checkpoint.method.link,
        "network_s_per_Mpx": round(float(spent[0]), 3), "decoding_s_per_Mpx": round(float(spent[1]), 3),
    }  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
