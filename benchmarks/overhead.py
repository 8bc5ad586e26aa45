"""Overhead of the pipeline over the bare network, tile 2,048.

    python benchmarks/overhead.py [--model worms] [--size 4096]

Total time of the main job (serial) against the time of the network's forward pass over the same pixels, its halo
included; the halo's own cost is reported apart.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine, write_result

from flows.execution.segmenters import loaded
from flows.ingest.samples import ingest_synthetic
from flows.jobs import SegmentJob, job
from flows.segmentation.plan import items, make_plan
from flows.segmentation.run import segment

SEED = 5
CORE = 2048


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="worms")
    parser.add_argument("--size", type=int, default=4096)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        store = str(folder / "image.zarr")
        ingest_synthetic(store, kind="worms", size=(options.size, options.size), seed=SEED)
        work = job(SegmentJob, {"source": store, "model": options.model, "tiling": {"core": CORE}})
        plan = make_plan(work)
        network = loaded(plan.segmenter)
        rng = np.random.default_rng(SEED)
        tiles = list(items(plan.works))
        blocks = {tile.tile.read.shape: rng.random((1, *tile.tile.read.shape), np.float32) for tile in tiles}
        network(next(iter(blocks.values())))
        started = time.perf_counter()
        for tile in tiles:
            network(blocks[tile.tile.read.shape])
        forward = time.perf_counter() - started
        started = time.perf_counter()
        record = segment(work)
        total = time.perf_counter() - started
        seen = sum(int(np.prod(tile.tile.read.shape)) for tile in tiles)
        write_result(
            "overhead",
            {
                "what": "whole job against the network's forward pass", "machine": machine(SEED),
                "model": options.model, "size": options.size, "core": CORE, "halo": plan.works[0].halo,
                "forward_seconds": round(forward, 2), "total_seconds": round(total, 2),
                "ratio": round(total / forward, 3), "pixels_seen_over_pixels": round(seen / options.size**2, 3),
                "objects": record.objects, "stages": record.stages,
            },
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
