"""Peak memory of the whole process tree must not grow with the image.

    python benchmarks/memory.py [--sizes 8192 32768]

The main job with two worker processes on images of two sizes (a repeated block of bright disks, a cheap per-pixel
segmenter); resident memory of the driver and all its children is summed every 50 ms, shared pages counted once.
"""

import argparse
import shutil
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
from machine import machine, write_result
from skimage.draw import disk

from flows.jobs import SegmentJob, job
from flows.segmentation.run import segment
from pipeline.store.ome.image_writing import create_image
from pipeline.store.places.address import address

BLOCK = 2048
SEED = 3


def bright(block: np.ndarray) -> np.ndarray:
    """Segment by a fixed threshold."""
    return block > 1000


def make_image(folder: Path, size: int) -> Path:
    """An image of disks, block by block."""
    rng = np.random.default_rng(SEED)
    tile = rng.integers(0, 200, (BLOCK, BLOCK)).astype(np.uint16)
    for _ in range(2500):
        y, x = disk(rng.integers(0, BLOCK, 2), rng.integers(6, 14), shape=tile.shape)
        tile[y, x] = 4000
    store = folder / f"{size}.zarr"
    writer = create_image(address(store), axes=("y", "x"), shape=(size, size), dtype="uint16")
    for y in range(0, size, BLOCK):
        for x in range(0, size, BLOCK):
            part = tile[: min(BLOCK, size - y), : min(BLOCK, size - x)]
            writer.write((slice(y, y + part.shape[0]), slice(x, x + part.shape[1])), part)
    writer.finish()
    return store


class Watch:
    """Remembers the largest memory of this process and its children."""

    def __init__(self) -> None:
        self.peak, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.05):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()


def main() -> None:
    """Run both sizes and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8192, 32768])
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    runs = []
    try:
        for size in options.sizes:
            # In a process of its own, so that what it leaves behind is not counted.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                store = pool.submit(make_image, folder, size).result()
            work = job(
                SegmentJob,
                {
                    "source": str(store), "segmenter": "benchmarks.memory:bright", "normalise": {"kind": "none"},
                    "execution": {"executor": "dask", "workers": 2}, "tiling": {"core": BLOCK},
                },
            )  # fmt: skip
            started = time.perf_counter()
            with Watch() as watch:
                record = segment(work)
            seconds = round(time.perf_counter() - started, 1)
            runs.append(
                {"size": size, "peak_MiB": watch.peak >> 20, "objects": record.objects, "seconds": seconds}
            )
            shutil.rmtree(store)
        ratio = round(runs[-1]["peak_MiB"] / runs[0]["peak_MiB"], 3)
        write_result(
            "memory", {"what": "peak memory of the process tree", "machine": machine(SEED), "sizes": options.sizes,
                       "runs": runs, "ratio": ratio},
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
