"""Overlap and scores of images with thousands of overlapping objects: seconds, memory, and what others need.

    python benchmarks/metrics.py [--repeats 3]

One core, a process for each measurement. Memory is the peak of what the task allocates beside the two stacks (Python
and numpy). The others (pycocotools, dense masks in bounding boxes with scikit-image) get the same image;
pycocotools only the small one, since a mask of the whole image per object does not finish on the large one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, write_result

from pipeline.metrics.evaluation import evaluate_image
from pipeline.metrics.overlap import overlap, overlap_streamed

SEED = 11
DENSITY = 5000 / 4096**2
"""Objects per pixel and side."""


def disks(size: int, *, shake_px: int, layers: int = 6) -> np.ndarray:
    """Draw disks of 18 to 32 px that overlap, as a label stack; the same ones, moved by up to ``shake_px``."""
    rng = np.random.default_rng(SEED)
    stack = np.zeros((layers, size, size), np.uint32)
    for label in range(1, round(DENSITY * size**2) + 1):
        radius, (y, x) = rng.integers(18, 33), rng.integers(40, size - 40, 2)
        moved = rng.integers(-8, 9, 2)
        y, x = (y + moved[0], x + moved[1]) if shake_px else (y, x)
        disk = np.hypot(*np.ogrid[-radius : radius + 1, -radius : radius + 1]) <= radius
        windows = stack[:, y - radius : y + radius + 1, x - radius : x + radius + 1]
        free = next((window for window in windows if not window[disk].any()), None)
        if free is not None:
            free[disk] = label
    return stack[stack.any(axis=(1, 2))]


def keep_pair(size: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction, drawn once and kept for the measuring processes."""
    truth, prediction = disks(size, shake_px=0), disks(size, shake_px=8)
    np.save(folder / "truth.npy", truth)
    np.save(folder / "prediction.npy", prediction)
    return truth, prediction


def pycocotools_iou(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """IoU of all pairs from run-length codes, one dense mask at a time."""
    from pycocotools import mask as coco

    codes = [
        [
            coco.encode(np.asfortranarray(layer == label, np.uint8))
            for layer in stack
            for label in np.unique(layer[layer > 0])
        ]
        for stack in (truth, prediction)
    ]
    return coco.iou(codes[0], codes[1], [0] * len(codes[1]))


def box_masks_iou(truth: np.ndarray, prediction: np.ndarray) -> list[float]:
    """IoU of all pairs from one boolean mask per object, cut to its bounding box."""
    from skimage.measure import regionprops

    found = {p.label: p for layer in prediction for p in regionprops(layer.astype(np.int32))}
    values = []
    for layer in truth:
        for region in regionprops(layer.astype(np.int32)):
            for below in prediction:
                labels, pixels = np.unique(below[region.slice][region.image], return_counts=True)
                areas = [found[label].area if label else 0 for label in labels]
                values += [n / (region.area + a - n) for a, n in zip(areas, pixels) if a]
    return values


def streamed(truth: np.ndarray, prediction: np.ndarray) -> Any:
    """Give the same overlap from tiles of 1,024 px."""
    shape = truth.shape[1:]
    return overlap_streamed(
        lambda y0, y1, x0, x1: truth[:, y0:y1, x0:x1],
        lambda y0, y1, x0, x1: prediction[:, y0:y1, x0:x1],
        (shape[0], shape[1]),
        block_px=1024,
    )


TASKS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "overlap": lambda truth, prediction: overlap(truth, prediction).pairs,
    "overlap_streamed": lambda truth, prediction: streamed(truth, prediction).pairs,
    "overlap_and_every_score": lambda truth, prediction: evaluate_image(overlap(truth, prediction)),
    "pycocotools": pycocotools_iou,
    "box_masks": box_masks_iou,
}

OTHERS = ("pycocotools", "box_masks")


def measure(task: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Run a task in this process; the best of the repeats counts."""
    truth, prediction = np.load(folder / "truth.npy"), np.load(folder / "prediction.npy")
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        TASKS[task](truth, prediction)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    tracemalloc.start()
    TASKS[task](truth, prediction)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    return {"wall_s": round(min(walls), 3), "cpu_s": round(min(cpus), 3), "peak_MiB": round(peak, 1)}


def apart(task: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Run ``measure`` in a process of its own, on one core."""
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder), "--repeats", str(repeats)]
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=root, env={**os.environ, **one}
    )
    return json.loads(done.stdout)


def compare(size: int, repeats: int) -> dict[str, Any]:
    """Measure ours and the others on one size."""
    tasks = [name for name in TASKS if name != "pycocotools" or size <= 1024]
    with tempfile.TemporaryDirectory() as name:
        stacks = keep_pair(size, Path(name))
        found = {task: apart(task, Path(name), 1 if task in OTHERS else repeats) for task in tasks}
    both = overlap(*stacks)
    ours = found["overlap"]["cpu_s"]
    return {
        "size": size,
        "objects": [both.n_truth, both.n_prediction],
        "layers": [len(stack) for stack in stacks],
        "pairs": int(both.pairs.iou.size),
        **found,
        "times_slower": {name: round(found[name]["cpu_s"] / ours, 1) for name in OTHERS if name in found},
    }


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--task", choices=list(TASKS))
    parser.add_argument("--folder", type=Path, help="where a measuring process finds the stacks")
    options = parser.parse_args()
    if options.task:
        print(json.dumps(measure(options.task, options.folder, options.repeats)))
        return
    facts = {"machine": machine(SEED), "numpy": np.__version__}
    what = (
        "intersecting two label stacks, 5,000 overlapping disks per 4,096 x 4,096 px on each side, one core"
    )
    sizes = [compare(size, options.repeats) for size in (1024, 4096)]
    write_result("metrics", {"what": what, **facts, "sizes": sizes})


if __name__ == "__main__":
    main()
