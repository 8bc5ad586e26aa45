"""How much networks of other packages depend on the tiling: objects that differ between tile sizes.

    python benchmarks/adapters.py stardist:tests/model/adapters/stardist_tiny [name=value of a setting]

A scene of ellipses is segmented whole and with smaller tiles; an object differs when no object of the whole image has
exactly its pixels. Adds to ``benchmarks/results/adapters.json``; packages that exclude each other are run one after the
other.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import RESULTS, machine, write_result

from flows.jobs import SegmentJob, job
from flows.segmentation.run import segment
from pipeline.store.ome.image_writing import write_image
from pipeline.store.ome.labels import read_stack
from pipeline.store.places.address import address

SEED = 7
SIZE = 384
CORES = (96, 192)
WHOLE = 1024


def scene(seed: int = SEED, number: int = 90) -> np.ndarray:
    """Draw ellipses of 10 to 20 px on noise, as the tiny models of the tests were trained on; uint16."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    label = np.zeros((SIZE, SIZE), np.int32)
    for one in range(1, number + 1):
        (cy, cx), (a, b), turn = rng.uniform(0, SIZE, 2), rng.uniform(5, 10, 2), rng.uniform(0, np.pi)
        u, v = (
            (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn),
            (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn),
        )
        label[((u / a) ** 2 + (v / b) ** 2 <= 1) & (label == 0)] = one
    bright = np.where(label > 0, 900 + 40 * (label % 7), 0) * rng.uniform(0.8, 1.2, label.shape)
    return np.clip(200 + bright + rng.normal(0, 25, label.shape), 0, 65535).astype(np.uint16)


def objects(store: Path, name: str) -> set[frozenset[int]]:
    """Return the objects of a label stack as sets of pixels."""
    found = set()
    for layer in read_stack(address(store), "", name):
        order = np.argsort(layer, axis=None, kind="stable")
        ids, starts = np.unique(layer.ravel()[order], return_index=True)
        parts = np.split(order, starts[1:])
        found |= {frozenset(part.tolist()) for one, part in zip(ids, parts, strict=True) if one}
    return found


def measure(segmenter: str, settings: dict[str, float]) -> dict[str, object]:
    """Segment the scene whole and in tiles; the number of objects, and of those that differ by core."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "scene.zarr"
        write_image(address(store), "", scene()[None], chunks=(128, 128))
        found = {}
        for core in (*CORES, WHOLE):
            table = {"source": str(store), "segmenter": segmenter, "name": f"core{core}", "method": settings}
            segment(job(SegmentJob, table | {"tiling": {"core": core}}))
            found[core] = objects(store, f"core{core}")
    whole = found.pop(WHOLE)
    return {
        "objects": len(whole),
        "differ": {str(core): len(some - whole) for core, some in found.items()},
        "in_tiles": {str(core): len(some) for core, some in found.items()},
    }


def main(words: list[str]) -> None:
    """Measure the segmenters that are named; ``name=value`` words are settings of all of them."""
    settings = {
        name: float(value) for name, _, value in (word.partition("=") for word in words if "=" in word)
    }
    kept = RESULTS / "adapters.json"
    adapters = json.loads(kept.read_text())["adapters"] if kept.exists() else {}
    for segmenter in (word for word in words if "=" not in word):
        package, _, place = segmenter.partition(":")
        adapters[f"{package}:{Path(place).name}"] = measure(segmenter, settings)
    write_result("adapters", {"what": f"objects that differ from those of the whole image of {SIZE} px, by core",
                              "machine": machine(SEED), "adapters": adapters})  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
