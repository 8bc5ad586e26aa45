"""What a second worker on one host is worth to the whole job: one and two Dask workers in turn, several times over.

    python benchmarks/scaling.py [--model nuclei] [--size 4096] [--repeats 3]

An image of synthetic cells, the model on the CPU, one thread in each worker's network. Times are of the whole command:
planning, the start and end of the workers, every stage. Labels and tables of all runs are compared byte by byte.
"""

import argparse
import hashlib
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from machine import machine, write_result

from flows.ingest.samples import ingest_synthetic
from flows.jobs import SegmentJob, job
from flows.segmentation.run import segment

SEED = 9
CORE = 1024


def run(source: Path, output: Path, model: str, workers: int) -> dict[str, Any]:
    """Time a run from its beginning."""
    shutil.rmtree(output, ignore_errors=True)
    table = {
        "source": str(source), "output": str(output), "model": model, "name": "n", "tiling": {"core": CORE},
        "execution": {"executor": "dask", "workers": workers, "device": "cpu"},
    }  # fmt: skip
    started = time.perf_counter()
    record = segment(job(SegmentJob, table))
    seconds = time.perf_counter() - started
    stages = {name: facts["seconds"] for name, facts in record.stages.items()}
    return {
        "workers": workers, "seconds": round(seconds, 2), "stages": stages,
        "start_and_end": round(seconds - sum(stages.values()), 2), "objects": record.objects,
        "sha256": digest(output),
    }  # fmt: skip


def digest(output: Path) -> str:
    """Of all files of labels and tables."""
    found = hashlib.sha256()
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output)
        if path.is_file() and name.parts[0] in ("labels", "tables"):
            found.update(f"{name}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        ingest_synthetic(
            str(folder / "image.zarr"), kind="cells", size=(options.size, options.size), seed=SEED
        )
        about = {"what": "the whole job with one and with two Dask workers", "machine": machine(SEED)}
        runs = [
            run(folder / "image.zarr", folder / "out.zarr", options.model, workers)
            for _ in range(options.repeats)
            for workers in (1, 2)
        ]
        one, two = (median(r["seconds"] for r in runs if r["workers"] == workers) for workers in (1, 2))
        same = len({r["sha256"] for r in runs}) == 1
        settings = {"model": options.model, "size": options.size, "core": CORE}
        gain = {"median_seconds": {"1": one, "2": two}, "gain": round(one / two, 2), "same_bytes": same}
        write_result("scaling", about | settings | gain | {"runs": runs})
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
